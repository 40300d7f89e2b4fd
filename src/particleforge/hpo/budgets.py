"""How long the trainings of a configuration are, in optimiser steps.

Inputs -> outputs: the search's budgets, a configuration and the manifest of the shards -> the steps
after which each rung ends, and the length of the learning-rate schedule.

Budgets in steps are the same for every configuration. Those in epochs or events are as many steps
as the plan of the configuration's batches says, so that configurations of one rung have seen
equally many events, to within half a batch; with ``rasda`` those of each rung come in that rung's
batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from particleforge.config.hpo import HpoConfig
from particleforge.config.settings import HpoSettings, TrainSettings
from particleforge.config.space import apply_parameters
from particleforge.hpo import dag
from particleforge.model.inputs import read_manifest

if TYPE_CHECKING:
    from particleforge.training.loader import ShardLoader


@dataclass(frozen=True)
class Lengths:
    """Optimiser steps at the end of each rung, and of the learning-rate schedule."""

    ends: tuple[int, ...]
    schedule: int


def lengths_in_steps(hpo: HpoConfig) -> Lengths:
    """Return the lengths of every configuration's trainings, where budgets are in steps."""
    return Lengths(
        tuple(dag.budget_steps(hpo, rung) for rung in range(dag.n_rungs(hpo))),
        dag.schedule_steps(hpo),
    )


def lengths_of(settings: HpoSettings, params: Mapping[str, Any], manifest: Path) -> Lengths:
    """Return the lengths of a configuration's trainings.

    Pydantic's ValidationError if the parameters make no valid settings.
    """
    hpo = settings.hpo
    if hpo.min_steps is not None:
        return lengths_in_steps(hpo)
    # brings torch, which other slots do without
    from particleforge.training.budget import steps_until, train_loader

    model, training = apply_parameters(params, settings.model, settings.training)
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
    events = 1 if hpo.min_events is not None else _train_events(training.max_train_events, manifest)
    steps = steps_until(
        [loaders[growth] for growth in growths], [budget * events for budget in budgets]
    )
    return Lengths(tuple(steps[:n_rungs]), steps[-1])


def _train_events(most: int | None, manifest: Path) -> int:
    """Return the number of events of an epoch."""
    available: int = read_manifest(manifest)["splits"]["train"]["n_events"]
    return min(most or available, available)
