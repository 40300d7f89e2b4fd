"""Collection IDs: which collection a reference means, in every generation of podio.

Inputs -> outputs: an open ROOT file -> collection ID -> name. In this order:

1. the file's table: ``podio_metadata/events___idTable``, ``events___CollectionTypeInfo``, or
   ``metadata/CollectionIDs`` (podio 0.10 - 1.x);
2. without a table (skims and merges lose the metadata) and with 32-bit IDs: since podio 0.17 an ID
   is the MurmurHash3 of the name;
3. without a table and with small IDs, which count collections in the order of their making: what
   the relations themselves imply. A relation's target has a known type, and no index may lie beyond
   its collection's rows in any event. If this leaves one collection for an ID, that is it (and no
   other ID's); else the file is refused, because a guess would be wrong truth.
"""

from collections.abc import Callable, Mapping
from typing import Any

import awkward as ak
import mmh3
import numpy as np

from particleforge.edm4hep.layout import Layout, Reference
from particleforge.edm4hep.raw_events import Array, IntArray
from particleforge.errors import UserError

EVENTS_LOOKED_AT = 1000  # of a file without table
_TABLES = (
    ("events___idTable", "m_names", "m_collectionIDs"),
    ("events___CollectionTypeInfo", "name", "collectionID"),
    ("CollectionIDs", "m_names", "m_collectionIDs"),
)
# RNTuples before podio 1.1 have the names and IDs as such
_LISTS = ("events_collectionNames", "events___idTable")
_MEMBERS_OF_TYPE = {  # members that only this type has, of those that relations point at
    "MCParticle": ("generatorStatus",),
    "Track": ("trackStates_begin",),
    "Cluster": ("iTheta",),
    "CalorimeterHit": ("cellID", "energy"),
    "ReconstructedParticle": ("goodnessOfPID",),
}
Jagged = Callable[[str, int, int], tuple[IntArray, Array]]


def collection_id(name: str) -> int:
    """Return podio's ID of a collection: the 32-bit MurmurHash3 of its name."""
    return mmh3.hash(name, signed=False)


def table_of_ids(file: Any) -> dict[int, str] | None:
    """Return collection ID -> name from whichever table this version of podio wrote, or None."""
    for tree_name in ("podio_metadata", "metadata"):
        if tree_name not in file:
            continue
        leaves = dict(file[tree_name].items(recursive=True))
        for stem, name_leaf, id_leaf in _TABLES:
            # TTree, TTree of split records, RNTuple
            for pattern in (
                f"{stem}/{{}}",
                f"{stem}/{stem}.{{}}",
                f"{stem}.{{}}",
            ):
                names, ids = (leaves.get(pattern.format(leaf)) for leaf in (name_leaf, id_leaf))
                if names is not None and ids is not None:
                    return _named(names, ids)
        if all(name in leaves for name in _LISTS):
            return _named(*(leaves[name] for name in _LISTS))
    return None


def _named(names: Any, ids: Any) -> dict[int, str]:
    """Return collection ID -> name from two leaves; IDs are signed in some versions."""
    pairs = zip(
        ak.to_list(ids.array(entry_stop=1)[0]),
        ak.to_list(names.array(entry_stop=1)[0]),
        strict=True,
    )
    return {int(number) & 0xFFFFFFFF: str(name) for number, name in pairs}


def types_of_collections(file: Any) -> dict[str, str]:
    """Return collection -> class, from ``events___CollectionTypeInfo`` where it is readable."""
    if "podio_metadata" not in file:
        return {}
    leaves, stem = dict(file["podio_metadata"].items(recursive=True)), "events___CollectionTypeInfo"
    for prefix in (f"{stem}/{stem}.", f"{stem}."):  # TTree, RNTuple
        names, types = (leaves.get(f"{prefix}{leaf}") for leaf in ("name", "dataType"))
        if names is not None and types is not None:
            return dict(
                zip(
                    ak.to_list(names.array(entry_stop=1)[0]),
                    ak.to_list(types.array(entry_stop=1)[0]),
                    strict=True,
                )
            )
    if stem in leaves and _LISTS[0] in leaves:
        return dict(
            zip(
                *(ak.to_list(leaves[name].array(entry_stop=1)[0]) for name in (_LISTS[0], stem)),
                strict=True,
            )
        )
    return {}


def implied_ids(
    layout: Layout, relations: Mapping[str, Reference], jagged: Jagged, n_events: int
) -> dict[int, str]:
    """Return collection ID -> name of a file without table.

    ``relations`` maps target type and place to references.
    """
    # ID -> (target's type, event, index) of the references
    seen: dict[int, list[tuple[str, IntArray, Array]]] = {}
    stop = min(n_events, EVENTS_LOOKED_AT)
    for place, reference in relations.items():
        counts, index = jagged(reference.index, 0, stop)
        _, ids = jagged(reference.collection_id, 0, stop)
        event, ids = np.repeat(np.arange(len(counts)), counts), ids.astype(np.int64) & 0xFFFFFFFF
        for number in np.unique(ids[index >= 0]):
            chosen = (ids == number) & (index >= 0)
            seen.setdefault(int(number), []).append(
                (place.split(":")[0], event[chosen], index[chosen])
            )
    hashed = {collection_id(name): name for name in layout.collections}
    # others are of collections that are not there any more
    if any(number in hashed for number in seen):
        return hashed
    possible = {
        number: _possible(layout, references, jagged, stop) for number, references in seen.items()
    }
    names: dict[int, str] = {}
    while settled := {number: found for number, found in possible.items() if len(found) == 1}:
        for number, found in settled.items():
            names[number] = found.pop()
            del possible[number]
        possible = {number: found - set(names.values()) for number, found in possible.items()}
    if possible or len(set(names.values())) < len(names):
        raise UserError(
            f"{layout.path}: no table of collection IDs (podio_metadata/events___idTable), and what"
            f" {sorted(possible or names)} mean does not follow from the references; use the file"
            " as podio wrote it, not a skim"
        )
    return names


def _possible(
    layout: Layout, references: list[tuple[str, IntArray, Array]], jagged: Jagged, stop: int
) -> set[str]:
    """Return the collections that all references of one ID could mean."""
    kinds = {kind for kind, _, _ in references}
    if len(kinds) > 1:
        return set()
    members = _MEMBERS_OF_TYPE[kinds.pop()]
    possible = set()
    for name in layout.collections:
        if all(layout.member(name, member) for member in members):
            try:
                counts = jagged(f"{name}.{members[0]}", 0, stop)[0]
            except UserError:  # no list of numbers per event, so no collection
                continue
            if all(np.all(index < counts[event]) for _, event, index in references):
                possible.add(name)
    return possible
