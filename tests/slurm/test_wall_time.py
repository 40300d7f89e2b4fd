"""A training that is longer than its job: it stops in time, goes back to the queue, and ends as if
nothing had been.
"""

import shutil
import subprocess

import pytest
from chain import PATIENCE_S, environment, same_training
from cluster import SMALL, wait_for

# one minute is the shortest job; half of it is the margin, so the training has some 20 s of it
LONG = (
    *SMALL[:2],
    "model={n_layers: 2}",
    "resources={stop_before_limit_s: 60, train_model: {nodes: 2, runtime_min: 1}}",
    (
        "training={ranks: 2, max_steps: 1200, schedule_steps: 1200, valid_every_steps: 200,"
        " checkpoint_every_steps: 100, log_every_steps: 50, elements_per_batch: 2048}"
    ),
)
# a longer final training; the search stays as it is
TRAIN_ONLY = ("train", "--rerun-triggers", "mtime")


@pytest.mark.fault("wall time reached")
def test_a_training_outlives_its_job(cluster, finished, tmp_path):
    chain, _, _ = finished
    on_slurm, here = chain.copy(tmp_path / "slurm"), chain.copy(tmp_path / "here")
    for each in (on_slurm, here):
        shutil.rmtree(each.results / "train")
    with (tmp_path / "here.log").open("w") as log, (tmp_path / "slurm.log").open("w") as text:
        command = here.command(*TRAIN_ONLY, config=LONG)
        process = subprocess.Popen(
            command, cwd=here.folder, stdout=log, stderr=subprocess.STDOUT, env=environment()
        )
        command = cluster.snakemake_command(on_slurm, *TRAIN_ONLY, "--retries", "0", config=LONG)
        run = cluster.popen(
            command,
            on_slurm.folder,
            stdout=text,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: restarts(cluster, on_slurm) or run.poll() is not None, "requeue")
            # once is enough: minutes are saved where each job's start takes most of its own
            (job,) = cluster.jobs_of(on_slurm)
            cluster.call("scontrol", "update", f"JobId={job['JobId']}", "TimeLimit=30", check=False)
            assert run.wait(PATIENCE_S) == 0, (tmp_path / "slurm.log").read_text()[-6000:]
            assert process.wait(PATIENCE_S) == 0, (tmp_path / "here.log").read_text()[-6000:]
        finally:
            for each in (run, process):
                each.kill()
                each.wait()
    assert restarts(cluster, on_slurm) >= 1, (tmp_path / "slurm.log").read_text()[-6000:]
    assert same_training(on_slurm.results, here.results)


def restarts(cluster, chain):
    """Return how often Slurm put the chain's jobs back into the queue."""
    return sum(int(job["Restarts"]) for job in cluster.jobs_of(chain))
