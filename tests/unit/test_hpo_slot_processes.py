"""Many processes on one study: each slot has one trial, whoever is killed."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from particleforge.hpo import study
from particleforge.hpo.lock import SharedLock
from particleforge.hpo.study import open_study

from .hpo_fixtures import Search, make_manifest, make_settings
from .test_hpo_slot import _no_waiting_for_the_disk  # noqa: F401


def _work_on(folder: Path, slots: list[tuple[int, int]], hpo: dict[str, Any]) -> None:
    search = Search(folder, make_settings(**hpo))
    for rung, slot in slots:
        search.run(rung, slot)


def _in_processes(tasks: list[tuple[Any, ...]]) -> list[int | None]:
    """Run ``_work_on`` with each task in a process of its own and return the exit codes."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_work_on, args=task) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_many_processes_claim_every_trial_exactly_once(tmp_path: Path) -> None:
    hpo = {"first_rung_slots": 24, "eta": 2, "n_rungs": 2, "min_steps": 1}
    make_manifest(tmp_path)
    assert (
        _in_processes([(tmp_path, [(0, slot) for slot in range(k, 24, 8)], hpo) for k in range(8)])
        == [0] * 8
    )
    assert (
        _in_processes([(tmp_path, [(1, slot) for slot in range(k, 12, 6)], hpo) for k in range(6)])
        == [0] * 6
    )
    trials = open_study(
        make_settings(**hpo), tmp_path / "manifest.json", tmp_path / "work"
    ).trials()
    assert sorted((t.rung, t.slot) for t in trials) == [(0, slot) for slot in range(24)] + [
        (1, slot) for slot in range(12)
    ]
    assert all(t.status == "complete" for t in trials)
    best = sorted((t for t in trials if t.rung == 0), key=lambda t: t.order_key)[:12]
    assert sorted(t.parent for t in trials if t.rung == 1) == sorted(t.number for t in best)


def test_a_claim_whose_holder_was_killed_is_taken_over(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def hold_and_die() -> None:
        held = SharedLock(work / study.CLAIM_LOCK)
        held.acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=hold_and_die)
    process.start()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert (work / study.CLAIM_LOCK).exists()
    assert Search(tmp_path).run(0, 0)["status"] == "complete"
