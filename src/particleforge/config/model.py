"""Architecture of the network."""

from typing import Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import Block


class ModelConfig(Block):
    """Network over the elements of an event."""

    backbone: Literal["attention"] = Field("attention", description="how the elements of an event learn of each other; see docs/model.md")
    width: int = Field(64, ge=4, description="size of an element's embedding")
    n_layers: int = Field(3, ge=1, description="transformer blocks")
    n_heads: int = Field(4, ge=1, description="attention heads; must divide width")
    feedforward_factor: float = Field(2.0, gt=0, description="hidden size of a block's feed-forward net over width")
    local_attention: bool = Field(True, description="penalise attention by angular distance, each head with a range of its own")
    head_layers: int = Field(2, ge=1, description="layers of each output head")
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["gelu", "relu", "silu"] = "gelu"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.n_heads:
            raise ValueError(f"model.n_heads = {self.n_heads} must divide model.width = {self.width}")
        return self
