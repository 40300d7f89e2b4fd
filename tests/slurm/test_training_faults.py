"""What a cluster does to a training on two nodes: all of it ends soon, and the run's result is that
of an undisturbed one.
"""

import contextlib
import signal
import subprocess

import psutil
import pytest
from chain import PATIENCE_S, same_training
from cluster import wait_for
from trainings import TARGET, new_chain

SIZE = (
    (
        "training={ranks: 2, max_steps: 600, schedule_steps: 600, checkpoint_every_steps: 20,"
        " valid_every_steps: 100, elements_per_batch: 256}"
    ),
    "resources={train_model: {nodes: 2, runtime_min: 5}}",
)
ON_ONE_NODE = (SIZE[0], SIZE[1].replace("nodes: 2", "nodes: 1"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    chain = new_chain(tmp_path_factory.mktemp("undisturbed") / "run")
    chain.run(*TARGET, config=SIZE)
    return chain.results


class Run:
    """A Snakemake on the login node, busy with a training."""

    def __init__(self, cluster, chain, size):
        self.cluster, self.chain, self.old = cluster, chain, set(cluster.jobs())
        command = cluster.snakemake_command(chain, *TARGET, config=size)
        self.process = cluster.popen(
            command,
            chain.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def checkpoints(self):
        return {
            path.name for path in (self.chain.results / "train/work/checkpoints").glob("step_*.pt")
        }

    def ranks(self):
        """Return the training's processes by rank."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                command = process.cmdline()
                if "particleforge.training.worker" in command and command[-1].startswith(
                    str(self.chain.folder)
                ):
                    found[process.environ().get("SLURM_PROCID")] = process
        # srun itself has none
        return {int(rank): process for rank, process in found.items() if rank}

    def wait_for_progress(self):
        """Return the running job's id and its ranks once it has saved a state that was not there
        before.
        """
        before = self.checkpoints()
        wait_for(
            lambda: self.checkpoints() - before or self.process.poll() is not None,
            "progress of the training",
        )
        job = next(
            name
            for name, job in self.cluster.jobs().items()
            if name not in self.old and job["JobState"] == "RUNNING"
        )
        return job, self.ranks()

    def end(self):
        """Return what Snakemake printed, once it has ended well."""
        text = self.process.communicate(timeout=PATIENCE_S)[0]
        assert self.process.returncode == 0, text[-6000:]
        return text


@pytest.fixture
def run(request, cluster, undisturbed, tmp_path):
    started = Run(cluster, new_chain(tmp_path / "run"), getattr(request, "param", SIZE))
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.communicate()


def gone_within_a_minute(ranks):
    return psutil.wait_procs(ranks.values(), timeout=60)[1] == []


@pytest.mark.fault("training told to stop")
@pytest.mark.parametrize("run", [ON_ONE_NODE], indirect=True)
def test_told_to_stop_on_one_node(cluster, run, undisturbed):
    """The signal reaches the Snakemake inside the job too, which waits for its running job."""
    job, _ = run.wait_for_progress()
    cluster.call("scancel", "--signal=TERM", job)
    assert "training interrupted: stopped by a signal" in run.end()
    assert same_training(run.chain.results, undisturbed)


@pytest.mark.fault("training told to stop")
@pytest.mark.fault("one rank dies")
def test_told_to_stop_then_one_rank_killed(cluster, run, undisturbed):
    job, ranks = run.wait_for_progress()
    cluster.call("scancel", "--signal=USR1", job)
    assert gone_within_a_minute(ranks)
    job, ranks = run.wait_for_progress()
    assert sorted(ranks) == [0, 1]
    ranks[1].send_signal(signal.SIGKILL)
    assert gone_within_a_minute(ranks)
    text = run.end()
    assert "training interrupted: stopped by a signal" in text
    assert "training interrupted: a training process was killed from outside" in text
    assert same_training(run.chain.results, undisturbed)


@pytest.mark.fault("node lost")
def test_a_node_lost(cluster, run, undisturbed):
    job, ranks = run.wait_for_progress()
    cluster.stop_node("n2")
    assert gone_within_a_minute(ranks)
    wait_for(lambda: cluster.jobs()[job]["JobState"] != "RUNNING", "end of the job")
    cluster.start_node("n2")
    run.end()
    assert same_training(run.chain.results, undisturbed)
