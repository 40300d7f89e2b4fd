"""Scans: many small trainings that answer one question, made only when they are asked for."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import Block, Name

ScanName = Literal["scaling_batch", "fine_tuning", "scaling_law"]


def _rising(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if any(low >= high for low, high in pairwise(sizes)):
        raise ValueError(f"must rise, got {list(sizes)}")
    return sizes


class ScanConfig(Block):
    """What every scan has."""

    events_seen: int = Field(
        8000,
        ge=1,
        description=(
            "events that each training sees, repetitions included; its steps follow from it"
        ),
    )
    repeats: int = Field(
        1,
        ge=1,
        le=1000,
        description="trainings of each point, from other seeds; two or more give errors",
    )
    n_validations: int = Field(5, ge=1, description="validations of each training, evenly spaced")
    warmup_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of each training's steps that warms up the learning rate",
    )


class ScalingBatchConfig(ScanConfig):
    """Loss against the global batch, for learning-rate rules and optimisers.

    All trainings see equally many events.
    """

    elements_per_batch: int = Field(
        1024, ge=64, description="global batch x1, in elements; learning rates hold there"
    )
    factors: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4, 8), min_length=1, description="global batches, as multiples of x1"
    )
    learning_rate_scalings: tuple[Literal["none", "linear", "sqrt"], ...] = Field(
        ("none", "linear", "sqrt"),
        min_length=1,
        description="rules by which the learning rate follows the batch",
    )
    learning_rates: dict[Literal["adamw", "lamb"], Annotated[float, Field(gt=0)]] = Field(
        {"adamw": 1e-3, "lamb": 1e-2},
        min_length=1,
        description="optimisers, each with its learning rate at x1",
    )

    @model_validator(mode="after")
    def _factors_rise_from_one(self) -> Self:
        _rising(self.factors)
        if self.factors[0] != 1:
            raise ValueError(
                "factors must begin with 1, which the others are compared with, got"
                f" {list(self.factors)}"
            )
        return self


class FineTuningConfig(ScanConfig):
    """Loss against the number of training events, fine-tuned and from scratch.

    Fine-tuned networks start from another detector's.
    """

    from_detector: Name | None = Field(
        None, description="detector whose trained model the fine-tuned trainings start from"
    )
    train_events: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (100, 300, 1000, 3000),
        min_length=1,
        description="training events, each set within the next",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="peak learning rate when fine-tuning; default is training.learning_rate",
    )

    @model_validator(mode="after")
    def _events_rise(self) -> Self:
        _rising(self.train_events)
        return self


class ModelSizeConfig(Block):
    """A size of the network; everything else of it is as configured in model."""

    width: int = Field(ge=4)
    n_layers: int = Field(ge=1)
    n_heads: int = Field(4, ge=1, description="must divide width")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.n_heads:
            raise ValueError(f"n_heads = {self.n_heads} must divide width = {self.width}")
        return self


class ScalingLawConfig(ScanConfig):
    """Loss against the number of training events and the size of the network.

    Each has a fitted power law.
    """

    train_events: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (100, 300, 1000, 3000),
        description="training events at the configured network, each set within the next",
    )
    model_sizes: tuple[ModelSizeConfig, ...] = Field(
        (
            ModelSizeConfig(width=8, n_layers=1),
            ModelSizeConfig(width=16, n_layers=2),
            ModelSizeConfig(width=32, n_layers=3),
            ModelSizeConfig(width=64, n_layers=4),
        ),
        description="networks trained on all training events",
    )

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        _rising(self.train_events)
        if len(set(self.model_sizes)) < len(self.model_sizes):
            raise ValueError("model_sizes holds a size twice")
        if not self.train_events and not self.model_sizes:
            raise ValueError("train_events and model_sizes are both empty; give one of them")
        return self


class ScansConfig(Block):
    """Scans, each a target of its own; none is part of an ordinary run."""

    ranks: int = Field(1, ge=1, description="processes of one training of a scan")
    scaling_batch: ScalingBatchConfig = ScalingBatchConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    scaling_law: ScalingLawConfig = ScalingLawConfig()
