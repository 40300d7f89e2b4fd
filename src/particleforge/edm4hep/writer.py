"""Write EDM4hep files: collections of flat arrays, chunk by chunk, into ROOT RNTuples.

Chunks of events, each a mapping of collection names to ``Collection`` (flat arrays over the chunk's
events) -> a ROOT file with

* ``events``: one entry per event, the fields described in ``datamodel``;
* ``podio_metadata``: ``events___idTable`` (m_names, m_collectionIDs),
  ``events___CollectionTypeInfo`` and the versions;
* ``metadata``: ``GPStringKeys`` / ``GPStringValues`` with the provenance as JSON under
  PROVENANCE_KEY.

RNTuple is used because nested records give the leaf names of EDM4hep (``MCParticles.vertex.x``);
uproot reads every leaf with ``file["events"]["MCParticles.vertex.x"].array()``. A collection's ID
is podio's: MurmurHash3 of its name.

Invariants: memory holds one chunk; the same chunks and provenance give the same bytes: the file's
UUID is a hash of the provenance, its dates are fixed, its internal name does not depend on the
path. The file appears under its name only when complete.
"""

import datetime
import hashlib
import json
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from awkward.contents import Content, ListOffsetArray, NumpyArray, RecordArray
from awkward.index import Index64
from numpy.typing import NDArray
from uproot.writing import _cascade, _cascadentuple, _cascadetree, writable

from particleforge.artefacts import atomic_output
from particleforge.edm4hep import datamodel
from particleforge.edm4hep.datamodel import TYPES, USER_FLOATS, DataType
from particleforge.edm4hep.identities import collection_id

PROVENANCE_KEY = "particleforge_provenance"
HEADER = "EventHeader"
_COMPRESSION_LEVEL = 3
_MODULES_WITH_CLOCK = (_cascade, _cascadentuple, _cascadetree, writable)

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Relation:
    """References of a collection's rows to rows of another, or of several others.

    ``index`` counts flat rows of the chunk in the target, -1 for none. One-to-many relations have
    ``counts``, entries per row of the collection. ``which`` picks the target of each entry where
    there are several. Entries of a relation without targets are all -1.
    """

    targets: tuple[str, ...]
    index: Ints
    counts: Ints | None = None
    which: Ints | None = None


@dataclass(frozen=True)
class References:
    """References of a collection's rows to rows of collections that another file holds.

    ``index`` counts within the event; ``counts`` are entries per row of the collection.
    """

    counts: Ints
    index: Ints
    collection_id: Ints


@dataclass(frozen=True)
class Vector:
    """A vector member: ``counts`` entries per row of the collection.

    Values flat, or by name for components.
    """

    counts: Ints
    values: NDArray[Any] | Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Collection:
    """One collection of a chunk; rows ordered by ``event`` (0 ... n_events - 1).

    Members not given are 0, relations not given empty.
    """

    event: Ints
    members: Mapping[str, NDArray[Any]]
    relations: Mapping[str, Relation | References] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True)
class UserFloats:
    """One collection of a chunk that is a number per row (``datamodel.USER_FLOATS``)."""

    event: Ints
    values: NDArray[Any]


@dataclass(frozen=True)
class Copy:
    """One collection of a chunk as another file has it: its fields, lists per event each."""

    fields: Mapping[str, Content]


@dataclass(frozen=True)
class Chunk:
    """Consecutive events."""

    n_events: int
    collections: Mapping[str, Collection | UserFloats | Copy]


def write_edm4hep(
    path: Path,
    types_of: Mapping[str, str],
    chunks: Iterable[Chunk],
    provenance: Mapping[str, Any],
    *,
    ids: Mapping[str, int] | None = None,
) -> None:
    """Write a file.

    ``types_of`` gives the EDM4hep type of each collection, every chunk has all of them. ``ids``
    gives by name the IDs of copied collections, and of those that are referred to but not in the
    file.

    ``chunks`` is consumed one by one. The provenance becomes part of the file and must not depend
    on time or place.
    """
    made = json.dumps(provenance, sort_keys=True)
    identity = uuid.UUID(bytes=hashlib.blake2b(made.encode(), digest_size=16).digest())
    with (
        _fixed_clock(),
        atomic_output(path) as temporary,
        open(temporary, "w+b") as handle,  # an open handle: uproot would store the path's name
        uproot.recreate(
            handle, uuid_function=lambda: identity, compression=uproot.ZSTD(_COMPRESSION_LEVEL)
        ) as file,
    ):
        for number, chunk in enumerate(chunks):
            fields = _to_fields(chunk, types_of)
            if number == 0:
                file.mkrntuple("events", fields)
            else:
                file["events"].extend(fields)
        file.mkrntuple("podio_metadata", _podio_metadata(types_of, ids or {}))
        file.mkrntuple(
            "metadata", _one_entry({"GPStringKeys": [PROVENANCE_KEY], "GPStringValues": [[made]]})
        )


