"""One private cluster for all tests of this folder, and one finished chain that was made without
it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from chain import PATIENCE_S, Chain, environment
from cluster import SMALL, Cluster, why_not


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    reason = why_not()
    if reason and os.environ.get("PARTICLEFORGE_REQUIRE_SLURM"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    running = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def finished(cluster, tmp_path_factory):
    """Return the chain on Slurm, the jobs that it took, and a second folder with the data stages
    made here, side by side.
    """
    folder = tmp_path_factory.mktemp("chains")
    on_slurm, here = Chain.new(folder / "slurm"), Chain.new(folder / "here")
    with (folder / "here.log").open("w") as log:
        command = here.command("select", "preprocess", config=SMALL)
        process = subprocess.Popen(
            command, cwd=here.folder, stdout=log, stderr=subprocess.STDOUT, env=environment()
        )
        try:
            cluster.snakemake(on_slurm, config=SMALL)
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, (folder / "here.log").read_text()[-6000:]
    return on_slurm, cluster.jobs(), here


@pytest.fixture(autouse=True)
def nothing_is_left(cluster):
    """End what a failed test left in the queue, and bring back nodes that it took down."""
    yield
    cluster.reset()
