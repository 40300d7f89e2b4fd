"""``best.yaml``: what the search hands to the final training, and how it came to it.

A file with the blocks ``model`` and ``training`` alone will do for a training; the rest explains
them.
"""

from typing import Any

from pydantic import Field

from particleforge.config.base import Block

HEADER = """\
# The settings that the search found. The final training lays the blocks `model` and `training` \
over its own settings.
# To train another trial of trials.csv: snakemake train --config 'hpo={pin_trial: <config>}'
"""


class FrontConfig(Block):
    """A trial that no other beats in both objectives."""

    trial: int
    config: str
    value: float
    inference_gflop: float


class SeedsConfig(Block):
    """The validation losses of one configuration at the full budget, one for each of several seeds.

    The search's own seed comes first.
    """

    config: str
    values: tuple[float, ...]
    mean: float
    standard_deviation: float | None = Field(description="over the seeds; none of one")
    failures: int = Field(description="further seeds from which the training failed")


class SearchedConfig(Block):
    """What was searched."""

    scheduler: str
    sampler: str
    configurations: int
    trials: dict[str, int] = Field(description="by status")
    trained_steps: int = Field(description="optimiser steps of all trials that ended well")
    full_trainings: float = Field(description="the same in trainings of the full budget")


class DefaultConfig(Block):
    """The winner against the configured settings, both at the largest budget that both reached."""

    budget: float | None = None
    budget_unit: str | None = None
    reason: str | None = None
    default_value: float | None = None
    best_value: float | None = None
    relative_change: float | None = None
    at_full_budget: bool | None = None


class RandomConfig(Block):
    """The winner against random search in as many rank hours (``hpo.against_random``)."""

    reason: str | None = Field(None, description="why there is no comparison")
    rank_hours: float | None = None
    random_value: float | None = Field(None, description="validation loss, on average")
    estimated: bool | None = None
    relative_change: float | None = None


class BestConfig(Block):
    """The content of ``best.yaml``."""

    study: str | None = None
    trial: int | None = None
    config: str | None = None
    value: float | None = Field(None, description="validation loss")
    steps: int | None = None
    why: str | None = Field(None, description="why this one")
    inference_gflop: float | None = None
    search: SearchedConfig | None = None
    against_default: DefaultConfig | None = None
    against_random: RandomConfig | None = None
    seeds: tuple[SeedsConfig, ...] = Field(
        (), description="the configurations that were trained from further seeds, best first"
    )
    pareto_front: tuple[FrontConfig, ...] = Field((), description="lowest loss first")
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
