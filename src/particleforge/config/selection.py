"""Split of the selected events, and what the selected files leave out."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from particleforge.config.base import Block
from particleforge.config.skim import check_patterns


class SelectionConfig(Block):
    """Fractions of events per split, and the columns of the selected files.

    An event's split follows from its identity alone.
    """

    train_fraction: float = Field(
        0.8, gt=0, lt=1, description="expected share of the events in train"
    )
    valid_fraction: float = Field(
        0.1, gt=0, lt=1, description="expected share of the events in valid"
    )
    test_fraction: float = Field(
        0.1, gt=0, lt=1, description="expected share of the events in test"
    )

    drop_columns: tuple[str, ...] = Field(
        (),
        description=(
            "columns that selected files leave out, e.g. [track_links, 'tracks.d*']; those that"
            " later stages read are refused"
        ),
    )

    @field_validator("drop_columns")
    @classmethod
    def _columns_exist(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        check_patterns(patterns)
        return patterns

    @model_validator(mode="after")
    def _sum_is_one(self) -> Self:
        total = self.train_fraction + self.valid_fraction + self.test_fraction
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"train_fraction + valid_fraction + test_fraction must be 1, got {total:g}"
            )
        return self
