"""Files that others made: PARTICLEFORGE_REAL_DATA names their folders, separated by ':'.

A test whose file is in none is skipped.
"""

import os
from pathlib import Path

import pytest

FOLDERS = "PARTICLEFORGE_REAL_DATA"


def real_file(name: str) -> Path:
    """Return a real file's path, from whichever folder has it, or skip the test."""
    folders = [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    if not folders:
        pytest.skip(f"{FOLDERS} is not set")
    found = next((path for folder in folders if (path := Path(folder) / name).exists()), None)
    if found is None:
        pytest.skip(f"no folder of {FOLDERS} holds {name}")
    return found
