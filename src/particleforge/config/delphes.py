"""Where a Delphes file keeps things: names of branches as its card gave them."""

from pydantic import Field

from particleforge.config.base import Block


class DelphesConfig(Block):
    """Branches of a Delphes file (tree ``Delphes``), with the names that the cards of Delphes give them.

    Of alternatives, the first that the file has is read.
    """

    particles: tuple[str, ...] = Field(
        ("PileUpMix", "Particle"),
        min_length=1,
        description="alternatives; class GenParticle. With pile-up it must hold PileUpMerger/stableParticles, or pile-up has no truth",
    )
    tracks: tuple[str, ...] = Field(("Track", "EFlowTrack"), min_length=1, description="alternatives; class Track")
    clusters: tuple[str, ...] = Field(
        ("Tower",),
        min_length=1,
        description="class Tower; all of them together are the clusters. For those of the e-flow: [EFlowPhoton, EFlowNeutralHadron]",
    )
    eflow_tracks: str = Field("EFlowTrack", description="charged candidates of the baseline")
    eflow_photons: str = Field("EFlowPhoton", description="photons of the baseline")
    eflow_neutral_hadrons: str = Field("EFlowNeutralHadron", description="neutral hadrons of the baseline")
    event: str = Field("Event", description="event number and weight")
