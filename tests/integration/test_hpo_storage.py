"""The study under many processes that are killed at any moment: a journal file, and a real
PostgreSQL server.
"""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage

from particleforge.config.settings import HpoSettings
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.progress import read_progress
from particleforge.hpo.study import Study, open_study
from particleforge.hpo.trials import SearchTrial

from ..unit.hpo_fixtures import Search, make_manifest, make_settings
from . import postgres

pytestmark = pytest.mark.integration
Slot = tuple[int, ...]


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    reason = postgres.why_not()
    if reason and os.environ.get("PARTICLEFORGE_REQUIRE_POSTGRESQL"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    started = postgres.Server()
    # the processes forked from here need not import all that it takes
    RDBStorage(started.new_database()).engine.dispose()
    yield started
    started.stop()


def in_processes(work: Callable[..., None], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Start ``work`` with each task in a process of its own."""
    processes = [
        multiprocessing.get_context("fork").Process(target=work, args=task) for task in tasks
    ]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: Sequence[Any]) -> list[int | None]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def run_slots(folder: Path, settings: HpoSettings, slots: Sequence[Slot]) -> None:
    search = Search(folder, settings)
    for rung, slot in slots:
        search.run(rung, slot)


def claim_slots(folder: Path, settings: HpoSettings, slots: Sequence[Slot], answer: Path) -> None:
    study = open_study(settings, folder / "manifest.json", folder / "work")
    trials = [study.claim(*slot) for slot in slots]
    answer.write_text(json.dumps([[*trial.slot_id, trial.number] for trial in trials if trial]))


def test_a_search_by_several_processes_on_postgresql(
    server: postgres.Server, tmp_path: Path
) -> None:
    """The first processes meet an empty database, whose tables each of them wants to make."""
    settings = make_settings(
        first_rung_slots=8,
        n_rungs=3,
        min_steps=2,
        sampler="random",
        storage_url=server.new_database(),
    )
    make_manifest(tmp_path)
    slots = dag.all_slots(settings.hpo)
    for rung in range(3):
        of_rung = [slot for slot in slots if slot[0] == rung]
        assert set(
            exit_codes(
                in_processes(run_slots, [(tmp_path, settings, of_rung[k::4]) for k in range(4)])
            )
        ) == {0}
    assert not (tmp_path / "work/journal.log").exists()
    alone = Search(
        tmp_path / "alone",
        settings.model_copy(update={"hpo": settings.hpo.model_copy(update={"storage_url": None})}),
    )
    alone.run_all()
    assert outcome(tmp_path, settings) == outcome(alone.folder, alone.settings)
    searches = ((tmp_path, settings), (alone.folder, alone.settings))
    shown, expected = (
        read_progress(chosen, folder / "manifest.json", folder / "work")
        for folder, chosen in searches
    )
    assert shown.rungs == expected.rungs
    assert sum(rung.complete for rung in shown.rungs) == len(slots)


def test_claims_of_the_same_slots_at_once_give_one_trial_each(
    server: postgres.Server, tmp_path: Path
) -> None:
    settings = make_settings(
        first_rung_slots=12, n_rungs=1, sampler="tpe", storage_url=server.new_database()
    )
    make_manifest(tmp_path)
    slots, dice = list(dag.all_slots(settings.hpo)), random.Random(3)
    answers = [tmp_path / f"{k}.json" for k in range(6)]
    tasks = [(tmp_path, settings, dice.sample(slots, len(slots)), answer) for answer in answers]
    assert exit_codes(in_processes(claim_slots, tasks)) == [0] * 6
    told = [sorted(json.loads(answer.read_text())) for answer in answers]
    assert all(answer == told[0] for answer in told)
    assert [tuple(slot) for *slot, _ in told[0]] == sorted(slots)
    assert sorted(number for *_, number in told[0]) == list(range(12))


@pytest.mark.fault("database of the search out of reach")
def test_a_database_that_is_down(server: postgres.Server, tmp_path: Path) -> None:
    settings = make_settings(
        first_rung_slots=2, n_rungs=2, min_steps=2, storage_url=server.new_database()
    )
    search = Search(tmp_path, settings)
    before = search.run(0, 0)
    server.crash()
    try:
        with pytest.raises(
            UserError,
            match=r"hpo\.storage_url: .* cannot be opened: .*connection to server on socket",
        ) as raised:
            search.run(0, 1)
        assert "\n" not in str(raised.value)
    finally:
        server.start()
    after = search.run_all()
    assert after[0] == before
    assert [result["status"] for result in after] == ["complete"] * 3


def outcome(folder: Path, settings: HpoSettings) -> dict[Slot, tuple[Any, ...]]:
    """Return what must not depend on order and kills: which configuration each first-rung slot
    tried, and to what end.
    """
    trials = open_study(settings, folder / "manifest.json", folder / "work").trials()
    found = {t.slot_id: (t.config, t.params, t.value, t.status) for t in trials if t.rung == 0}
    assert len(trials) == len({t.slot_id for t in trials}), "a slot has two trials"
    return found


# ---- kills


def loss_of(trial: SearchTrial) -> float:
    return float(trial.params["model.width"]) / trial.steps + int(trial.config[-5:]) * 1e-3


def work_on(
    folder: Path, settings: HpoSettings, own: Sequence[Slot], seed: int, told: Path
) -> None:
    """Claim slots in random order, finish the own ones, and tell of each answer once the study has
    given it.
    """
    dice, slots = random.Random(seed), list(dag.all_slots(settings.hpo))
    study = open_study(settings, folder / "manifest.json", folder / "work")
    with told.open("ab", buffering=0) as acknowledged:
        while True:
            trial = ready(study, dice.choice(own if dice.random() < 0.7 else slots))
            if trial is None:
                continue
            claim = [trial.slot_id, trial.number, trial.config, trial.parent, None]
            acknowledged.write(f"{json.dumps(claim)}\n".encode())
            if trial.slot_id in own and not trial.finished:
                value = loss_of(trial)
                ended = study.finish(
                    trial, "complete", value=value, curve={1: 2 * value}, seconds=1.0
                )
                end = [ended.slot_id, ended.number, ended.config, ended.parent, ended.value]
                acknowledged.write(f"{json.dumps(end)}\n".encode())


def ready(study: Study, slot: Slot) -> SearchTrial | None:
    """Return the slot's trial once all that it waits for has ended."""
    ended = {t.slot_id for t in study.trials() if t.finished}
    parents = dag.parents_of(study.settings.hpo, *slot)
    return study.claim(*slot) if all(parent in ended for parent in parents) else None


def read_told(folder: Path) -> list[tuple[Slot, int, str, int | None, float | None]]:
    lines = [
        line for path in sorted(folder.glob("told-*")) for line in path.read_text().splitlines()
    ]
    return [
        (tuple(slot), number, config, parent, value)
        for slot, number, config, parent, value in map(json.loads, lines)
    ]


class Workers:
    """Processes that work on one study, each started anew after it was killed."""

    def __init__(self, folder: Path, settings: HpoSettings, number: int) -> None:
        self.folder, self.settings, self.starts = folder, settings, 0
        self.slots = list(dag.all_slots(settings.hpo))
        self.processes: list[Any] = [None] * number
        self.told = [folder / f"told-{worker}" for worker in range(number)]
        self.start_missing()

    def start_missing(self) -> None:
        for worker, process in enumerate(self.processes):
            if process is None or not process.is_alive():
                self.starts += 1
                own = self.slots[worker :: len(self.processes)]
                (self.processes[worker],) = in_processes(
                    work_on, [(self.folder, self.settings, own, self.starts, self.told[worker])]
                )

    def kill(self, worker: int) -> bool:
        """Kill one, unless it has ended by itself, and return whether it was killed."""
        self.processes[worker].kill()
        self.processes[worker].join(30)
        return bool(self.processes[worker].exitcode == -signal.SIGKILL)

    def wait_for_answers(self, worker: int, number: int) -> None:
        """Return when a worker, or one in its place, has told of so many answers more."""
        path, deadline = self.told[worker], time.monotonic() + 120
        goal = number + (path.read_bytes().count(b"\n") if path.exists() else 0)
        while not path.exists() or path.read_bytes().count(b"\n") < goal:
            assert time.monotonic() < deadline, "no answer within two minutes"
            self.start_missing()
            time.sleep(0.005)


@pytest.mark.fault("job killed while writing")
@pytest.mark.parametrize(("kind", "kills"), [("journal", 40), ("postgresql", 20)])
def test_nothing_acknowledged_is_lost_or_doubled_by_kills(
    kind: str, kills: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Four processes on one study, of which one after the other is killed at a random moment.

    PostgreSQL's server too, once.
    """
    dice = random.Random(11)
    server = request.getfixturevalue("server") if kind == "postgresql" else None
    url = server.new_database() if server else None
    settings = make_settings(
        first_rung_slots=512, eta=2, n_rungs=4, min_steps=1, sampler="random", storage_url=url
    )
    make_manifest(tmp_path)
    workers, killed = Workers(tmp_path, settings, number=4), 0
    try:
        for turn in range(kills):
            victim = dice.randrange(4)
            # 0: perhaps while it opens the study
            workers.wait_for_answers(victim, dice.choice([0, 1, 2, 3]))
            time.sleep(dice.expovariate(100.0))
            if server and turn == kills // 2:
                server.crash()
                server.start()
            killed += workers.kill(victim)
            workers.start_missing()
    finally:
        for worker in range(4):
            workers.kill(worker)
    told = read_told(tmp_path)
    trials = {
        t.number: t
        for t in open_study(settings, tmp_path / "manifest.json", tmp_path / "work").trials()
    }
    assert killed > kills / 2
    assert sum(value is not None for *_, value in told) > kills / 2
    assert len({t.slot_id for t in trials.values()}) == len(trials), "a slot has two trials"
    promoted = [t.parent for t in trials.values() if t.rung]
    assert len(set(promoted)) == len(promoted), "a trial was promoted twice"
    for slot, number, config, parent, value in told:
        kept = trials[number]
        assert (kept.slot_id, kept.config, kept.parent) == (slot, config, parent)
        assert value is None or (kept.status, kept.value) == ("complete", value)
    for trial in trials.values():
        assert trial.status in ("running", "complete")
        assert trial.value is None or trial.value == loss_of(trial)
        assert trial.parent is None or (trials[trial.parent].rung, trials[trial.parent].status) == (
            trial.rung - 1,
            "complete",
        )
