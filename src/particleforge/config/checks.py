"""Limits of the data checks."""

from pydantic import Field

from particleforge.config.base import Block


class ChecksConfig(Block):
    """What data must keep to before anything is trained on them.

    The checks themselves are described in docs/data-checks.md.
    """

    events_min: int = Field(1, ge=0, description="events that a sample must have")
    energy_max_gev: float = Field(
        1e5,
        gt=0,
        description="largest energy or momentum of an object or particle, by absolute value",
    )
    length_max_mm: float = Field(
        1e5, gt=0, description="largest coordinate or impact parameter, by absolute value"
    )
    abs_eta_max: float = Field(15.0, gt=0, description="largest pseudorapidity, by absolute value")
    energy_closure_max: float = Field(
        1e-6,
        gt=0,
        description=(
            "largest share of an event's visible energy that is neither in targets nor counted as"
            " dropped"
        ),
    )
    drift_false_alarm_probability: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description=(
            "probability that a sample whose shards differ by chance only is refused for drift"
        ),
    )
    drift_ks_distance_max: float = Field(
        0.05,
        ge=0,
        le=1,
        description=(
            "a shard may differ this much from the rest of its sample, however significant it is;"
            " 1: no check"
        ),
    )
    sample_drift_ks_distance_max: float = Field(
        0.9,
        ge=0,
        le=1,
        description=(
            "the calorimeter's response in a sample may differ this much from that in the others;"
            " 1: no check"
        ),
    )
    normalisation_difference_max: float = Field(
        1e-3,
        gt=0,
        description=(
            "largest difference of a feature's stored mean and standard deviation from those of the"
            " shards, in the latter"
        ),
    )