def event_headers(
    run_number: int, event_numbers: Ints, weights: NDArray[np.floating] | None = None
) -> Collection:
    """Return the EventHeader collection of events with these numbers.

    The time stamp is 0, weights default to 1.
    """
    n_events = len(event_numbers)
    return Collection(
        np.arange(n_events),
        {
            "eventNumber": event_numbers,
            "runNumber": np.full(n_events, run_number),
            "weight": np.ones(n_events) if weights is None else weights,
        },
    )


def _to_fields(chunk: Chunk, types_of: Mapping[str, str]) -> ak.Array:
    """Return the chunk as one record array with all fields of the file, in a fixed order."""
    starts = {
        name: _offsets_of_events(collection.event, chunk.n_events)
        for name in types_of
        if not isinstance(collection := chunk.collections[name], Copy)
    }
    fields: dict[str, Content] = {}
    for name, type_name in types_of.items():
        collection = chunk.collections[name]
        if isinstance(collection, Copy):
            fields |= collection.fields
            continue
        if isinstance(collection, UserFloats):
            assert type_name == USER_FLOATS, f"{type_name} is no user data"
            values = np.asarray(collection.values).astype(np.float32, copy=False)
            fields[name] = _list(starts[name], NumpyArray(values))
            continue
        data_type = TYPES[type_name]
        unknown = (set(collection.members) - set(data_type.members)) | (
            set(collection.relations) - {*data_type.to_one, *data_type.to_many}
        )
        assert not unknown, f"{type_name} has no {sorted(unknown)}"
        members, side_lists = _members_and_lists(name, collection, data_type, starts)
        fields[name] = _list(starts[name], _record(members))
        fields |= side_lists
    return ak.Array(RecordArray(list(fields.values()), list(fields), length=chunk.n_events))


def _members_and_lists(
    name: str, collection: Collection, data_type: DataType, starts: Mapping[str, Ints]
) -> tuple[dict[str, NDArray[Any]], dict[str, Content]]:
    """Return the members of a collection with begins and ends, and the lists beside it."""
    n_rows, offsets = len(collection.event), starts[name]
    members: dict[str, NDArray[Any]] = {}
    for member, dtype in data_type.members.items():
        given = collection.members.get(member)
        members[member] = (
            np.zeros(n_rows, dtype)
            if given is None
            else np.asarray(given).astype(dtype, copy=False)
        )
    lists: dict[str, Content] = {}
    for relation in data_type.to_many:
        counts, references = _references(collection, relation, starts)
        begins, ends, outer = _slices(counts, offsets)
        members |= {f"{relation}_begin": begins, f"{relation}_end": ends}
        lists[f"_{name}_{relation}"] = _list(outer, references)
    for relation in data_type.to_one:
        _, references = _references(collection, relation, starts, one=True)
        lists[f"_{name}_{relation}"] = _list(offsets, references)
    for vector, dtypes in data_type.vectors.items():
        given_vector = collection.vectors.get(
            vector,
            Vector(np.zeros(n_rows, np.int64), {} if isinstance(dtypes, Mapping) else np.zeros(0)),
        )
        begins, ends, outer = _slices(given_vector.counts, offsets)
        members |= {f"{vector}_begin": begins, f"{vector}_end": ends}
        lists[f"_{name}_{vector}"] = _list(outer, _vector_content(given_vector, dtypes))
    return members, lists


def _references(
    collection: Collection, name: str, starts: Mapping[str, Ints], *, one: bool = False
) -> tuple[Ints, Content]:
    """Return the counts per row and the (index, collectionID) entries of a relation.

    Indices are within the event.
    """
    n_rows = len(collection.event)
    relation = collection.relations.get(name)
    if isinstance(relation, References):
        index = np.asarray(relation.index).astype(np.int32)
        identity = np.asarray(relation.collection_id).astype(np.uint32)
        return relation.counts, _record({"index": index, "collectionID": identity})
    if relation is None:
        n_entries = n_rows if one else 0
        index, identity = np.full(n_entries, -1, np.int32), np.zeros(n_entries, np.uint32)
        return np.full(n_rows, int(one)), _record({"index": index, "collectionID": identity})
    counts = np.ones(n_rows, np.int64) if relation.counts is None else relation.counts
    event = np.repeat(collection.event, counts)
    which = np.zeros(len(relation.index), np.int64) if relation.which is None else relation.which
    if not relation.targets:
        return counts, _record(
            {
                "index": np.full(len(event), -1, np.int32),
                "collectionID": np.zeros(len(event), np.uint32),
            }
        )
    first = np.stack([starts[target] for target in relation.targets])[which, event]
    exists = relation.index >= 0
    identity = np.array([collection_id(target) for target in relation.targets], np.uint32)[which]
    index = np.where(exists, relation.index - first, -1).astype(np.int32)
    return counts, _record(
        {"index": index, "collectionID": np.where(exists, identity, 0).astype(np.uint32)}
    )


