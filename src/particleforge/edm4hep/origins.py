"""Where the rows of a chunk lie in their file, for files that are read without truth.

Inputs -> outputs: a chunk of a file and the collections that were read as one (``Group``) -> the
same table with the columns ``raw_events.ORIGIN``, and ``Origin``: the event header as the file has
it, and the IDs of the collections. An ID is that of the file's table; where the table lacks it, and
in files without one, it is podio's hash of the name.
"""

from collections.abc import Mapping

import numpy as np

from particleforge.edm4hep.chunk import Chunk
from particleforge.edm4hep.group import Group
from particleforge.edm4hep.identities import collection_id
from particleforge.edm4hep.raw_events import Array, Origin, Table, with_origin
from particleforge.edm4hep.rootfile import EventFile


def with_origins(chunk: Chunk, group: Group) -> Table:
    """Return the group's table, where truth is not read with what each row is in the file."""
    if chunk.file.truth:
        return group.table
    collection = np.zeros(group.table.n_rows, np.uint32)
    index = np.zeros(group.table.n_rows, np.int32)
    for name, (_, table) in group.members.items():
        rows = group.rows_of(name)
        collection[rows], index[rows] = _id(chunk.file, name), table.local()
    return with_origin(group.table, collection, index)


def origin_of(chunk: Chunk, groups: Mapping[str, Group]) -> Origin | None:
    """Return what leads back to the file; None where truth is read.

    ``groups`` are those of the meanings of ``Origin.collections``.
    """
    file, start, stop = chunk.file, chunk.start, chunk.stop
    if file.truth:
        return None
    _, by_position, own = file.numbers
    number = own if len(_header(chunk, "eventNumber")) else by_position
    time_stamp = _header(chunk, "timeStamp")
    return Origin(
        number[start:stop],
        time_stamp if len(time_stamp) == chunk.n_events else np.zeros(chunk.n_events, np.uint64),
        {
            name: (_id(file, name), meaning)
            for meaning, group in groups.items()
            for name in group.members
        },
    )


def _header(chunk: Chunk, member: str) -> Array:
    """Return a member of the event headers; nothing where the file has none."""
    leaf = chunk.layout.member("EventHeader", member)
    if leaf is None:
        return np.zeros(0, np.uint64)
    return chunk.file.column(leaf, chunk.start, chunk.stop).astype(np.uint64)


def _id(file: EventFile, collection: str) -> int:
    """Return a collection's ID."""
    known = {name: number & 0xFFFFFFFF for number, name in file.collection_ids.items()}
    return known.get(collection, collection_id(collection))
