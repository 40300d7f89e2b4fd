"""Architecture of the network."""

from typing import Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import Block


class ModelConfig(Block):
    """Network over the elements of an event."""

    backbone: Literal["attention", "windowed_attention", "gnn_lsh"] = Field(
        "attention",
        description=(
            "how elements learn of each other: all of all, within windows, within bins; see"
            " docs/model.md"
        ),
    )
    width: int = Field(64, ge=4, description="size of an element's embedding")
    n_layers: int = Field(3, ge=1, description="layers of the backbone")
    n_heads: int = Field(
        4, ge=1, description="attention heads, or kernels of gnn_lsh; must divide width"
    )
    feedforward_factor: float = Field(
        2.0, gt=0, description="hidden size of a block's feed-forward net over width"
    )
    local_attention: bool = Field(
        True,
        description=(
            "penalise attention (or kernels) by angular distance, each head with a range of its own"
        ),
    )
    window_elements: int = Field(
        64,
        ge=1,
        description="windowed_attention: elements per window; each attends to three windows",
    )
    bin_elements: int = Field(128, ge=1, description="gnn_lsh: elements per bin")
    hash_directions: int = Field(
        8, ge=1, description="gnn_lsh: random directions; two hash buckets each"
    )
    messages_per_layer: int = Field(2, ge=1, description="gnn_lsh: rounds of messages per layer")
    head_layers: int = Field(2, ge=1, description="layers of each output head")
    momentum_uncertainty: bool = Field(
        False, description="also predict the uncertainty of each momentum correction"
    )
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["gelu", "relu", "silu"] = "gelu"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.n_heads:
            raise ValueError(
                f"model.n_heads = {self.n_heads} must divide model.width = {self.width}"
            )
        return self
