"""The docs site: its navigation names every page, its pins agree with the others, and it builds
strictly where mkdocs is installed, by ``make site`` or beside pytest. The pages stay short.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORDS_MAX = 20_000  # to be lowered, never raised
_MADE = re.compile(
    r"<!-- (\w+): begin -->.*?<!-- \1: end -->|^ *```.*?^ *```", re.DOTALL | re.MULTILINE
)


def pages_of(entries: list[Any]) -> list[str]:
    """Return the pages of a navigation, from top to bottom."""
    values = [value for entry in entries for value in entry.values()]
    return [
        page
        for value in values
        for page in ([value] if isinstance(value, str) else pages_of(value))
    ]


def pins(name: str) -> dict[str, str]:
    """Return the versions that a file of requirements pins."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def words(text: str) -> int:
    """Return how many words a page has that are read: no numbers, code blocks or made tables."""
    return sum(bool(re.search("[A-Za-z]", word)) for word in _MADE.sub("", text).split())


def test_words_are_counted_as_they_are_read():
    made = "<!-- jets: begin -->\n| made | table |\n<!-- jets: end -->\n```\nsome code\n```\n"
    assert words(f"Two words, 3 | **and** `code`.\n{made}One more\n") == 6


def test_the_docs_stay_short():
    pages = [page for page in ROOT.glob("docs/*.md") if page.name != "tutorial.md"]
    assert sum(words(page.read_text(encoding="utf-8")) for page in pages) <= WORDS_MAX


def test_the_navigation_names_every_page_once():
    pages = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(pages) == len(set(pages))
    assert all((ROOT / page).is_file() for page in pages)
    assert {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} <= set(pages)


def test_pins_of_the_site_agree_with_those_of_the_package():
    site = {name.lower(): version for name, version in pins("requirements-docs.txt").items()}
    assert {"mkdocs-material", "mkdocstrings", "mkdocstrings-python"} <= set(site)
    others = pins("requirements.txt") | pins("requirements-dev.txt")
    shared = {name.lower(): version for name, version in others.items() if name.lower() in site}
    assert shared == {name: site[name] for name in shared}
    assert len(shared) > 5


def test_the_site_builds_without_a_dead_link(tmp_path):
    mkdocs = shutil.which("mkdocs", path=f"{ROOT}/build/site_env/bin:{os.environ['PATH']}")
    if mkdocs is None:
        pytest.skip("mkdocs is not installed: `make site`")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert 'href="docs/truth.html"' in index
    assert 'href="api/training.html"' in index
    api = (tmp_path / "site/api/training.html").read_text(encoding="utf-8")
    assert 'id="particleforge.training.checkpoint.write_checkpoint"' in api
