"""The hyperparameter search."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import Block


class ParameterConfig(Block):
    """One dimension of the search space; its key is the dotted path of a setting, e.g. ``training.learning_rate``."""

    type: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "categorical":
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError("a categorical parameter needs choices and neither low nor high")
        elif self.choices is not None or self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"a {self.type} parameter needs low < high and no choices, got low={self.low}, high={self.high}")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log parameter needs low > 0 and no step")
        return self


class HpoConfig(Block):
    """ASHA as a static DAG: rung r has ``first_rung_slots / eta**r`` slots of ``min_steps * eta**r`` steps."""

    scheduler: Literal["asha", "none"] = Field("asha", description="none: one rung at the full budget")
    sampler: Literal["tpe", "random", "gp", "cmaes", "qmc"] = "tpe"
    first_rung_slots: int = Field(9, ge=1, description="configurations tried at the smallest budget")
    eta: int = Field(3, ge=2, description="reduction factor: the share of trials promoted is 1/eta")
    n_rungs: int = Field(3, ge=1)
    min_steps: int = Field(100, ge=1, description="optimiser steps of the first rung")
    ranks: int = Field(1, ge=1, description="DDP processes of one trial")
    include_default: bool = Field(True, description="the first configuration is the settings as configured")
    failed_fraction_max: float = Field(0.5, ge=0, le=1, description="share of failed trials from which the search is an error")
    storage_url: str | None = Field(None, description="Optuna storage; default is a journal file in the results")
    space: dict[str, ParameterConfig] = Field(default_factory=dict, description="search space, keyed by dotted path")

    @model_validator(mode="after")
    def _rungs_fit(self) -> Self:
        if self.first_rung_slots < self.eta ** (self.n_rungs - 1):
            raise ValueError(
                f"hpo.first_rung_slots = {self.first_rung_slots} leaves rung {self.n_rungs - 1} without a slot; "
                f"need at least eta**(n_rungs-1) = {self.eta ** (self.n_rungs - 1)}"
            )
        return self
