"""Optimisation of the network."""

from typing import Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import Block, PathText

# keys of `training` that shape no result beyond rounding: where and how steps are computed, and how
# often they are saved
EXECUTION = frozenset(
    {
        *("ranks", "parallelism", "model_parallel_ranks", "accumulation_steps", "prefetch_windows"),
        *("device", "compile", "activation_checkpointing", "checkpoint_every_steps"),
    }
)


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
    regions: float = Field(
        1.0, ge=0, description="the same of jet-sized regions around the most energetic particles"
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
    max_steps: int = Field(
        2000, ge=1, description="optimiser steps of the final training; raise it to train longer"
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
    warmup_steps: int = Field(100, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    schedule_steps: int | None = Field(
        None,
        ge=1,
        description=(
            "end of a cosine schedule; default is max_steps. Fix it to continue to a larger"
            " max_steps later"
        ),
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
        """Step at which the learning-rate schedule ends; None if it never does."""
        return None if self.schedule == "constant" else self.schedule_steps or self.max_steps

    @model_validator(mode="after")
    def _schedule_covers_the_training(self) -> Self:
        if self.schedule_length is not None and self.schedule_length < self.max_steps:
            raise ValueError(
                f"training.schedule_steps = {self.schedule_steps} ends the cosine schedule, and"
                f" with it the training, before training.max_steps = {self.max_steps}"
            )
        return self
