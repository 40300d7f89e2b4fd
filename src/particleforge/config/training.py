"""Optimisation of the network."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import Block, PathText

# keys of `training` that shape no result beyond rounding: where and how steps are computed, and how
# often they are saved or shown
EXECUTION = frozenset(
    {
        *("ranks", "parallelism", "model_parallel_ranks", "accumulation_steps", "prefetch_windows"),
        *("device", "compile", "activation_checkpointing", "checkpoint_every_steps"),
        "tracker",
    }
)

# lengths in events seen, and the keys that hold them in optimiser steps
STEPS_FOR = {
    "events_seen": "max_steps",
    "warmup_events": "warmup_steps",
    "schedule_events": "schedule_steps",
}


class LossConfig(Block):
    """Weights and forms of the terms of the loss; what validation reports has the default ones."""

    presence: float = Field(
        1.0, ge=0, description="binary cross-entropy: does the element host a particle"
    )
    classification: float = Field(
        1.0, ge=0, description="cross-entropy of the class, elements with a particle only"
    )
    charge: float = Field(
        0.2, ge=0, description="cross-entropy of the charge, elements with a particle only"
    )
    momentum: float = Field(
        2.0, ge=0, description="loss of the momentum corrections, elements with a particle only"
    )
    event: float = Field(
        1.0,
        ge=0,
        description="Huber loss of each event's visible px, py, pz, E in units of sqrt(E GeV)",
    )
    uncertainty: float = Field(
        1.0,
        ge=0,
        description=(
            "negative log likelihood of the corrections, with model.momentum_uncertainty only"
        ),
    )
    shares: float = Field(
        1.0,
        ge=0,
        description="divergence of each cluster's shares of energy from the true ones",
    )
    presence_focal_gamma: float = Field(
        0.0,
        ge=0,
        description="focal form of presence: power of the probability of a miss; 0: plain",
    )
    classification_focal_gamma: float = Field(0.0, ge=0, description="focal form of classification")
    momentum_form: Literal["huber", "absolute"] = "huber"
    huber_delta: float = Field(
        1.0, gt=0, description="scaled correction from which the Huber loss of momentum is linear"
    )
    uncertainty_beta: float = Field(
        0.5,
        ge=0,
        le=1,
        description="beta of the likelihood: 0 is the plain one, 1 weighs all errors alike",
    )


class TrainingConfig(Block):
    """How a network is trained; one training is one job of ``ranks`` processes.

    The global batch of a step is ``elements_per_batch``, whatever ``ranks`` and
    ``accumulation_steps`` are: they split it.
    """

    ranks: int = Field(1, ge=1, description="processes, all nodes together")
    parallelism: Literal["ddp", "zero2", "fsdp", "tensor", "pipeline"] = Field(
        "ddp",
        description=(
            "how weights, gradients, moments and events lie on the ranks; see docs/distributed.md"
        ),
    )
    model_parallel_ranks: int = Field(
        2, ge=2, description="ranks that share one network, with parallelism tensor or pipeline"
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        description=(
            "optimiser steps of the final training; raise it to train longer; default is 2000"
            " unless events_seen is given"
        ),
    )
    events_seen: int | None = Field(
        None,
        ge=1,
        description=(
            "instead of max_steps: events that the final training sees, repetitions included,"
            " whatever its batches are"
        ),
    )
    valid_every_steps: int = Field(200, ge=1, description="steps between validations")
    checkpoint_every_steps: int = Field(200, ge=1, description="steps between checkpoints")
    log_every_steps: int = Field(20, ge=1, description="steps between rows of the metrics")
    elements_per_batch: int = Field(
        8192,
        ge=64,
        description="element budget of a global batch (all ranks together), padding included",
    )
    accumulation_steps: int = Field(
        1,
        ge=1,
        description="parts in which a rank computes its share of a batch, one after another",
    )
    max_train_events: int | None = Field(
        None, ge=1, description="train on so many events of the train split only, chosen by seed"
    )
    shuffle_shards: int = Field(
        8,
        ge=1,
        description=(
            "shards of a window, among which events are shuffled; more, if they hold fewer than 16"
            " batches"
        ),
    )
    prefetch_windows: int = Field(
        1,
        ge=0,
        description=(
            "windows that a thread reads ahead; a rank holds its own events of so many windows"
            " more; 0: none"
        ),
    )
    optimiser: Literal["adamw", "lamb"] = "adamw"
    learning_rate: float = Field(
        1e-3, gt=0, description="peak of the schedule, at a batch of reference_elements_per_batch"
    )
    learning_rate_scaling: Literal["none", "linear", "sqrt"] = Field(
        "none",
        description="how learning_rate follows elements_per_batch / reference_elements_per_batch",
    )
    reference_elements_per_batch: int = Field(
        8192, ge=64, description="batch at which learning_rate holds"
    )
    weight_decay: float = Field(0.01, ge=0)
    beta2: float = Field(0.98, gt=0, lt=1)
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description=(
            "steps over which the learning rate rises to its peak; default is 100 unless"
            " warmup_events is given"
        ),
    )
    warmup_events: int | None = Field(
        None, ge=0, description="instead of warmup_steps: events seen meanwhile"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    schedule_steps: int | None = Field(
        None,
        ge=1,
        description=(
            "end of a cosine schedule; default is max_steps. Fix it to continue to a larger"
            " max_steps later"
        ),
    )
    schedule_events: int | None = Field(
        None,
        ge=1,
        description="the same where the length is in events; default is events_seen",
    )
    gradient_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="exponential moving average of the weights; 0 switches it off"
    )
    early_stopping_patience: int = Field(
        0, ge=0, description="validations without improvement before stopping; 0: never"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="autocast type of the forward pass"
    )
    device: Literal["auto", "cpu", "cuda", "xpu", "hpu", "mps"] = Field(
        "auto",
        description="auto: the accelerator that torch finds, else cpu; cuda is also AMD's ROCm",
    )
    compile: bool = Field(
        False, description="compile the network with torch.compile; needs a C++ compiler"
    )
    activation_checkpointing: bool = Field(
        False, description="compute each layer again in the backward pass, to save memory"
    )
    tracker: Literal["tensorboard", "mlflow"] = Field(
        "tensorboard",
        description=(
            "where the final training can be watched: event files, or a run of MLflow besides, at"
            " MLFLOW_TRACKING_URI or in train/work/mlflow.db"
        ),
    )
    init_from: PathText | None = Field(
        None,
        description=(
            "best.pt or checkpoint of another training, also of another detector, whose weights"
            " this one starts from"
        ),
    )
    loss: LossConfig = LossConfig()

    @property
    def schedule_length(self) -> int | None:
        """Step at which the learning-rate schedule ends; None if it never does.

        Where the length is in events, the number of events seen by then.
        """
        if self.schedule == "constant":
            return None
        return self.schedule_steps or self.schedule_events or self.length

    @property
    def length(self) -> int:
        """Length of the final training, in steps or in events seen."""
        return self.max_steps or self.events_seen or 0

    @property
    def warmup(self) -> int:
        """Length of the warm-up, in steps or in events seen."""
        return self.warmup_steps or self.warmup_events or 0

    @property
    def in_steps(self) -> bool:
        """Whether all lengths are in steps, as a training needs them.

        :func:`particleforge.training.budget.with_steps` makes them so.
        """
        return all(getattr(self, events) is None for events in STEPS_FOR)

    @model_validator(mode="before")
    @classmethod
    def _by_default(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        for one, other, default in (
            ("max_steps", "events_seen", 2000),
            ("warmup_steps", "warmup_events", 100),
        ):
            if filled.get(one) is None and filled.get(other) is None:
                filled[one] = default
        return filled

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        for one, other in (
            ("max_steps", "events_seen"),
            ("warmup_steps", "warmup_events"),
            ("schedule_steps", "events_seen"),
            ("schedule_events", "max_steps"),
        ):
            values = getattr(self, one), getattr(self, other)
            if None not in values:
                raise ValueError(
                    f"training.{one} = {values[0]} and training.{other} = {values[1]} are given;"
                    " keep one of them and take the other back with null"
                )
        return self

    @model_validator(mode="after")
    def _schedule_covers_the_training(self) -> Self:
        if self.schedule_length is not None and self.schedule_length < self.length:
            end, length = (
                ("schedule_steps", "max_steps")
                if self.events_seen is None
                else ("schedule_events", "events_seen")
            )
            raise ValueError(
                f"training.{end} = {self.schedule_length} ends the cosine schedule, and with it"
                f" the training, before training.{length} = {self.length}"
            )
        return self
