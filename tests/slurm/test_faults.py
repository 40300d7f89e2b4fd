"""What a cluster does to running jobs: in each case the run ends with the bytes of an undisturbed
one.
"""

import os
import signal
import subprocess
import time

import pytest
from chain import PATIENCE_S, Chain, environment
from cluster import wait_for

TARGET = "results/clic/sim/ttbar/00000.root"
# a simulation of some 8 s, long enough to be disturbed
SIZE = ("simulation={events_per_sample: 250, events_per_shard: 250}",)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    chain = Chain.new(tmp_path_factory.mktemp("undisturbed") / "run")
    chain.run(TARGET, config=SIZE)
    return (chain.folder / TARGET).read_bytes()


class Run:
    """A Snakemake on the login node, working on TARGET."""

    def __init__(self, cluster, chain, *arguments):
        self.cluster, self.chain = cluster, chain
        self.old = set(cluster.jobs())
        command = cluster.snakemake_command(chain, TARGET, *arguments, config=SIZE)
        self.process = cluster.popen(
            command,
            chain.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def jobs(self):
        """Return this run's jobs, in order of submission."""
        return {name: job for name, job in self.cluster.jobs().items() if name not in self.old}

    def wait_for_work(self):
        """Return the id of the simulation's job once it works."""
        log = self.chain.results / "logs/simulate_events/ttbar/00000.log"
        wait_for(
            lambda: log.is_file() or self.process.poll() is not None, "start of the simulation"
        )
        return next(name for name, job in self.jobs().items() if job["JobState"] == "RUNNING")

    def end(self):
        """Return what Snakemake printed, once it has ended well."""
        text = self.process.communicate(timeout=PATIENCE_S)[0]
        assert self.process.returncode == 0, text[-6000:]
        return text


@pytest.fixture
def run(cluster, tmp_path):
    started = Run(cluster, Chain.new(tmp_path / "run"))
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.communicate()


def result(run):
    return (run.chain.folder / TARGET).read_bytes()


@pytest.mark.fault("job cancelled with scancel")
def test_scancel(cluster, run, undisturbed):
    job = run.wait_for_work()
    cluster.call("scancel", job)
    text = run.end()
    assert f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'" in text
    assert "Trying to restart job" in text
    assert result(run) == undisturbed


@pytest.mark.fault("node lost")
def test_node_taken_down(cluster, run, undisturbed):
    job = run.wait_for_work()
    node = cluster.jobs()[job]["NodeList"]
    cluster.stop_node(node)
    run.end()
    assert cluster.jobs()[job]["Restarts"] == "1", "the job was not put back into the queue"
    assert cluster.jobs()[job]["NodeList"] != node
    assert result(run) == undisturbed


@pytest.mark.fault("job preempted")
def test_preempted(cluster, run, undisturbed):
    job = run.wait_for_work()
    urgent = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null")
    cluster.call("sbatch", *urgent, "--wrap", "sleep 1")
    wait_for(lambda: cluster.jobs()[job]["Restarts"] == "1", "preemption")
    cluster.call("scontrol", "update", f"jobid={job}", "StartTime=now")  # not two minutes later
    assert "Trying to restart job" not in run.end()
    assert result(run) == undisturbed


@pytest.mark.fault("slurmctld restarted")
def test_controller_restarted(cluster, run, undisturbed):
    run.wait_for_work()
    cluster.stop_controller()
    time.sleep(4)  # a query or two of the queue; the plugin gives scontrol ten seconds
    cluster.start_controller()
    run.end()
    assert result(run) == undisturbed


@pytest.mark.fault("head process killed")
def test_head_process_killed_while_its_jobs_run(cluster, run, undisturbed):
    run.wait_for_work()
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    again = Run(cluster, run.chain)
    text = again.process.communicate(timeout=PATIENCE_S)[0]
    assert "Error: Directory cannot be locked." in text
    assert "--unlock" in text
    cluster.snakemake(run.chain, "--unlock")
    again = Run(cluster, run.chain)  # beside the orphan, which still simulates the same shard
    again.end()
    assert result(again) == undisturbed


@pytest.mark.fault("two workflows in one results folder")
def test_a_second_workflow_is_refused(cluster, run, undisturbed):
    run.wait_for_work()
    text = run.chain.run(TARGET, config=SIZE, check=False)
    assert "Error: Directory cannot be locked." in text
    run.end()
    assert result(run) == undisturbed


@pytest.mark.fault("output seen late on the shared file system")
def test_latency(cluster, tmp_path, undisturbed):
    """The node's writes reach the login node only after some seconds, as on a busy network file
    system.
    """
    chain = Chain.new(tmp_path / "run")
    folder = chain.results / "sim"
    folder.mkdir(parents=True)
    hidden = tmp_path / "node"
    hidden.mkdir()
    for node in ("n1", "n2"):
        cluster.call_on(node, "mount", "--bind", str(hidden), str(folder))
    try:
        run = Run(cluster, chain)
        wait_for(lambda: (hidden / "ttbar/00000.root").is_file(), "end of the simulation")
        time.sleep(6)
        assert not (folder / "ttbar").exists()
        subprocess.run(["cp", "-a", f"{hidden}/ttbar", str(folder)], check=True, env=environment())
        run.end()
    finally:
        for node in ("n1", "n2"):
            cluster.call_on(node, "umount", str(folder))
    assert result(run) == undisturbed
