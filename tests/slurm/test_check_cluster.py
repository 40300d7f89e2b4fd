"""`particleforge check-cluster` on a real Slurm: all right, and each mistake of a site that can be
provoked here.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from chain import BIN, ROOT
from cluster import NODES, wait_for


@pytest.fixture
def profile(tmp_path):
    """Return the shipped profile as a site without accounting edits it."""
    folder = tmp_path / "profile"
    shutil.copytree(ROOT / "profiles/slurm", folder)
    edit(folder / "config.yaml", r"# slurm-status-command: .*", "slurm-status-command: squeue")
    return folder


@pytest.fixture
def check(cluster, profile, tmp_path):
    """Return a function that runs the check in a folder of its own and returns what it printed."""

    def run(*arguments, environment=()):
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        command = [
            str(BIN / "particleforge"),
            "check-cluster",
            "--profile",
            str(profile),
            "--config-dir",
            str(ROOT / "config"),
            *arguments,
        ]
        text = cluster.call(
            "env",
            *environment,
            "sh",
            "-c",
            '"$@"; echo "status $?"',
            "-",
            *command,
            cwd=folder,
            timeout_s=200,
        )
        wrong = any(line.startswith("WRONG ") for line in text.splitlines())
        assert text.endswith(f"status {int(wrong)}\n"), text
        if not wrong:
            assert not any(folder.iterdir())
        return text

    return run


def edit(path, pattern, replacement):
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count == 1
    path.write_text(text)


def test_a_cluster_that_is_right(cluster, check):
    before = cluster.jobs()
    text = check("--kind", "cpu", "--kind", "nodes")
    assert "WRONG" not in text, text
    for job in ("cpu job", "nodes job"):
        assert re.search(
            rf"OK +{job}: shared folder: files pass from n[12] to the login node and back in"
            r" [\d.]+ s",
            text,
        )
        assert re.search(rf"OK +{job}: clocks: .* agree within 1 s", text)
    assert re.search(
        r"OK +nodes job: ports: 2 nodes met at n1:\d+ and summed a number with gloo", text
    )
    nodes = {
        job["Comment"]: job["NumNodes"]
        for name, job in cluster.jobs().items()
        if name not in before
    }
    assert nodes == {"rule_simulate_events": "1", "rule_train_model": "2"}


@pytest.mark.fault("wrong partition")
def test_unknown_partition_and_no_gpus(cluster, check, profile):
    """The cluster's GPUs are empty files, so torch sees none.

    The job is in the partition that has them all the same.
    """
    edit(profile / "partitions.yaml", "  cpu:", "  long:")
    before = cluster.jobs()
    text = check("--kind", "cpu", "--kind", "gpu")
    assert (
        "WRONG cpu job: submission: refused: sbatch: error: invalid partition specified: long"
        in text
    )
    assert "correct the names in partitions.yaml" in text
    assert re.search(
        r"WRONG gpu job: GPUs: torch sees none \(torch .* on n\d, CUDA_VISIBLE_DEVICES=.*\); ", text
    )
    assert "OK    gpu job: shared folder" in text
    (job,) = [job for name, job in cluster.jobs().items() if name not in before]
    assert (job["Comment"], job["Partition"]) == ("rule_run_hpo_slot", "gpu")


@pytest.mark.fault("no accounting database")
def test_sacct_without_accounting(check, profile):
    edit(profile / "config.yaml", "slurm-status-command: squeue", "")
    text = check("--kind", "cpu")
    assert (
        "WRONG accounting: sacct says: Slurm accounting storage is disabled; set"
        " `slurm-status-command: squeue`" in text
    )


@pytest.mark.fault("srun missing on a node")
def test_no_srun(check, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for path in Path("/usr/bin").iterdir():
        if path.name != "srun":
            (programs / path.name).symlink_to(path)
    text = check("--kind", "cpu", environment=[f"PATH={BIN}:{programs}"])
    assert re.search(
        r"WRONG cpu job: environment: failed: .*srun: not found; add Slurm's folder to PATH", text
    )


@pytest.mark.fault("folder not shared with the nodes")
def test_folder_not_shared(cluster, check, tmp_path):
    for node in NODES:
        cluster.call_on(node, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path))
    try:
        text = check("--kind", "cpu")
    finally:
        for node in NODES:
            cluster.call_on(node, "umount", str(tmp_path))
    assert (
        "WRONG cpu job: shared folder: the job ended, but neither its log nor its answer can be"
        " seen here" in text
    )


@pytest.mark.fault("ports closed between nodes")
def test_ports_closed(cluster, check, tmp_path):
    """The second node knows the first by an address from which nothing comes back."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost n2\n192.0.2.1 n1\n")
    cluster.call_on("n2", "mount", "--bind", str(hosts), "/etc/hosts")
    try:
        text = check("--kind", "nodes")
    finally:
        cluster.call_on("n2", "umount", "/etc/hosts")
    assert re.search(r"WRONG nodes job: ports: not all 2 processes met at n1:\d+ within 12 s", text)
    assert "open TCP ports between nodes" in text


@pytest.mark.fault("job stays pending")
def test_pending(cluster, check):
    before = cluster.jobs()
    cluster.call("scontrol", "update", f"nodename={','.join(NODES)}", "state=drain", "reason=test")
    text = check("--kind", "cpu", "--timeout-s", str(12 * max(1.0, os.getloadavg()[0] / 2)))
    assert re.search(
        r"WRONG cpu job: start: still pending, Slurm's reason is .+; wait for other jobs and raise"
        r" --timeout-s",
        text,
    )

    def states():
        return {job["JobState"] for name, job in cluster.jobs().items() if name not in before}

    wait_for(lambda: states() == {"CANCELLED"}, "cancellation of the job")
