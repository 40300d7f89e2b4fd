"""Where the shipped files lie, and which folder of configuration a command reads.

The home holds ``Snakefile``, ``workflow/``, ``config/`` and ``profiles/``: the root of the checkout
that the package is imported from, or, in a wheel, the folder ``home`` of the package.
"""

import shutil
from pathlib import Path

from particleforge.artefacts import atomic_directory, check_empty
from particleforge.errors import UserError

PARTS = ("Snakefile", "workflow", "config", "profiles")
_PACKAGE = Path(__file__).parents[1]


def home() -> Path:
    """Return the folder with the shipped files."""
    return next(
        (
            path
            for path in (_PACKAGE.parents[1], _PACKAGE / "home")
            if (path / "Snakefile").exists()
        ),
        _PACKAGE.parents[1],
    )


def lay_out(folder: Path) -> None:
    """Write a workflow folder: a copy of the shipped files, for its owner to change.

    UserError if the folder holds anything already.
    """
    check_empty(folder)
    with atomic_directory(folder) as made:
        for name in PARTS:
            source = home() / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, made / name, ignore=ignored)
            else:
                shutil.copy2(source, made / name)


def find_snakefile() -> Path:
    """Return the Snakefile of the working folder, else the shipped one."""
    places = [Path("Snakefile"), home() / "Snakefile"]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise UserError(
            f"Snakefile: neither here nor in {places[1].parent}; name it with --snakefile"
        )
    return found


def find_config_dir(*places: Path | None) -> Path:
    """Return the first of the places that has a config.yaml; of none, ./config or the shipped one.

    UserError if none has, which says where it was looked for.
    """
    asked = [place for place in places if place is not None]
    looked = asked or [Path("config"), home() / "config"]
    found = next((path for path in looked if (path / "config.yaml").is_file()), None)
    if found is None:
        folders = dict.fromkeys(str(path.absolute()) for path in looked)
        raise UserError(
            f"config.yaml: there is none in {' or '.join(folders)}; run in a folder that has"
            " config/config.yaml, or give a command --config-dir"
        )
    return found
