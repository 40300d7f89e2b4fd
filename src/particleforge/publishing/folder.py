"""A folder that others can use: the files, a page about them, the licence and checksums.

Inputs -> outputs: what is shared (``Contents``) and a licence -> ``README.md``, whose front matter
the Hugging Face hub reads, ``LICENSE``, ``SHA256SUMS`` for ``sha256sum -c``, and the files at their
places. Records stay behind: they name the host and the time of a job.

Invariants: the folder appears whole or not at all; a folder that holds anything is left alone; a
file that is not what its stage wrote is refused.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from particleforge.artefacts import atomic_directory, check_empty, sha256
from particleforge.config.home import home
from particleforge.errors import UserError
from particleforge.stored import check_regular

SUMS = "SHA256SUMS"
TAGS = ["particle-flow", "high-energy-physics", "particleforge"]
_NOTICES = {  # licences whose owner asks for a notice with a link, not for the text
    "cc-by-4.0": (
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
    ),
    "cc0-1.0": (
        "Creative Commons Zero 1.0 Universal",
        "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    ),
}


@dataclass(frozen=True)
class Licence:
    """The name that the hub knows a licence by, and what its file says."""

    name: str
    text: str


@dataclass(frozen=True)
class Contents:
    """What is shared: files by their place in the folder, and the page about them."""

    files: Mapping[str, Path]
    front_matter: Mapping[str, Any]  # without the licence
    page: str  # Markdown
    checksums: Mapping[str, str] = field(default_factory=dict)  # that files must have, by place


def read_licence(name: str, file: Path | None) -> Licence:
    """Return a licence known here, or of any name with the text of ``file``."""
    if file is not None:
        return Licence(name, file.read_text(encoding="utf-8"))
    if name == "apache-2.0":
        return Licence(name, (home() / "LICENSE").read_text(encoding="utf-8"))
    if name in _NOTICES:
        title, address = _NOTICES[name]
        return Licence(name, f"Licensed under {title}.\nThe licence: {address}\n")
    known = ", ".join(["apache-2.0", *_NOTICES])
    raise UserError(f"--license {name}: known are {known}; give its text with --license-file")


def write_folder(target: Path, contents: Contents, licence: Licence) -> None:
    """Write the folder; UserError if it holds anything already, or a file is not the right one."""
    check_empty(target)
    for source in contents.files.values():
        if not source.is_file():
            raise UserError(f"{source}: no such file; make it first, or correct --source")
        check_regular(source)
    with atomic_directory(target) as made:
        for place, source in contents.files.items():
            (made / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, made / place)
        (made / "LICENSE").write_text(licence.text, encoding="utf-8")
        head = {"license": licence.name, **contents.front_matter}
        front_matter = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
        (made / "README.md").write_text(
            f"---\n{front_matter}---\n{contents.page}", encoding="utf-8"
        )
        sums = {
            str(path.relative_to(made)): sha256(path)
            for path in sorted(made.rglob("*"))
            if path.is_file()
        }
        for place, expected in contents.checksums.items():
            if sums[place] != expected:
                raise UserError(
                    f"{contents.files[place]}: bytes other than those that its manifest names;"
                    " rerun the stage that writes it"
                )
        lines = (f"{digest}  {place}\n" for place, digest in sums.items())
        (made / SUMS).write_text("".join(lines), encoding="utf-8")


def markdown_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


CHECK = f"""## Check

    sha256sum -c {SUMS}
"""
