"""Where a Delphes file keeps things: names of branches as its card gave them."""

from pydantic import Field

from particleforge.config.base import Block
from particleforge.config.collections import Names


class DelphesConfig(Block):
    """Branches of a Delphes file (tree ``Delphes``), named as in the cards of Delphes.

    A name, or alternatives of which the first that the file has is read; A + B are read as one.
    """

    particles: Names = Field(
        ("PileUpMix", "Particle"),
        min_length=1,
        description=(
            "class GenParticle. With pile-up it must hold PileUpMerger/stableParticles, or pile-up"
            " has no truth"
        ),
    )
    tracks: Names = Field(("Track", "EFlowTrack"), min_length=1, description="class Track")
    clusters: Names = Field(
        ("Tower", "EFlowPhoton + EFlowNeutralHadron"), min_length=1, description="class Tower"
    )
    eflow_tracks: str = Field(
        "EFlowTrack", description="charged candidates of the baseline; class Track"
    )
    eflow_photons: str = Field("EFlowPhoton", description="photons of the baseline; class Tower")
    eflow_neutral_hadrons: str = Field(
        "EFlowNeutralHadron", description="neutral hadrons of the baseline; class Tower"
    )
    eflow_candidates: str = Field(
        "ParticleFlowCandidate",
        description=(
            "all candidates of the baseline, where it is not kept in the three above; class of that"
            " name"
        ),
    )
    event: str = Field("Event", description="event number and weight")
