"""Slots on a real study: budgets, resuming, failures, kills at every moment, growth, and many
processes at once.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from particleforge.errors import UserError
from particleforge.hpo import dag, study
from particleforge.hpo.budgets import lengths_of
from particleforge.hpo.journal import JOURNAL
from particleforge.hpo.study import open_study
from particleforge.training.launch import TrainingResult, TrainingSpec

from .hpo_fixtures import (
    SPACE,
    FormulaTraining,
    Killed,
    Search,
    loss_at,
    make_manifest,
    make_settings,
)
from .synthetic_shards import write_synthetic


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tiny records are written here.

    That each reaches the disk is not what these tests are about.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def trials_by_slot(search: Search) -> dict[dag.Slot, dict[str, Any]]:
    """What the study says of each slot, apart from times."""
    trials = open_study(search.settings, search.manifest, search.work).trials()
    return {
        t.slot_id: {
            "config": t.config,
            "params": t.params,
            "value": t.value,
            "status": t.status,
            "curve": t.curve,
            "n": t.number,
        }
        for t in trials
    }


def test_a_whole_search_keeps_its_promises(tmp_path: Path) -> None:
    search = Search(tmp_path)
    results = {(r["rung"], r["slot"]): r for r in search.run_all()}
    assert set(results) == set(dag.all_slots(search.settings.hpo))
    for (rung, _), result in results.items():
        params = result["params"]
        assert result["steps"] == dag.budget_steps(search.settings.hpo, rung)
        assert result["value"] == loss_at(
            params["training.learning_rate"], params["model.n_layers"], result["steps"]
        )
    first = sorted((r["value"], r["config"]) for (rung, _), r in results.items() if rung == 0)
    assert {r["config"] for (rung, _), r in results.items() if rung == 1} == {
        config for _, config in first[:2]
    }
    assert len(search.train.steps_made) == 4 * 5 + 2 * 5 + 1 * 10, (
        "promoted trials go on from their checkpoints"
    )
    kept = optuna.load_study(
        study_name=results[0, 0]["study"], storage=study._open_storage(None, search.work)
    )
    states = [t.state for t in kept.get_trials()]
    assert (states.count(TrialState.PRUNED), states.count(TrialState.COMPLETE)) == (6, 1)
    assert kept.best_value == results[2, 0]["value"]


def test_first_slot_is_the_default_configuration_unless_told_otherwise(tmp_path: Path) -> None:
    default = Search(tmp_path / "a").run(0, 0)["params"]
    assert default == {"model.n_layers": 3, "model.width": 64, "training.learning_rate": 1e-3}
    assert (
        Search(tmp_path / "b", make_settings(include_default=False)).run(0, 0)["params"] != default
    )


def test_a_default_outside_the_space_is_tried_but_teaches_the_sampler_nothing(
    tmp_path: Path,
) -> None:
    space = {"training.learning_rate": {"type": "float", "low": 2e-3, "high": 1e-1}}
    search = Search(tmp_path, make_settings(space=space))
    assert [r["status"] for r in search.run_all()] == ["complete"] * 7
    assert search.run(0, 0)["params"] == {"training.learning_rate": 1e-3}


@pytest.mark.parametrize(
    "sampler", ["tpe", "random", pytest.param("gp", marks=pytest.mark.integration), "cmaes", "qmc"]
)
def test_every_sampler_proposes_distinct_points_and_repeats_itself(
    tmp_path: Path, sampler: str
) -> None:
    settings = make_settings(sampler=sampler, first_rung_slots=8, n_rungs=1, min_steps=1)
    one, two = Search(tmp_path / "1", settings), Search(tmp_path / "2", settings)
    proposed = [one.run(0, slot)["params"] for slot in range(8)]
    assert proposed == [two.run(0, slot)["params"] for slot in range(8)]
    assert len({json.dumps(params, sort_keys=True) for params in proposed}) == 8
    for params in proposed:
        assert 1e-4 <= params["training.learning_rate"] <= 1e-1
        assert params["model.width"] in (16, 32, 64)
        assert params["model.n_layers"] in range(1, 7)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_samplers_that_do_not_learn_do_not_depend_on_the_order(
    tmp_path: Path, sampler: str
) -> None:
    settings = make_settings(sampler=sampler, first_rung_slots=6, n_rungs=1)
    forwards, backwards = Search(tmp_path / "1", settings), Search(tmp_path / "2", settings)
    there = [forwards.run(0, slot)["params"] for slot in range(6)]
    back = [backwards.run(0, slot)["params"] for slot in reversed(range(6))]
    assert there == back[::-1]


def test_tpe_learns(tmp_path: Path) -> None:
    """Late proposals of a long search are nearer to the best learning rate than random ones."""
    search = Search(
        tmp_path, make_settings(first_rung_slots=30, n_rungs=1, min_steps=1, include_default=False)
    )
    losses = [search.run(0, slot)["value"] for slot in range(30)]
    assert sorted(losses[-10:])[5] < sorted(losses[:10])[5]


def test_a_finished_slot_is_not_trained_again(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run_all()
    before = len(search.train.steps_made)
    bytes_before = [path.read_bytes() for path in search.outputs()]
    for path in search.outputs():
        path.unlink()
    search.run_all()
    assert len(search.train.steps_made) == before
    assert [path.read_bytes() for path in search.outputs()] == bytes_before


def test_failures_are_trials_and_the_next_best_is_promoted(tmp_path: Path) -> None:
    fails = FormulaTraining(
        fails=lambda spec: (
            "out of memory" if spec.work_dir.name in ("0-00000", "0-00003", "1-00000") else ""
        )
    )
    search = Search(tmp_path, train=fails)
    results = {(r["rung"], r["slot"]): r for r in search.run_all()}
    assert results[0, 0]["status"] == "failed"
    assert results[0, 0]["reason"] == "out of memory"
    assert {results[1, 0]["config"], results[1, 1]["config"]} == {"c00001", "c00002"}
    assert results[1, 0]["status"] == "failed"
    assert results[2, 0]["config"] == results[1, 1]["config"]


def test_a_non_finite_loss_is_a_diverged_trial(tmp_path: Path) -> None:
    search = Search(tmp_path)
    opened = open_study(search.settings, search.manifest, search.work)
    trial = opened.claim(0, 0)
    assert trial is not None
    ended = opened.finish(trial, "complete", value=float("nan"), curve={1: 0.5, 2: float("inf")})
    assert (ended.status, ended.value, dict(ended.curve)) == ("diverged", None, {1: 0.5})


def test_an_empty_slot_says_why_and_too_many_failures_are_an_error(tmp_path: Path) -> None:
    fails = FormulaTraining(
        fails=lambda spec: (
            "diverged" if spec.work_dir.name in ("0-00002", "0-00003", "0-00001") else ""
        )
    )
    patient = Search(tmp_path / "1", make_settings(failed_fraction_max=0.8), fails)
    results = {(r["rung"], r["slot"]): r for r in patient.run_all()}
    assert results[1, 1]["status"] == "no_contender"
    assert results[1, 1]["trial"] is None
    assert "1 ended well" in results[1, 1]["reason"]
    assert results[2, 0]["config"] == "c00000"
    strict = Search(tmp_path / "2", make_settings(failed_fraction_max=0.5), fails)
    with pytest.raises(UserError, match="75% of the trials of rung 0 failed"):
        strict.run_all()


def test_an_interrupted_training_is_an_error_that_the_next_run_mends(tmp_path: Path) -> None:
    search = Search(tmp_path)
    whole = search.train

    def interrupted(spec: Any, ranks: int) -> Any:
        return whole._result(spec, "interrupted", "signal 15", 2, {}, None)

    search.train = interrupted  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"interrupted at step 2 of 5.*run it again"):
        search.run(0, 0)
    search.train = whole
    assert search.run(0, 0)["status"] == "complete"
    assert len(trials_by_slot(search)) == 1


@pytest.mark.parametrize("scheduler", ["asha", "rasda", "none"])
def test_a_kill_in_any_step_of_a_training_changes_nothing(tmp_path: Path, scheduler: str) -> None:
    """Nor does it count as a failure, though one lost job is all that a step may cost here."""
    settings = make_settings(scheduler=scheduler, attempts_max=2)
    untouched = Search(tmp_path / "whole", settings)
    untouched.run_all(order=random.Random(1))
    expected = trials_by_slot(untouched)
    assert len(expected) == len(dag.all_slots(settings.hpo))
    for seed in range(3 if scheduler == "asha" else 1):
        dice, order = random.Random(seed), random.Random(1)
        died: set[tuple[str, int]] = set()

        def dies(
            spec: TrainingSpec,
            step: int,
            dice: random.Random = dice,
            died: set[tuple[str, int]] = died,
        ) -> bool:
            again = (spec.work_dir.name, step) in died
            died.add((spec.work_dir.name, step))
            return not again and dice.random() < 0.3

        search = Search(tmp_path / str(seed), settings, FormulaTraining(dies_before=dies))
        search.run_all(order=order, again_after_kills=True)
        assert trials_by_slot(search) == expected
        steps = search.train.steps_made
        assert len(steps) == len(set(steps)), "no step is made twice"


@pytest.mark.fault("slot lost again and again")
def test_a_slot_whose_jobs_are_lost_again_and_again_is_a_failed_trial(tmp_path: Path) -> None:
    """Three jobs die before the fourth step: a failure.

    Progress in between, or an end in good order, starts the count anew.
    """
    settings = make_settings(attempts_max=3, failed_fraction_max=0.9)
    search = Search(
        tmp_path,
        settings,
        FormulaTraining(
            dies_before=lambda spec, step: spec.work_dir.name == "0-00001" and step == 4
        ),
    )
    for _ in range(4):  # the first one makes three steps
        with pytest.raises(Killed):
            search.run(0, 1)
    lost = search.run(0, 1)
    assert (lost["status"], lost["trial"]) == ("failed", 0)
    assert lost["reason"].startswith("lost: 3 jobs ended without a word after step 3")
    assert [r["status"] for r in search.run_all()] == ["complete", "failed", *["complete"] * 5]
    whole = search.train

    def refused(spec: TrainingSpec, ranks: int) -> TrainingResult:
        raise UserError("the disk is full")

    search = Search(tmp_path / "mended", settings, refused)  # type: ignore[arg-type]
    for _ in range(5):
        with pytest.raises(UserError, match="the disk is full"):
            search.run(0, 0)
    search.train = whole
    assert search.run(0, 0)["status"] == "complete"


def test_budgets_in_events_are_counted_by_the_first_job(tmp_path: Path) -> None:
    settings = make_settings(min_steps=None, min_events=100)
    search = Search(tmp_path, settings)
    manifest = write_synthetic(search.folder)
    results = {(r["rung"], r["slot"]): r for r in search.run_all()}
    for (rung, _), result in results.items():
        assert result["steps"] == lengths_of(settings, result["params"], manifest).ends[rung]
    trials = open_study(settings, manifest, search.work).trials()
    assert {t.slot_id: t.steps for t in trials} == {
        place: result["steps"] for place, result in results.items()
    }


@pytest.mark.parametrize("torn", [None, 0.0, 0.5], ids=["after", "before", "amidst"])
def test_a_kill_at_any_write_to_the_study_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: float | None
) -> None:
    """Die once at the n-th record of the journal, for every n: after it is written, before, or half
    way through it.
    """
    settings = make_settings(first_rung_slots=2, n_rungs=2, min_steps=2)
    untouched = Search(tmp_path / "whole", settings)
    untouched.run_all()
    expected = trials_by_slot(untouched)
    append = JournalFileBackend.append_logs
    n_records = len((untouched.work / JOURNAL).read_text().splitlines())
    countdown = [0]

    def deadly(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        countdown[0] -= 1
        if countdown[0] == 0 and torn is not None:
            with open(backend._file_path, "a") as journal:
                line = json.dumps(logs[0])
                journal.write(line[: int(len(line) * torn)])
            raise Killed
        append(backend, logs)
        if countdown[0] == 0:
            raise Killed

    monkeypatch.setattr(JournalFileBackend, "append_logs", deadly)
    for n in range(1, n_records + 1):
        search, countdown[0] = Search(tmp_path / f"{n}", settings), n
        kills = 0
        for rung, slot in dag.all_slots(settings.hpo):
            try:
                search.run(rung, slot)
            except Killed:
                kills += 1
                search.run(rung, slot)
        assert kills == 1
        assert trials_by_slot(search) == expected


def test_random_orders_never_repeat_or_lose_a_configuration(tmp_path: Path) -> None:
    for seed in range(2):
        dice = random.Random(seed)
        settings = make_settings(
            first_rung_slots=9, eta=3, n_rungs=3, min_steps=1, sampler="random"
        )
        search = Search(
            tmp_path / str(seed),
            settings,
            FormulaTraining(fails=lambda spec, dice=dice: "bad" if dice.random() < 0.1 else ""),
        )
        results = search.run_all(order=dice)
        for rung in range(3):
            configs = [
                r["config"] for r in results if r["rung"] == rung and r["config"] is not None
            ]
            assert len(configs) == len(set(configs))


def test_more_slots_and_parameters_extend_the_study(tmp_path: Path) -> None:
    search = Search(tmp_path, make_settings(first_rung_slots=4))
    before = {(r["rung"], r["slot"]): r for r in search.run_all()}
    made = len(search.train.steps_made)
    wider = SPACE | {
        "training.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}
    }
    wider |= {"training.beta2": {"type": "float", "low": 0.9, "high": 0.999}}
    search.settings = make_settings(first_rung_slots=8, space=wider)
    after = {(r["rung"], r["slot"]): r for r in search.run_all()}
    assert {slot: after[slot] for slot in before} == before
    assert len(after) == 8 + 4 + 2
    assert "training.beta2" in after[0, 7]["params"]
    assert len(search.train.steps_made) - made == (4 + 2) * 5 + 10


def test_more_rungs_extend_a_study_whose_schedule_is_fixed(tmp_path: Path) -> None:
    search = Search(tmp_path, make_settings(first_rung_slots=4, n_rungs=2, schedule_steps=20))
    before = {(r["rung"], r["slot"]): r for r in search.run_all()}
    search.settings = make_settings(first_rung_slots=4, n_rungs=3, schedule_steps=20)
    after = {(r["rung"], r["slot"]): r for r in search.run_all()}
    assert {slot: after[slot] for slot in before} == before
    assert after[2, 0]["trial"] == 6


def test_what_starts_a_new_study(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)

    def name(**hpo: Any) -> str:
        return open_study(make_settings(**hpo), manifest, tmp_path / "work").name

    first = name()
    assert name(sampler="random", ranks=4, failed_fraction_max=0.1) == first
    others = [
        name(min_steps=6),
        name(eta=3, first_rung_slots=9),
        name(schedule_steps=100),
        name(scheduler="none"),
    ]
    narrower = dict(list(SPACE.items())[1:])
    others.append(name(space=narrower))
    settings = make_settings()
    changes = (
        settings.model_copy(update={"seed": 8}),
        settings.model_copy(
            update={"training": settings.training.model_copy(update={"beta2": 0.9})}
        ),
        settings.model_copy(update={"model": settings.model.model_copy(update={"dropout": 0.1})}),
    )
    others += [open_study(changed, manifest, tmp_path / "work").name for changed in changes]
    immaterial = {"log_every_steps": 99, "ranks": 7, "early_stopping_patience": 2}
    same = settings.model_copy(update={"training": settings.training.model_copy(update=immaterial)})
    assert open_study(same, manifest, tmp_path / "work").name == first
    make_manifest(tmp_path, checksum="1")
    others.append(name())
    assert len({first, *others}) == 1 + len(others)
    make_manifest(tmp_path)
    assert name() == first, "the old data's study is still there"


def test_an_unreadable_manifest_or_storage_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json: no such file; rerun write_shards"):
        open_study(make_settings(), tmp_path / "manifest.json", tmp_path / "work")
    with pytest.raises(UserError, match=r"hpo\.storage_url: 'nonsense://x' cannot be opened"):
        open_study(
            make_settings(storage_url="nonsense://x"), make_manifest(tmp_path), tmp_path / "work"
        )


@pytest.mark.integration
def test_any_optuna_storage(tmp_path: Path) -> None:
    search = Search(
        tmp_path,
        make_settings(
            first_rung_slots=2, n_rungs=2, min_steps=1, storage_url=f"sqlite:///{tmp_path}/study.db"
        ),
    )
    assert [r["status"] for r in search.run_all()] == ["complete"] * 3
    assert not (search.work / JOURNAL).exists()
