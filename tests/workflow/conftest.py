"""One finished tiny chain for the tests of the workflow, of which each process has a copy."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chain import Chain
from tests.once import made_once


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    made = made_once(tmp_path_factory, "chain", lambda folder: Chain.new(folder).run(afresh=True))
    return Chain(made).copy(tmp_path_factory.mktemp("chain") / "run")
