"""Budgets in events and epochs, and workers that grow: steps as planned are steps as trained, and
jobs ask for their rung's workers.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings, TrainSettings
from particleforge.config.training import TrainingConfig
from particleforge.hpo import dag
from particleforge.hpo.budgets import lengths_in_steps, lengths_of
from particleforge.hpo.space import trial_settings
from particleforge.model.inputs import ModelInputs
from particleforge.orchestration.workflow import Workflow
from particleforge.training import train
from particleforge.training.budget import (
    events_after_steps,
    steps_until,
    train_loader,
    with_steps,
)
from particleforge.training.distributed import Workers
from particleforge.training.optimiser import learning_rate
from particleforge.training.spec import TrainingSpec
from particleforge.training.trainer import Trainer

from .synthetic_shards import write_synthetic

ROOT = Path(__file__).parents[2]
N_EVENTS = 120


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


def settings_of(training: dict[str, Any] | None = None, **hpo: Any) -> HpoSettings:
    return HpoSettings(
        seed=4,
        model=ModelConfig(width=8, n_layers=1, n_heads=2),
        training=TrainingConfig(
            **{
                "elements_per_batch": 256,
                "warmup_steps": 4,
                "max_steps": 100,
                "device": "cpu",
                **(training or {}),
            }
        ),
        hpo=HpoConfig(**{"first_rung_slots": 4, "eta": 2, "n_rungs": 3, **hpo}),
    )


def events_seen(
    settings: HpoSettings, params: dict[str, Any], manifest: Path, folder: Path
) -> list[int]:
    """Train one configuration through all rungs, each going on from the state of the one below, and
    return the events seen by then.
    """
    lengths, state, seen, total = lengths_of(settings, params, manifest), None, [], 0
    for rung, end in enumerate(lengths.ends):
        own = trial_settings(settings, params, rung, lengths)
        (folder / str(rung)).mkdir()
        trainer = Trainer(
            TrainingSpec(own, manifest, folder / str(rung), end),
            Workers(0, 1, torch.device("cpu")),
            ModelInputs.from_manifest(manifest),
            lambda: False,
        )
        if state is not None:
            trainer.restore(state)
        stream = trainer.train_loader.stream

        def counted(epoch: int, batch: int, stream: Any = stream) -> Any:
            nonlocal total
            for item in stream(epoch, batch):
                total += item[-1]
                yield item

        trainer.train_loader.stream = counted  # type: ignore[method-assign,assignment]
        assert trainer.run()[0] == "complete"
        assert trainer.step == end
        seen.append(total)
        state = trainer.state()
    return seen


@pytest.mark.parametrize("batch", [128, 512])
@pytest.mark.parametrize(
    ("budget", "events"), [({"min_events": 70}, 70), ({"min_epochs": 1.5}, 1.5 * N_EVENTS)]
)
@pytest.mark.parametrize("scheduler", ["asha", "rasda"])
def test_a_trial_sees_the_events_of_its_budget(
    scheduler: str,
    budget: dict[str, Any],
    events: float,
    batch: int,
    manifest: Path,
    tmp_path: Path,
) -> None:
    settings = settings_of(scheduler=scheduler, **budget)
    params = {"training.elements_per_batch": batch}
    largest = max(
        len(b.events) for b in train_loader(_with_batch(settings, 4 * batch), manifest).plan(0)
    )
    found = events_seen(settings, params, manifest, tmp_path)
    assert np.abs(np.array(found) - events * np.array([1, 2, 4])).max() <= largest / 2
    if budget == {"min_epochs": 1.5} and scheduler == "asha":
        assert found[1:] == [3 * N_EVENTS, 6 * N_EVENTS], "whole epochs are met exactly"


def _with_batch(settings: HpoSettings, batch: int) -> TrainSettings:
    training = settings.training.model_copy(update={"elements_per_batch": batch})
    return TrainSettings(seed=settings.seed, model=settings.model, training=training)


def test_steps_are_those_of_the_plan_and_rise(manifest: Path) -> None:
    loader = train_loader(_with_batch(settings_of(), 256), manifest)
    targets = [1, 2, 100, 130, 400]
    whole = events_after_steps(loader, 1000)
    nearest = [int(np.abs(whole - target).argmin()) + 1 for target in targets]
    found = steps_until([loader] * len(targets), targets)
    assert found[2:] == nearest[2:]
    assert found[:2] == [1, 2], "every rung makes a step at least"
    other = train_loader(_with_batch(settings_of(), 512), manifest)
    epochs = [len(list(loader.plan(0))), len(list(other.plan(1)))]
    assert steps_until([loader, other], [N_EVENTS, 2 * N_EVENTS]) == [epochs[0], sum(epochs)], (
        "another batch begins a new epoch"
    )


def test_the_schedule_spans_the_top_rung_or_the_rungs_that_it_is_to_span(manifest: Path) -> None:
    three = lengths_of(settings_of(min_events=100), {}, manifest)
    assert three.schedule == three.ends[-1]
    four = lengths_of(settings_of(min_events=100, n_rungs=4, first_rung_slots=8), {}, manifest)
    assert lengths_of(settings_of(min_events=100, schedule_rungs=4), {}, manifest) == replace(
        four, ends=four.ends[:3]
    )
    own = trial_settings(settings_of(min_events=100), {}, 2, three).training
    assert (own.max_steps, own.warmup_steps) == (three.schedule, round(4 * three.schedule / 100))
    plain = settings_of(scheduler="none", min_events=100)
    assert lengths_of(plain, {}, manifest).ends == (three.ends[-1],)
    in_steps = settings_of(min_steps=5)
    assert lengths_of(in_steps, {}, manifest) == lengths_in_steps(in_steps.hpo, in_steps.training)


IN_EVENTS = {"max_steps": None, "events_seen": 800, "warmup_steps": None, "warmup_events": 80}


@pytest.mark.parametrize("batch", [128, 512])
def test_a_training_in_events_sees_as_many_whatever_its_batches(batch: int, manifest: Path) -> None:
    settings = _with_batch(settings_of({**IN_EVENTS, "schedule_events": 1000}), batch)
    own = with_steps(settings, manifest).training
    seen = events_after_steps(train_loader(settings, manifest), 1000)
    half = max(np.diff(seen)) / 2
    for steps, events in (
        (own.max_steps, 800),
        (own.warmup_steps, 80),
        (own.schedule_steps, 1000),
    ):
        assert abs(seen[(steps or 0) - 1] - events) <= half
    assert own.in_steps
    longer = settings.training.model_copy(update={"events_seen": 900})
    longer = with_steps(settings.model_copy(update={"training": longer}), manifest).training
    assert longer.max_steps != own.max_steps
    assert (longer.warmup_steps, longer.schedule_steps) == (own.warmup_steps, own.schedule_steps)
    assert with_steps(_with_batch(settings_of(), batch), manifest).training.max_steps == 100


def test_the_winner_is_trained_on_as_many_events_in_its_own_batches(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AskedError(Exception):
        pass

    def asked(spec: TrainingSpec, *_: Any) -> None:
        raise AskedError(spec.until_step, spec.settings.training.elements_per_batch)

    monkeypatch.setattr(train, "run_training", asked)
    best = tmp_path / "best.yaml"
    best.write_text("model: {}\ntraining: {elements_per_batch: 128}\n")
    settings = _with_batch(settings_of(IN_EVENTS), 512)
    outputs = {name: tmp_path / name for name in ("model", "last", "metrics", "tensorboard")}
    with pytest.raises(AskedError) as told:
        train.train_model(
            settings, manifest=manifest, best_settings=best, work_dir=tmp_path, **outputs
        )
    steps, batch = told.value.args
    own = with_steps(_with_batch(settings_of(IN_EVENTS), 128), manifest).training
    assert (steps, batch) == (own.max_steps, 128)


@pytest.mark.parametrize("batch", [128, 512])
def test_a_trial_in_events_warms_up_for_the_same_share_of_its_schedule(
    batch: int, manifest: Path
) -> None:
    params = {"training.elements_per_batch": batch}
    settings = settings_of(IN_EVENTS, min_events=100)  # half of the final training in the top rung
    found = lengths_of(settings, params, manifest)
    seen = events_after_steps(train_loader(_with_batch(settings, batch), manifest), 500)
    assert abs(seen[found.warmup - 1] - 40) <= max(np.diff(seen)) / 2
    in_steps = {**IN_EVENTS, "warmup_events": None, "warmup_steps": 6}
    own = lengths_of(settings_of(in_steps, min_events=100), params, manifest)
    assert own == replace(found, warmup=3), "a warm-up in steps shrinks alike"
    assert trial_settings(settings, params, 1, found).training.in_steps
    full = settings_of(IN_EVENTS, min_events=200)
    final = with_steps(_with_batch(full, batch), manifest).training
    trial = trial_settings(full, params, 2, lengths_of(full, params, manifest)).training
    assert (trial.max_steps, trial.warmup_steps) == (final.max_steps, final.warmup_steps)


def test_rasda_scales_batch_and_learning_rate_with_the_workers() -> None:
    scaled = {
        "learning_rate_scaling": "sqrt",
        "reference_elements_per_batch": 256,
        "warmup_steps": 0,
    }
    settings = settings_of(scaled, scheduler="rasda", min_steps=10, ranks=2, ranks_factor=4)
    rungs = [trial_settings(settings, {}, rung).training for rung in range(3)]
    assert [(t.ranks, t.elements_per_batch) for t in rungs] == [(2, 256), (8, 1024), (32, 4096)]
    assert [learning_rate(t, 10) / learning_rate(rungs[0], 10) for t in rungs] == pytest.approx(
        [1, 2, 4]
    )


def test_jobs_of_a_rung_ask_for_its_workers_and_promotions_go_first() -> None:
    hpo = {
        "scheduler": "rasda",
        "first_rung_slots": 9,
        "eta": 3,
        "n_rungs": 3,
        "ranks": 2,
        "ranks_per_node_max": 4,
    }
    asked = {"run_hpo_slot": {"threads": 4, "gpus": 2, "mem_mb": 1000, "partition": "gpu"}}
    workflow = Workflow(
        [ROOT / "config"], {"preset": "smoke", "detector": "clic", "hpo": hpo, "resources": asked}
    )

    def job(rung: int) -> SimpleNamespace:
        return SimpleNamespace(rung=str(rung), slot="0")

    threads: Any = workflow.threads("run_hpo_slot")
    found: Any = workflow.resources("run_hpo_slot")
    by_rung = [
        {name: value(job(rung), attempt=1) for name, value in found.items()} for rung in range(3)
    ]
    assert [threads(job(rung)) for rung in range(3)] == [4, 8, 16]
    assert [(r["nodes"], r["tasks"], r["gpu"], r["gres"], r["mem_mb"]) for r in by_rung] == [
        (None, None, 2, None, 1000),
        (None, None, 4, None, 2000),
        (2, 8, None, "gpu:4", 2000),
    ]
    assert {r["slurm_partition"] for r in by_rung} == {"gpu"}
    assert found["mem_mb"](job(1), attempt=2) == 4000
    assert [dag.ranks(workflow.run.hpo, rung) for rung in range(3)] == [2, 4, 8]
    assert (
        workflow.search.priority(job(2))
        > workflow.search.priority(job(1))
        > workflow.search.priority(job(0))
        > 0
    )
    plain = Workflow(
        [ROOT / "config"],
        {"preset": "smoke", "detector": "clic", "hpo": {"scheduler": "asha"}, "resources": asked},
    )
    assert isinstance(plain.threads("run_hpo_slot"), int)
    assert plain.resources("run_hpo_slot")["gpu"] == 2
