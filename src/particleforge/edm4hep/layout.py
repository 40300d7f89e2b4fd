"""Where EDM4hep versions keep things: from a member's meaning to the name of its leaf.

Inputs -> outputs: the names of a file's leaves -> the leaf of a member, of a relation or of a
vector member.

Three generations are known (podio and EDM4hep release notes, checked on files of 2021 and 2024):

===================  ========================  ============================================
what                 2021 (EDM4hep 0.3)        now (EDM4hep 0.99 - 1.x)
===================  ========================  ============================================
member               ``X.member``              ``X.member``
relation ``name``    ``X#<n>.index``           ``_X_name.index``
vector member        ``X_<n>``                 ``_X_name``
ends of a link       ``X#0``, ``X#1``          ``_X_rec``, ``_X_sim``, later ``_X_from``, ``_X_to``
===================  ========================  ============================================

RNTuple files carry the same names. The numbers of 2021 follow the order of the members in EDM4hep's
own description (one-to-many relations first) and are written down once, in ``RELATION_NUMBERS`` and
``VECTOR_NUMBERS``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from particleforge.errors import UserError

RELATION_NUMBERS = {
    ("MCParticle", "parents"): 0,
    ("Track", "trackerHits"): 0,
    ("Cluster", "hits"): 1,
    ("SimTrackerHit", "particle"): 0,
    ("SimCalorimeterHit", "contributions"): 0,
    ("CaloHitContribution", "particle"): 0,
    ("RecDqdx", "track"): 0,
    ("ReconstructedParticle", "clusters"): 0,
    ("ReconstructedParticle", "tracks"): 1,
}
VECTOR_NUMBERS = {
    ("Track", "trackStates"): 1,
    ("Track", "dxQuantities"): 2,
    ("Cluster", "subdetectorEnergies"): 2,
}
_RENAMED = {"particle": ("particle", "MCParticle")}  # relations that went by other names
_LINK_ENDS = {"from": ("_{}_from", "_{}_rec", "{}#0"), "to": ("_{}_to", "_{}_sim", "{}#1")}


@dataclass(frozen=True)
class Reference:
    """Leaves of a list of object references."""

    index: str
    collection_id: str


class Layout:
    """Finds leaves among those that a file has."""

    def __init__(self, path: str, leaves: Iterable[str]) -> None:
        self.path = path
        self.leaves = frozenset(leaves)
        self.collections = frozenset(leaf.split(".")[0] for leaf in self.leaves if "." in leaf)

    def has(self, collection: str) -> bool:
        """Tell whether the file holds a collection at all."""
        return collection in self.collections

    def any_has(self, member: str) -> bool:
        """Tell whether any collection has a member."""
        return any(leaf.endswith(f".{member}") for leaf in self.leaves)

    def member(self, collection: str, *names: str) -> str | None:
        """Return the leaf of a member that went by any of ``names``, or None."""
        return next(
            (leaf for name in names if (leaf := f"{collection}.{name}") in self.leaves), None
        )

    def require(self, collection: str, *names: str) -> str:
        """Return the leaf of a member; a missing one is a UserError."""
        leaf = self.member(collection, *names)
        if leaf is None:
            raise missing_member(self.path, collection, names, "collections")
        return leaf

    def relation(self, kind: str, collection: str, name: str) -> Reference | None:
        """Return the references of a one-to-many relation, or None.

        An example is ``("Cluster", "PandoraClusters", "hits")``.
        """
        number = RELATION_NUMBERS.get((kind, name))
        spelled = [f"_{collection}_{spelling}" for spelling in _RENAMED.get(name, (name,))]
        return self._reference((*spelled, f"{collection}#{number}"))

    def link_end(self, collection: str, end: str) -> Reference | None:
        """Return the references of one end of a link collection, or None.

        The end is ``from`` (reconstructed) or ``to`` (simulated).
        """
        return self._reference(tuple(pattern.format(collection) for pattern in _LINK_ENDS[end]))

    def vector(self, kind: str, collection: str, name: str) -> str | None:
        """Return the start of a vector member's leaves: the leaf, or what is before its dot."""
        if self.member(collection, f"{name}_begin") is None:
            return None  # and what is named like one of 2021 is something else
        number = VECTOR_NUMBERS[kind, name]
        if (
            name == "subdetectorEnergies"
            and self.member(collection, "hitContributions_begin") is None
        ):
            number -= 1  # EDM4hep 0.4 took the vector before it away
        for stem in (f"_{collection}_{name}", f"{collection}_{number}"):
            if stem in self.leaves or self.has(stem):
                return stem
        return None

    def _reference(self, stems: tuple[str, ...]) -> Reference | None:
        for stem in stems:
            if f"{stem}.index" in self.leaves and f"{stem}.collectionID" in self.leaves:
                return Reference(f"{stem}.index", f"{stem}.collectionID")
        return None


def missing_member(path: str, owner: str, names: Sequence[str], key: str) -> UserError:
    """Return the UserError for a member under none of ``names``; ``key`` is the detector's."""
    spelled = " or ".join(f"{owner}.{name}" for name in names)
    return UserError(
        f"{path}: branch {spelled} is missing; check the file and the detector's '{key}'"
    )
