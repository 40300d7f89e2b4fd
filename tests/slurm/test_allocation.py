"""A workflow inside one allocation: Snakemake on its first node, the training on all nodes."""

from chain import same_training
from cluster import NODES, wait_for
from trainings import TARGET, new_chain

SIZE = (
    (
        "training={ranks: 2, max_steps: 8, valid_every_steps: 4, checkpoint_every_steps: 4,"
        " elements_per_batch: 256}"
    ),
    "resources={train_model: {nodes: 2}}",
)


def test_training_spreads_over_the_allocation(cluster, tmp_path):
    inside, alone = new_chain(tmp_path / "inside"), new_chain(tmp_path / "alone")
    alone.run(*TARGET, config=SIZE)
    script = tmp_path / "job.sh"
    command = inside.command(*TARGET, config=SIZE, profile="allocation")
    script.write_text("#!/bin/bash\nexec " + " ".join(f"'{part}'" for part in command) + "\n")
    sbatch = (
        "sbatch",
        "--parsable",
        "--nodes=2",
        "--exclusive",
        "--time=10",
        f"--chdir={inside.folder}",
        f"--output={tmp_path}/job.log",
    )
    job = cluster.call(*sbatch, str(script)).strip()
    wait_for(
        lambda: cluster.jobs()[job]["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"),
        "end of the allocation",
    )
    assert cluster.jobs()[job]["JobState"] == "COMPLETED", (tmp_path / "job.log").read_text()[
        -4000:
    ]
    for node in NODES:
        assert (
            f"launch task StepId={job}.0" in (cluster.folder / f"slurmd-{node}.log").read_text()
        ), "no rank of the training ran there"
    assert same_training(inside.results, alone.results)
