"""A training that is longer than its job: it stops in time, goes back to the queue, and ends as if
nothing had been.
"""

import shutil
import subprocess

import pytest
from chain import PATIENCE_S, environment, same_training
from cluster import SMALL

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
    with (tmp_path / "here.log").open("w") as log:
        command = here.command(*TRAIN_ONLY, config=LONG)
        process = subprocess.Popen(
            command, cwd=here.folder, stdout=log, stderr=subprocess.STDOUT, env=environment()
        )
        try:
            text = cluster.snakemake(on_slurm, *TRAIN_ONLY, "--retries", "0", config=LONG)
            assert process.wait(PATIENCE_S) == 0, (tmp_path / "here.log").read_text()[-6000:]
        finally:
            process.kill()
            process.wait()
    (job,) = [job for job in cluster.jobs().values() if job["WorkDir"] == str(on_slurm.folder)]
    assert int(job["Restarts"]) >= 1, text[-6000:]
    assert same_training(on_slurm.results, here.results)
