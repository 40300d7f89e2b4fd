"""The search's lock: a holder killed at any point of taking it is replaced, a slow one keeps it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from particleforge.hpo import lock
from particleforge.hpo.lock import SharedLock, holding


def hold_and_die(path: Path) -> None:
    held = SharedLock(path)  # to be let go of would give it back
    held.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def count_to(path: Path, goal: int) -> None:
    for _ in range(goal):
        with holding(path.with_suffix(".lock")):
            path.write_text(str(int(path.read_text()) + 1))


def test_a_killed_holder_is_replaced_at_once(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=hold_and_die, args=(tmp_path / "lock",)
    )
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "lock").stat().st_size
    start = time.monotonic()
    with holding(tmp_path / "lock"):
        assert time.monotonic() - start < lock.LEASE_S / 2
    assert not (tmp_path / "lock").exists()


@pytest.mark.fault("job killed while writing")
def test_a_holder_killed_before_it_wrote_its_name_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "EMPTY_S", 0.1)
    (tmp_path / "lock").touch()
    with holding(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().startswith("filelock")


def test_a_holder_that_is_slow_to_write_its_name_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes over the mark that others have set meanwhile."""
    monkeypatch.setattr(lock, "EMPTY_S", 0.05)
    with holding(tmp_path / "lock"):
        record = (tmp_path / "lock").read_bytes()
    with (tmp_path / "lock").open("wb") as slow:
        process = multiprocessing.get_context("fork").Process(
            target=hold_and_die, args=(tmp_path / "lock",)
        )
        process.start()
        deadline = time.monotonic() + 30
        while not (tmp_path / "lock").read_bytes():
            assert time.monotonic() < deadline, "nobody marked the empty file"
            time.sleep(0.01)
        slow.write(record)
    process.join(0.5)
    assert process.is_alive(), "the lock was taken from its holder"
    assert (tmp_path / "lock").read_bytes() == record
    process.kill()
    process.join()


def test_only_one_process_at_a_time_holds_it(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    processes = [
        multiprocessing.get_context("fork").Process(target=count_to, args=(tmp_path / "number", 10))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "number").read_text() == "40"
