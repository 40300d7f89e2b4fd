"""Relative links of the pages lead to files that exist, and to headings that these have."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "docs", "config", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
)
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)|\bsrc=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def links(text: str) -> list[str]:
    """Return the targets of a page's links and pictures, but those to other hosts."""
    found = (inline or source for inline, source in _LINK.findall(_CODE.sub("", text)))
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(text: str) -> set[str]:
    """Return what a page's headings are called in links, by GitHub's rules."""
    headings = _HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (
            anchor and anchor not in anchors(path.read_text(encoding="utf-8"))
        ):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    assert not broken(ROOT / page)


def test_links_to_missing_files_and_headings_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading: *with* `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[file](gone.md) [heading](other.md#gone) [own](#gone) ![picture](gone.png)\n"
        "[good](other.md#a-heading-with-code) [host](https://example.org/gone) `[code](gone)`\n"
        '```\n[code](gone)\n```\n<img src="gone.svg">\n'
    )
    assert broken(page) == ["gone.md", "other.md#gone", "#gone", "gone.png", "gone.svg"]


def test_the_readme_links_every_page_of_the_docs():
    linked = set(links((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {page for page in PAGES if page.startswith("docs/")} <= linked
