"""One finished tiny chain, shared by the tests of the workflow; none of them may change it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chain import Chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    finished = Chain.new(tmp_path_factory.mktemp("chain") / "run")
    finished.run()
    return finished


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Mark the tests of this folder and keep them in one process, so that the chain runs once."""
    for item in items:
        if Path(item.fspath).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.workflow)
            item.add_marker(pytest.mark.xdist_group("workflow"))
