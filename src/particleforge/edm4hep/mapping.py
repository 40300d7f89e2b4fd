"""Which of a file's collections mean what: the detector's branch map applied to one file.

Inputs -> outputs: the leaves of a file (``Layout``) and the detector's ``collections`` ->
``BranchMap``, which names for each meaning the collections that are there, after alternatives are
settled (the first found wins).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from particleforge.config.collections import (
    CollectionsConfig,
    Names,
    alternatives,
    first_name,
    spelled,
)
from particleforge.edm4hep.layout import Layout
from particleforge.errors import UserError

SYSTEMS = ("ecal_hits", "hcal_hits", "other_hits")  # in the order of RawEvents.hits' column system


def found(layout: Layout, names: Names) -> tuple[str, ...]:
    """Return the collections of the first alternative of which the file has any.

    Empty if it has none.
    """
    for together in alternatives(names):
        if there := tuple(name for name in together if layout.has(name)):
            return there
    return ()


@dataclass(frozen=True)
class BranchMap:
    """Collections of one file by meaning.

    ``hits`` tells each collection's calorimeter (0 ECAL, 1 HCAL, 2 other).
    """

    particles: str
    particle_aliases: tuple[str, ...]
    tracks: tuple[str, ...]
    track_state_at_ip: tuple[int, ...]
    dqdx: tuple[str, ...]
    clusters: tuple[str, ...]
    candidates: tuple[str, ...]
    hits: dict[str, int]
    hit_links: tuple[str, ...]
    cluster_links: tuple[str, ...]
    track_links: tuple[str, ...]
    hit_sim_links: tuple[str, ...]
    tracker_hit_sim_links: tuple[str, ...]
    candidate_links: tuple[str, ...]

    @classmethod
    def of(cls, layout: Layout, names: CollectionsConfig) -> Self:
        """Settle the alternatives for one file."""
        tracks = found(layout, names.tracks)
        dqdx = found(layout, names.dqdx or " + ".join(f"{name}_dQdx" for name in tracks))
        simulated = layout.any_has("contributions_begin") and layout.any_has("stepPosition.x")
        simulated_in_tracker = layout.any_has("pathLength")
        hits = {
            collection: system
            for system, key in enumerate(SYSTEMS)
            for entry in getattr(names, key)
            for collection in found(layout, entry)
        }
        return cls(
            particles=next(iter(found(layout, names.particles)), first_name(names.particles)),
            particle_aliases=names.particle_aliases,
            tracks=tracks,
            track_state_at_ip=names.track_state_at_ip,
            dqdx=dqdx,
            clusters=found(layout, names.clusters),
            candidates=found(layout, names.candidates),
            hits=hits,
            hit_links=found(layout, names.hit_links),
            cluster_links=found(layout, names.cluster_links),
            track_links=found(layout, names.track_links),
            hit_sim_links=tuple(
                name for name in names.hit_sim_links if simulated and layout.has(name)
            ),
            tracker_hit_sim_links=tuple(
                name
                for name in names.tracker_hit_sim_links
                if simulated_in_tracker and layout.has(name)
            ),
            candidate_links=found(layout, names.candidate_links),
        )

    def without_truth(self) -> Self:
        """Return the map without particles and links, as if the file had none."""
        return replace(
            self,
            particles="",
            particle_aliases=(),
            hit_links=(),
            cluster_links=(),
            track_links=(),
            hit_sim_links=(),
            tracker_hit_sim_links=(),
            candidate_links=(),
        )

    @property
    def has_truth(self) -> bool:
        """Tell whether anything links what was reconstructed to particles."""
        hits = self.hits and (self.hit_links or self.hit_sim_links)
        tracks = self.tracks and (self.track_links or self.tracker_hit_sim_links)
        return bool(
            hits
            or tracks
            or (self.clusters and self.cluster_links)
            or (self.candidates and self.candidate_links)
        )

    @property
    def linked_hits(self) -> bool:
        """Tell whether there are hits and something that says which particles left them."""
        return bool(self.hits and (self.hit_links or self.hit_sim_links))


def require_usable(layout: Layout, chosen: BranchMap, names: CollectionsConfig) -> None:
    """Refuse, with a UserError, a file from which no truth can be built, naming what it lacks."""
    _refuse_other_forms(layout, names)
    if not found(layout, names.particles):
        raise UserError(
            f"{layout.path}: no collection {spelled(names.particles)}; name that of type MCParticle"
            " in the detector's 'collections.particles' (particleforge inspect lists all)"
        )
    layout.require(chosen.particles, "PDG")
    if layout.relation("MCParticle", chosen.particles, "parents") is None:
        raise UserError(
            f"{layout.path}: branch _{chosen.particles}_parents.index is missing; truth needs the"
            " particles' parents"
        )
    _require_elements(layout, chosen, names)
    if not chosen.has_truth:
        wanted = ", ".join(
            (*names.hit_links, *names.cluster_links, *names.track_links, *names.candidate_links)
        )
        raise UserError(
            f"{layout.path}: no truth link of what the file holds to particles (known: {wanted});"
            " name one in the detector's 'collections' (particleforge inspect lists all), or keep"
            " them when reconstructing"
        )


def require_elements(layout: Layout, chosen: BranchMap, names: CollectionsConfig) -> None:
    """Refuse, with a UserError, a file that has nothing to reconstruct events from."""
    _refuse_other_forms(layout, names, ("tracks", "clusters", "candidates"))
    if not chosen.hits:
        _require_elements(layout, chosen, names)


def _require_elements(layout: Layout, chosen: BranchMap, names: CollectionsConfig) -> None:
    if not chosen.tracks and not chosen.clusters and not chosen.linked_hits:
        wanted = f"neither {spelled(names.tracks)} nor {spelled(names.clusters)} is there"
        raise UserError(
            f"{layout.path}: {wanted}; correct the detector's 'collections' (particleforge inspect"
            " lists what the file holds)"
        )


def _refuse_other_forms(
    layout: Layout,
    names: CollectionsConfig,
    keys: Sequence[str] = ("particles", "tracks", "clusters", "candidates"),
) -> None:
    """Refuse a map's name of what is no collection of split objects: it would count as missing."""
    for key in keys:
        if not found(layout, getattr(names, key)):
            for name in itertools.chain(*alternatives(getattr(names, key))):
                if name in layout.leaves:
                    raise UserError(
                        f"{layout.path}: {name} is stored as whole objects; write the file with"
                        " podio, or its branches split"
                    )
                if layout.has(f"{name}_objIdx"):
                    raise UserError(
                        f"{layout.path}: {name} is a subset collection, a list of some objects of"
                        f" another; name that one in the detector's 'collections.{key}'"
                    )
