"""The hyperparameter search."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from particleforge.config.base import SECRET, AddressText, Block, PathText
from particleforge.config.space import ParameterConfig
from particleforge.config.space_checks import check_paths

JOBS_MAX = 20_000  # of one search; a plan takes a millisecond for each
_WAITS_MAX = 1_000_000  # results that its jobs wait for, all together
_BUDGETS = ("min_steps", "min_epochs", "min_events")


def _without_removed(space: Any) -> Any:
    """Drop parameters set to null: so a preset takes one out of the space of config.yaml."""
    return (
        {path: parameter for path, parameter in space.items() if parameter is not None}
        if isinstance(space, Mapping)
        else space
    )


class HpoConfig(Block):
    """A search as a static graph of jobs (docs/hpo.md).

    From rung to rung there are eta times fewer slots of eta times the budget.

    The first rung's budget is given in one of ``min_steps``, ``min_epochs`` and ``min_events``.
    """

    scheduler: Literal["asha", "rasda", "none"] = Field(
        "asha",
        description=(
            "which slots there are, and what each waits for; none: one rung at the full budget"
        ),
    )
    sampler: Literal["random", "qmc", "grid", "tpe", "gp", "cmaes", "nsgaii"] = Field(
        "random", description="proposes the configurations of the first rung"
    )
    grid_points: int = Field(
        4, ge=1, le=10_000, description="values of a continuous parameter in a grid"
    )
    first_rung_slots: int = Field(
        49, ge=1, le=10_000, description="configurations tried at the smallest budget"
    )
    eta: int = Field(
        7, ge=2, le=100, description="reduction factor: the share of trials promoted is 1/eta"
    )
    n_rungs: int = Field(3, ge=1, le=16)
    min_steps: int | None = Field(
        None,
        ge=1,
        description="optimiser steps of the first rung; default is 100 if no other budget is given",
    )
    min_epochs: float | None = Field(
        None, gt=0, description="instead of min_steps: passes over the training events"
    )
    min_events: int | None = Field(
        None, ge=1, description="instead of min_steps: training events seen, repetitions included"
    )
    schedule_steps: int | None = Field(
        None,
        ge=1,
        description=(
            "length of a trial's learning-rate schedule; default is the top rung's budget. Fix it"
            " to add rungs later"
        ),
    )
    schedule_rungs: int | None = Field(
        None,
        ge=1,
        le=32,
        description=(
            "instead of schedule_steps: rungs that the schedule spans; default is n_rungs. Fix it"
            " to add rungs later"
        ),
    )
    ranks: int = Field(
        1, ge=1, le=100_000, description="DDP processes of one trial; with rasda in the first rung"
    )
    ranks_factor: int = Field(
        2,
        ge=1,
        le=16,
        description="with rasda: growth of ranks and elements_per_batch from rung to rung",
    )
    ranks_per_node_max: int | None = Field(
        None,
        ge=1,
        description=(
            "with rasda: most ranks on one node, beyond which a rung takes more nodes; default is"
            " no limit"
        ),
    )
    include_default: bool = Field(
        True, description="the first configuration is the settings as configured"
    )
    failed_fraction_max: float = Field(
        0.5, ge=0, le=1, description="share of failed trials from which the search is an error"
    )
    objectives: tuple[Literal["valid_loss", "inference_gflop"], ...] = Field(
        ("valid_loss",),
        description=(
            "what counts: the validation loss, and the cost of the network on an event of mean"
            " length"
        ),
    )
    pick: Literal["lowest_loss", "cheapest"] = Field(
        "lowest_loss",
        description=(
            "which trial wins; cheapest: of those whose loss is within pick_loss_tolerance of the"
            " lowest"
        ),
    )
    pick_loss_tolerance: float = Field(
        0.02,
        ge=0,
        description="how much worse than the lowest loss the cheapest may be, as a fraction",
    )
    pin_trial: int | str | None = Field(
        None,
        description=(
            "number of a trial, or name of a configuration as in trials.csv, that is to win"
            " whatever the others reached"
        ),
    )
    confirm_seeds: int = Field(
        1,
        ge=1,
        le=100,
        description=(
            "seeds of the best configurations, the search's own included, over whose mean the"
            " winner is chosen"
        ),
    )
    confirm_trials: int = Field(
        3,
        ge=1,
        le=1000,
        description="how many of the best configurations are trained from further seeds",
    )
    warm_start: tuple[PathText, ...] = Field(
        (),
        description=(
            "trials.csv or best.yaml of other searches, whose best configurations are tried first"
        ),
    )
    warm_start_trials: int = Field(
        3, ge=1, description="how many configurations are taken from warm_start"
    )
    attempts_max: int = Field(
        5,
        ge=1,
        description=(
            "jobs of one slot that may be lost at the same step, as by a node that fails, until the"
            " trial is a failed one"
        ),
    )
    slot_minutes_max: float | None = Field(
        None,
        gt=0,
        description=(
            "minutes that a slot trains in all its jobs, after which the trial is a failed one;"
            " default is no limit"
        ),
    )
    storage_url: AddressText | None = Field(
        None,
        description=(
            "Optuna storage, a URL without password; default is a journal file in the results"
        ),
    )
    space_from: str | None = Field(
        None, description="file of config/spaces that space adds to and changes"
    )
    space: Annotated[dict[str, ParameterConfig], BeforeValidator(_without_removed)] = Field(
        default_factory=dict,
        description="search space, keyed by dotted path; null takes a parameter out",
    )

    @field_validator("storage_url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url and not re.match(r"[\w+]+://", url):
            raise PydanticCustomError(
                SECRET,
                "is no URL (not repeated here, as it may hold a password); write"
                " driver://user@host:port/database, or null for a journal file in the results",
            )
        return url

    @property
    def budget_unit(self) -> Literal["steps", "epochs", "events"]:
        """What budgets are given in."""
        if self.min_steps is not None:
            return "steps"
        return "epochs" if self.min_epochs is not None else "events"

    @property
    def min_budget(self) -> float:
        """Budget of the first rung, in ``budget_unit``."""
        return next(
            budget
            for budget in (self.min_steps, self.min_epochs, self.min_events)
            if budget is not None
        )

    @field_validator("pin_trial", mode="before")
    @classmethod
    def _number_as_number(cls, pin: Any) -> Any:
        return int(pin) if isinstance(pin, str) and re.fullmatch("0|[1-9][0-9]{0,8}", pin) else pin

    @model_validator(mode="before")
    @classmethod
    def _budget_by_default(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and all(given.get(name) is None for name in _BUDGETS):
            return {**given, "min_steps": 100}
        return given

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = {name: getattr(self, name) for name in _BUDGETS if getattr(self, name) is not None}
        if len(given) > 1:
            shown = " and ".join(f"hpo.{name} = {value}" for name, value in given.items())
            raise ValueError(
                f"{shown} are given; keep one of them and take the others back with null"
            )
        return self

    @model_validator(mode="after")
    def _rungs_fit(self) -> Self:
        needed = self.eta ** (self.n_rungs - 1)
        if self.scheduler != "none" and self.first_rung_slots < needed:
            raise ValueError(
                f"hpo.first_rung_slots = {self.first_rung_slots} leaves rung {self.n_rungs - 1}"
                f" without a slot; need at least eta**(n_rungs-1) = {needed}"
            )
        return self

    @model_validator(mode="after")
    def _graph_can_be_planned(self) -> Self:
        further = self.confirm_trials * (self.confirm_seeds - 1)
        slots = waits = below = 0
        for rung in range(1 if self.scheduler == "none" else self.n_rungs):
            own = self.first_rung_slots // self.eta**rung
            slots += own
            waits += own * min(below, 2 * self.eta - 1)
            below = own
        if slots + further > JOBS_MAX:
            raise ValueError(
                f"hpo.first_rung_slots = {self.first_rung_slots}, hpo.confirm_trials ="
                f" {self.confirm_trials} and hpo.confirm_seeds = {self.confirm_seeds} make"
                f" {slots + further} jobs, at most {JOBS_MAX} can be planned; lower them"
            )
        if (waits := waits + further * slots) > _WAITS_MAX:
            raise ValueError(
                f"hpo.first_rung_slots = {self.first_rung_slots} and {further} trainings of"
                f" hpo.confirm_seeds make jobs wait for {waits} results, at most {_WAITS_MAX} can"
                " be planned; lower them"
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.schedule_rungs is not None and (
            self.schedule_steps is not None or self.schedule_rungs < self.n_rungs
        ):
            raise ValueError(
                f"hpo.schedule_rungs = {self.schedule_rungs} must be at least n_rungs ="
                f" {self.n_rungs} and goes without schedule_steps"
            )
        if self.schedule_steps is None:
            return self
        if self.min_steps is None:
            raise ValueError(
                f"hpo.schedule_steps = {self.schedule_steps}, but budgets are in"
                f" {self.budget_unit}; give schedule_rungs"
            )
        needed = self.min_steps * self.eta ** (self.n_rungs - 1)
        if self.schedule_steps < needed:
            raise ValueError(
                f"hpo.schedule_steps = {self.schedule_steps} ends before the top rung does, at"
                f" min_steps * eta**(n_rungs-1) = {needed}"
            )
        return self

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        if "valid_loss" not in self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"hpo.objectives = {list(self.objectives)} must hold valid_loss, and each once"
            )
        if self.pick == "cheapest" and "inference_gflop" not in self.objectives:
            raise ValueError(
                "hpo.pick = cheapest needs a cost: add inference_gflop to hpo.objectives"
            )
        return self

    @model_validator(mode="after")
    def _paths_exist(self) -> Self:
        check_paths(self.space)
        return self
