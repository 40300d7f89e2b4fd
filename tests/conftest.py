"""Which process of pytest runs which test, and in which order.

The tests of a module are one group, so that its fixtures are made once; groups begin in the order
of how long they take, so that the last minutes are short tests on all cores.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONGEST_FIRST = (
    "slurm",  # one cluster, which mostly waits
    "workflow/test_kill.py",  # makes the chain, for which the others of its folder would wait
    "integration/test_parallelism.py",
    "faults/test_fuzz_files.py",
    "workflow/test_files.py",
    "workflow",
    "integration",
    "faults",
    "unit",
)


def place(path: str) -> int:
    """Return when the tests of a module, below this folder, begin."""
    return next(
        (number for number, start in enumerate(LONGEST_FIRST) if path.startswith(start)),
        len(LONGEST_FIRST),
    )


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of a folder, group those of a module, and sort the modules."""
    paths = {item: item.path.relative_to(HERE).as_posix() for item in items}
    for item, path in paths.items():
        folder = path.partition("/")[0]
        if folder in ("slurm", "workflow"):
            item.add_marker(folder)
        item.add_marker(pytest.mark.xdist_group(folder if folder == "slurm" else path))
    items.sort(key=lambda item: place(paths[item]))
