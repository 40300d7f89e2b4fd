"""Disks that fill up, for the tests of this folder."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from . import disk

_why_not = cache(disk.why_not)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], disk.Disk]]:
    """Return a function that makes a disk of so many KiB.

    Skips where the machine does not allow it.
    """
    if reason := _why_not():
        pytest.skip(reason)
    made: list[disk.Disk] = []

    def make(size_kib: int) -> disk.Disk:
        made.append(disk.Disk(tmp_path / f"disk{len(made)}", size_kib))
        return made[-1]

    yield make
    for one in made:
        one.close()