def _vector_content(vector: Vector, dtypes: str | Mapping[str, str]) -> Content:
    """Return the flat entries of a vector member."""
    if isinstance(dtypes, str):
        return NumpyArray(np.asarray(vector.values).astype(dtypes, copy=False))
    assert isinstance(vector.values, Mapping)
    n_entries = int(vector.counts.sum())
    given = vector.values
    return _record(
        {
            name: np.asarray(given[name]).astype(d) if name in given else np.zeros(n_entries, d)
            for name, d in dtypes.items()
        }
    )


def _slices(
    counts: Ints, event_offsets: Ints
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], Ints]:
    """Return begin and end of each row's entries in its event, and the entries' offsets.

    The offsets are those of the events.
    """
    flat = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=flat[1:])
    outer = flat[event_offsets]
    base = np.repeat(outer[:-1], np.diff(event_offsets))
    return (flat[:-1] - base).astype(np.uint32), (flat[1:] - base).astype(np.uint32), outer


def _offsets_of_events(event: Ints, n_events: int) -> NDArray[np.int64]:
    """Return where each event's rows start and end; rows must be ordered by event."""
    assert np.all(np.diff(event) >= 0), "rows must be ordered by event"
    return np.searchsorted(event, np.arange(n_events + 1))


def _list(offsets: Ints, content: Content) -> Content:
    return ListOffsetArray(Index64(np.asarray(offsets, np.int64)), content)


def _record(members: Mapping[str, NDArray[Any]]) -> Content:
    """Return a record; dotted names become nested records."""
    tree: dict[str, Any] = {}
    for name, values in members.items():
        outer, _, inner = name.partition(".")
        if inner:
            tree.setdefault(outer, {})[inner] = values
        else:
            tree[outer] = values
    contents = [
        _record(part) if isinstance(part, dict) else NumpyArray(np.ascontiguousarray(part))
        for part in tree.values()
    ]
    return RecordArray(contents, list(tree))


def _one_entry(content: Mapping[str, Any]) -> ak.Array:
    return ak.Array([dict(content)])


def _podio_metadata(types_of: Mapping[str, str], ids: Mapping[str, int]) -> ak.Array:
    """Return the metadata by which readers find collections: names, IDs and types.

    As where podio writes some of a frame's collections, the table of IDs names the others, too, and
    the list of types does not.
    """
    names = list(types_of)
    known = {**{name: collection_id(name) for name in names}, **ids}
    identities = np.array([known[name] for name in names], np.uint32)
    table = {
        "m_names": ak.Array([list(known)]),
        "m_collectionIDs": ak.Array(np.array([list(known.values())], np.uint32)),
    }
    info = {
        "collectionID": ak.Array(identities[None]),
        "name": ak.Array([names]),
        "dataType": ak.Array([list(types_of.values())]),
    }
    version = dict(
        zip(
            ("major", "minor", "patch"),
            (np.array([part], np.uint16) for part in datamodel.VERSION),
            strict=True,
        )
    )
    return ak.zip(
        {
            "events___idTable": ak.zip(table, depth_limit=1),
            "events___CollectionTypeInfo": ak.zip(info, depth_limit=2),
            "edm4hep___Version": ak.zip(version),
        },
        depth_limit=1,
    )


class _Epoch(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return datetime.datetime(2000, 1, 1, tzinfo=tz)


@contextmanager
def _fixed_clock() -> Iterator[None]:
    """Let uproot's writer see a fixed date.

    ROOT stores creation and modification dates in many places, and uproot has no option.
    """
    frozen = types.SimpleNamespace(datetime=_Epoch)
    try:
        for module in _MODULES_WITH_CLOCK:
            module.datetime = frozen
        yield
    finally:
        for module in _MODULES_WITH_CLOCK:
            module.datetime = datetime
