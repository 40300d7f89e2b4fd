"""Pages of the repository at their own paths, and those of the API, for ``mkdocs.yml``.

mkdocs knows one folder of pages. Here pages keep the paths that they have in the repository, so
that a relative link means the same on a forge and on the site. Files that pages link to come
along. Each room of the package has a page made from its docstrings.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "particleforge"
FOLDERS = (".", "docs", "config", "benchmarks", "examples/models/*")
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s#]+)[^()\s]*\)|\bsrc=\"([^\"]+)\"")


def rooms() -> dict[str, str]:
    """Return the modules and packages at the top of the package, by the path of their page."""
    names = sorted(
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    )
    return {f"api/{name}.md": f"particleforge.{name}" for name in names if name[0] != "_"}


def linked(page: Path) -> set[Path]:
    """Return the files of the repository, no pages, that a page links to."""
    found = _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
    paths = ((page.parent / (inline or source)).resolve() for inline, source in found)
    return {path for path in paths if path.is_file() and path.suffix != ".md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the API before the last section of the navigation."""
    assert config.nav is not None
    config.nav.insert(-1, {"API": [{name: page} for page, name in rooms().items()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace what mkdocs found by the repository's pages, what they link to, and the API."""
    pages = {path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md")}
    paths = pages.union(*map(linked, pages))
    found = [
        File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path))
        for path in sorted(paths)
    ]
    found += [
        File.generated(config, page, content=f"::: {name}\n") for page, name in rooms().items()
    ]
    theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*theme, *found])
