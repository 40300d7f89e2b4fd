"""Split of the selected events."""

from typing import Self

from pydantic import Field, model_validator

from particleforge.config.base import Block


class SelectionConfig(Block):
    """Fractions of events per split; an event's split follows from its identity alone."""

    train_fraction: float = Field(0.8, gt=0, lt=1, description="expected share of the events in train")
    valid_fraction: float = Field(0.1, gt=0, lt=1, description="expected share of the events in valid")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="expected share of the events in test")

    @model_validator(mode="after")
    def _sum_is_one(self) -> Self:
        total = self.train_fraction + self.valid_fraction + self.test_fraction
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train_fraction + valid_fraction + test_fraction must be 1, got {total:g}")
        return self
