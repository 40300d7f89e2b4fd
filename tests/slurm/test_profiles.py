"""What the shipped profile asks of a real Slurm: partitions, second attempts, a way back into the
queue.
"""

import pytest
from chain import PATIENCE_S, Chain
from cluster import wait_for

SIZE = ("simulation={events_per_sample: 12, events_per_shard: 6}",)
SHARD = "results/clic/select/ttbar/00000.parquet"


@pytest.fixture
def chain(tmp_path):
    return Chain.new(tmp_path / "run")


def test_partitions_and_second_attempt(cluster, chain):
    """A job that ends badly is submitted again with more of everything.

    Jobs with GPUs go where GPUs are.
    """
    command = cluster.snakemake_command(
        chain, SHARD, config=(*SIZE, "resources={select_events: {gpus: 1}}")
    )
    run = cluster.popen(command, chain.folder)
    try:
        wait_for(lambda: cluster.jobs_of(chain), "submission")
        cluster.call("scancel", cluster.jobs_of(chain)[0]["JobId"])
        assert run.wait(PATIENCE_S) == 0
    finally:
        run.kill()
        run.wait()
    first, second, build, select = cluster.jobs_of(chain)
    assert first["JobState"] == "CANCELLED"
    assert (first["MinMemoryNode"], first["TimeLimit"]) == ("2000M", "01:00:00")
    assert (second["MinMemoryNode"], second["TimeLimit"]) == ("4000M", "02:00:00")
    assert [job["Partition"] for job in (first, second, build, select)] == [
        "cpu",
        "cpu",
        "cpu",
        "gpu",
    ]
    assert {job["Requeue"] for job in (first, second, build, select)} == {"1"}
    assert select["TresPerJob"] == "gres:gpu:1"
