"""Where EDM4hep files keep things: the names of their collections, with alternatives."""

from pydantic import Field

from particleforge.config.base import Block, is_empty

# of a collection: alternatives of which the first found wins; 'A + B' are read together
Names = str | tuple[str, ...]


def alternatives(names: Names) -> tuple[tuple[str, ...], ...]:
    """Return the alternatives, each as the collections that are read together."""
    return tuple(
        tuple(part.strip() for part in name.split("+"))
        for name in ((names,) if isinstance(names, str) else names)
    )


def spelled(names: Names) -> str:
    """Return the alternatives in words, for messages."""
    return " or ".join(" + ".join(together) for together in alternatives(names))


def first_name(names: Names) -> str:
    """Return the preferred collection, under which the simulation writes."""
    return alternatives(names)[0][0]


class CollectionsConfig(Block):
    """Names of the EDM4hep collections; of alternatives the first in the file is read.

    A + B are read as one.
    """

    particles: Names = Field(
        ("MCParticles", "MCParticle", "MCParticlesSkimmed"),
        description="the last two are those of converted LCIO files, full and reduced",
    )
    particle_aliases: tuple[str, ...] = Field(
        ("MCParticle",),
        description=(
            "collections that references may name though they mean particles (converted LCIO"
            " files do)"
        ),
    )
    tracks: Names = "SiTracks_Refitted"
    track_state_at_ip: tuple[int, ...] = Field(
        (1,),
        min_length=1,
        exclude_if=lambda locations: locations == (1,),
        description=(
            "location of the track state to use, the first that a track has; Delphes in EDM4hep has"
            " one state, often at location 0"
        ),
    )
    event_weight_entry: int | None = Field(
        None,
        ge=0,
        exclude_if=lambda entry: entry is None,
        description=(
            "entry of EventHeader.weights that is an event's weight, counted from 0; null:"
            " EventHeader.weight, or the first entry where that is 0 in every event"
        ),
    )
    dqdx: Names = Field(
        (),
        exclude_if=is_empty,
        description=(
            "specific ionisation beside the tracks, where they carry none; empty: <tracks>_dQdx"
        ),
    )
    clusters: Names = "PandoraClusters"
    candidates: Names = "PandoraPFOs"
    ecal_hits: tuple[Names, ...] = Field(
        ("ECALBarrel", "ECALEndcap", "ECALOther"),
        description="all are read; an entry may be alternatives",
    )
    hcal_hits: tuple[Names, ...] = ("HCALBarrel", "HCALEndcap", "HCALOther")
    other_hits: tuple[Names, ...] = ("MUON",)
    hit_links: tuple[str, ...] = Field(
        ("CalohitMCTruthLink", "CaloHitMCParticleLinks"),
        description="alternatives, the first that exists is read",
    )
    cluster_links: tuple[str, ...] = Field(
        ("ClusterMCTruthLink", "ClusterMCParticleLinks"), description="alternatives"
    )
    track_links: tuple[str, ...] = Field(
        ("SiTracksMCTruthLink", "SiTracksMCParticleLinks"), description="alternatives"
    )
    hit_sim_links: tuple[str, ...] = Field(
        (),
        exclude_if=is_empty,
        description=(
            "links of calorimeter hits to simulated ones; all are read, where no hit_links exist"
        ),
    )
    tracker_hit_sim_links: tuple[str, ...] = Field(
        (),
        exclude_if=is_empty,
        description=(
            "links of tracker hits to simulated ones; all are read, where no track_links exist"
        ),
    )
    candidate_links: tuple[str, ...] = Field(
        (),
        exclude_if=is_empty,
        description=(
            "alternatives; links of candidates to particles, where their tracks or clusters have"
            " none"
        ),
    )
