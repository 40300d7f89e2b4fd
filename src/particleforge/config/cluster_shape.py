"""Scales on which the shape of a cluster is told, in units of the calorimeters."""

import itertools
from typing import Annotated

from pydantic import Field, field_validator

from particleforge.config.base import Block

_RadiationLengths = Annotated[float, Field(gt=0, le=1000)]
_InteractionLengths = Annotated[float, Field(gt=0, le=100)]
_MoliereRadii = Annotated[float, Field(gt=0, le=1000)]


class ClusterShapeConfig(Block):
    """Depths and radii that divide a cluster's energy, in units of the calorimeters.

    Each list has the length that the columns of ``clusters`` ask for.
    """

    ecal_depth_edges_radiation_lengths: tuple[
        _RadiationLengths, _RadiationLengths, _RadiationLengths
    ] = Field(
        (5.0, 10.0, 17.0),
        description=(
            "depths behind the ECAL's inner face, along the line from the origin, between"
            " fraction_ecal_1 ... fraction_ecal_4"
        ),
    )
    hcal_depth_edges_interaction_lengths: tuple[_InteractionLengths, _InteractionLengths] = Field(
        (1.0, 2.5),
        description=(
            "depths behind the HCAL's inner face, likewise, between fraction_hcal_1 ..."
            " fraction_hcal_3"
        ),
    )
    core_radii_moliere: tuple[_MoliereRadii, _MoliereRadii, _MoliereRadii] = Field(
        (1.0, 2.0, 4.0),
        description=(
            "distances from the cluster's axis, in Moliere radii of the ECAL, of fraction_core_1"
            " ... fraction_core_3"
        ),
    )

    @field_validator(
        "ecal_depth_edges_radiation_lengths",
        "hcal_depth_edges_interaction_lengths",
        "core_radii_moliere",
    )
    @classmethod
    def _edges_rise(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if any(second <= first for first, second in itertools.pairwise(edges)):
            raise ValueError(f"must rise, got {list(edges)}")
        return edges
