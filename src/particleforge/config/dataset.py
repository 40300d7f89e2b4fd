"""Truth definition of the dataset."""

from typing import Literal

from pydantic import Field

from particleforge.config.base import Block


class DatasetConfig(Block):
    """When a particle counts as visible, and what may get lost on the way."""

    visible_fraction_min: float = Field(0.1, ge=0, le=1, description="deposited share of its energy from which a particle is visible")
    visible_charged_energy_gev: float = Field(0.5, ge=0, description="deposited energy from which a charged particle is visible")
    visible_fraction_outside_min: float = Field(
        0.5, ge=0, le=1, description="deposited share of its energy that a particle outside the calorimeters' acceptance must exceed, too"
    )
    visible_track_share_min: float = Field(0.2, gt=0, le=1, description="share of a track's hits from which a particle is visible")
    dropped_energy_fraction_max: float = Field(0.2, ge=0, le=1, description="fails a file whose targets lack more visible energy")
    dropped_objects_fraction_max: float = Field(
        0.01,
        ge=0,
        le=1,
        description="fails a file of whose tracks or clusters a larger share is left out as unusable",
    )
    on_bad_file: Literal["fail", "quarantine"] = Field("fail", description="quarantine: an unreadable file gives an empty, marked table")
    chunk_events: int = Field(100, ge=1, description="events read at a time; memory grows with it")
