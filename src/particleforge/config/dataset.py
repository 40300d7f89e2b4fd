"""Truth definition of the dataset."""

from typing import Literal

from pydantic import Field

from particleforge.config.base import Block


class DatasetConfig(Block):
    """What an event's elements are, which particles count as visible, and what may get lost."""

    truth: Literal["required", "none"] = Field(
        "required",
        description=(
            "none: neither particles nor links are read, as real data have none; such a dataset"
            " can be reconstructed, and nothing else"
        ),
    )
    calorimeter_elements: Literal["clusters", "hits"] = Field(
        "clusters",
        description=(
            "what stands beside the tracks as elements; hits: each calorimeter hit is a cluster of"
            " its own"
        ),
    )
    hit_energy_min_mev: float = Field(
        0.0,
        ge=0,
        description=(
            "calibrated energy from which a hit is an element, if hits are; what lies below is a"
            " deposit without element"
        ),
    )
    visible_fraction_min: float = Field(
        0.1,
        ge=0,
        le=1,
        description="deposited share of its energy from which a particle is visible",
    )
    visible_charged_energy_gev: float = Field(
        0.5, ge=0, description="deposited energy from which a charged particle is visible"
    )
    visible_fraction_outside_min: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "deposited share of its energy that a particle outside the calorimeters' acceptance"
            " must exceed, too"
        ),
    )
    visible_track_share_min: float = Field(
        0.2, gt=0, le=1, description="share of a track's hits from which a particle is visible"
    )
    visible_energy_fraction_min: float = Field(
        0.1,
        ge=0,
        le=1,
        description=(
            "fails a file of whose energy, without neutrinos and what flies past the calorimeters,"
            " less is visible"
        ),
    )
    faint_energy_fraction_max: float = Field(
        0.25,
        ge=0,
        le=1,
        description=(
            "fails a file of whose energy, without neutrinos and what flies past the calorimeters,"
            " a larger share is of particles that left too little to be seen"
        ),
    )
    orphan_energy_fraction_max: float = Field(
        0.1,
        ge=0,
        le=1,
        description=(
            "fails a file of whose calorimeter energy that links give to particles a larger share"
            " is of particles for which no truth particle stands"
        ),
    )
    dropped_energy_fraction_max: float = Field(
        0.2, ge=0, le=1, description="fails a file whose targets lack more visible energy"
    )
    dropped_objects_fraction_max: float = Field(
        0.01,
        ge=0,
        le=1,
        description=(
            "fails a file of whose tracks or clusters (or hits) a larger share, and more than one,"
            " is left out as unusable; 0 allows none"
        ),
    )
    empty_events_fraction_max: float = Field(
        0.9,
        ge=0,
        le=1,
        description="fails a file of whose events a larger share has no element at all",
    )
    track_pt_deviation_max: float = Field(
        0.1,
        gt=0,
        description=(
            "fails a file whose tracks have, in the median, a pT that differs by a larger share"
            " from that of their particles (or candidates): another magnetic field"
        ),
    )
    on_bad_file: Literal["fail", "quarantine"] = Field(
        "fail", description="quarantine: an unreadable file gives an empty, marked table"
    )
    chunk_events: int = Field(100, ge=1, description="events read at a time; memory grows with it")

    @property
    def reads_truth(self) -> bool:
        """Whether particles and links are read, and asked for."""
        return self.truth == "required"
