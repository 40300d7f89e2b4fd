"""How long the trainings of a configuration are, in optimiser steps.

Inputs -> outputs: the search's budgets, a configuration and the manifest of the shards -> the steps
after which each rung ends, and the length of the learning-rate schedule.

Budgets in steps are the same for every configuration. Those in epochs or events, and a warm-up in
events, are as many steps as the plan of the configuration's batches says, so that configurations of
one rung have seen equally many events, to within half a batch; with ``rasda`` those of each rung
come in that rung's batches, and the warm-up in those of the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from particleforge.config.hpo import HpoConfig
from particleforge.config.settings import HpoSettings, TrainSettings
from particleforge.config.space import apply_parameters
from particleforge.config.training import TrainingConfig
from particleforge.hpo import dag
from particleforge.model.inputs import read_manifest

if TYPE_CHECKING:
    from particleforge.training.loader import ShardLoader


@dataclass(frozen=True)
class Lengths:
    """Optimiser steps at the end of each rung, of the learning-rate schedule and of its warm-up."""

    ends: tuple[int, ...]
    schedule: int
    warmup: int


def lengths_in_steps(hpo: HpoConfig, training: TrainingConfig) -> Lengths:
    """Return the lengths of a configuration's trainings, where all are in steps."""
    assert training.in_steps, "how many steps events are depends on the trial"
    schedule = dag.schedule_steps(hpo)
    return Lengths(
        tuple(dag.budget_steps(hpo, rung) for rung in range(dag.n_rungs(hpo))),
        schedule,
        round(training.warmup * _shrunk(training, schedule)),
    )


def _shrunk(training: TrainingConfig, schedule: float) -> float:
    """Return by what factor a trial's schedule is shorter than that of the final training."""
    return min(1.0, schedule / training.schedule_length) if training.schedule_length else 1.0


def lengths_of(settings: HpoSettings, params: Mapping[str, Any], manifest: Path) -> Lengths:
    """Return the lengths of a configuration's trainings.

    Pydantic's ValidationError if the parameters make no valid settings.
    """
    hpo = settings.hpo
    model, training = apply_parameters(params, settings.model, settings.training)
    if hpo.min_steps is not None:
        return lengths_in_steps(hpo, training)
    # brings torch, which other slots do without
    from particleforge.training.budget import steps_for, steps_until, train_loader

    n_rungs = dag.n_rungs(hpo)
    beyond = range(hpo.n_rungs, hpo.schedule_rungs or 0)  # rungs that only the schedule counts with
    budgets = [dag.budget(hpo, rung) for rung in range(n_rungs)] + [
        hpo.min_budget * hpo.eta**rung for rung in beyond
    ]
    growths = [dag.growth(hpo, rung) for rung in (*range(n_rungs), *beyond)]
    loaders: dict[int, ShardLoader] = {}
    for growth in growths:
        batch = {"elements_per_batch": training.elements_per_batch * growth}
        own = TrainSettings(
            seed=settings.seed, model=model, training=training.model_copy(update=batch)
        )
        loaders[growth] = loaders.get(growth) or train_loader(own, manifest)
    if hpo.min_epochs is not None:
        of_epoch = _train_events(training.max_train_events, manifest)
        budgets = [epochs * of_epoch for epochs in budgets]
    steps = steps_until([loaders[growth] for growth in growths], budgets)
    warmup = training.warmup * _shrunk(
        training, steps[-1] if training.events_seen is None else budgets[-1]
    )
    if training.warmup_events is not None:
        warmup = steps_for(loaders[growths[0]], warmup)
    return Lengths(tuple(steps[:n_rungs]), steps[-1], round(warmup))


def _train_events(most: int | None, manifest: Path) -> int:
    """Return the number of events of an epoch."""
    available: int = read_manifest(manifest)["splits"]["train"]["n_events"]
    return min(most or available, available)
