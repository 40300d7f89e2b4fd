"""What a training asks Slurm, with stand-ins for Slurm's commands.

Tests/slurm has the real ones.
"""

import time
from datetime import datetime

import pytest

from particleforge.errors import UserError
from particleforge.training import slurm_job
from particleforge.training.slurm_job import Placement


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Return a function that says what a command prints; calls are written to ``calls``."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "41")

    def answer(command: str, text: str, status: int = 0) -> None:
        script = tmp_path / command
        script.write_text(
            f"#!/bin/sh\necho {command} $* >> {tmp_path}/calls\ncat <<'END'\n{text}\nEND\nexit"
            f" {status}\n"
        )
        script.chmod(0o755)

    answer.calls = tmp_path / "calls"
    return answer


def ends_in(seconds):
    return datetime.fromtimestamp(time.time() + seconds).isoformat(timespec="seconds")


def test_a_training_stops_before_its_job_ends(answers):
    answers("squeue", ends_in(1000))
    assert slurm_job.stop_at(120) == pytest.approx(time.time() + 880, abs=3)


def test_the_margin_leaves_half_of_a_short_job(answers):
    answers("squeue", ends_in(60))
    assert slurm_job.stop_at(120) == pytest.approx(time.time() + 30, abs=3)


@pytest.mark.parametrize("text", ["N/A", "", "UNLIMITED"])
def test_without_a_limit_nothing_stops(answers, text):
    answers("squeue", text)
    assert slurm_job.stop_at(120) is None


def test_a_controller_that_is_away_costs_the_limit_only(answers):
    answers("squeue", "", status=1)
    assert slurm_job.stop_at(120) is None


def test_outside_of_slurm_there_is_no_limit(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm_job.stop_at(120) is None


def test_ranks_meet_on_the_first_node(answers):
    answers("squeue", "n[3-4]")
    answers("scontrol", "n3\nn4")
    found = slurm_job.rendezvous()
    assert found["MASTER_ADDR"] == "n3"
    assert 1024 < int(found["MASTER_PORT"]) < 65536
    assert "scontrol show hostnames n[3-4]" in answers.calls.read_text()


def test_ranks_are_spread_evenly():
    command = slurm_job.srun(4, Placement(nodes=2, cpus_per_rank=3))
    assert {
        "--nodes=2",
        "--ntasks=4",
        "--ntasks-per-node=2",
        "--cpus-per-task=3",
        "--kill-on-bad-exit=1",
    } <= set(command)
    with pytest.raises(UserError, match="3 ranks cannot be spread evenly over 2 nodes"):
        slurm_job.srun(3, Placement(nodes=2))


def test_a_job_that_may_not_be_requeued_is_left_alone(answers):
    answers("scontrol", "JobId=41 Requeue=0 Restarts=0")
    slurm_job.requeue()
    assert "requeue 41" not in answers.calls.read_text()


def test_a_job_is_put_back(answers, monkeypatch):
    monkeypatch.setattr(slurm_job, "_KILL_TIMEOUT_S", 0.0)
    answers("scontrol", "JobId=41 Requeue=1 Restarts=0")
    with pytest.raises(UserError, match="did not end this job"):  # a real one would have
        slurm_job.requeue()
    assert "scontrol requeue 41" in answers.calls.read_text()


def test_missing_commands_are_named(answers):
    with pytest.raises(UserError, match=r"squeue .*are Slurm's commands installed on this node"):
        slurm_job.rendezvous()
