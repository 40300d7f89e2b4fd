"""What a dataset holds in place of truth where that is not read (``dataset.truth: none``).

Inputs -> outputs: valid ``RawEvents`` without particles -> empty columns of truth, and what leads
back to the file: the header's numbers and ``schema.ORIGINS``, one entry per element. So real data,
and files of experiments that keep no truth, can be reconstructed, and what is reconstructed can
name the tracks and clusters that it is made of.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from particleforge.dataset.balance import Balance
from particleforge.dataset.truth import Truth
from particleforge.edm4hep.raw_events import ORIGIN, Array, RawEvents, Table
from particleforge.errors import UserError
from particleforge.tables import schema


def no_truth(n_events: int) -> Truth:
    """Return truth without a row."""
    return Truth(
        particles=_empty(n_events, schema.PARTICLES),
        targets=_empty(n_events, schema.TARGETS),
        track_links=_empty(n_events, schema.TRACK_LINKS),
        cluster_links=_empty(n_events, schema.CLUSTER_LINKS),
        balance=Balance(),
    )


def _empty(n_events: int, collection: schema.Collection) -> Table:
    types = {field.name: np.dtype(field.dtype).type for field in collection.fields}
    return Table.empty(n_events, types)


def origin_columns(events: RawEvents) -> dict[str, Table | Array]:
    """Return ``schema.HEADER_OF_FILE`` and ``schema.ORIGINS`` of a chunk of valid events."""
    assert events.origin is not None, "read with truth"
    tracks, clusters = events.tracks, events.clusters
    offsets = tracks.offsets + clusters.offsets
    columns = {}
    for name in ORIGIN:
        column = columns[name] = np.zeros(int(offsets[-1]), np.int64)
        column[offsets[tracks.events()] + tracks.local()] = tracks[name]
        behind_tracks = offsets[clusters.events()] + tracks.counts[clusters.events()]
        column[behind_tracks + clusters.local()] = clusters[name]
    return {
        "file_event_number": events.origin.event_number,
        "time_stamp": events.origin.time_stamp,
        schema.ORIGINS.name: Table(offsets, columns),
    }


def add_collections(known: dict[str, dict[str, Any]], events: RawEvents, where: str) -> None:
    """Add the collections that a chunk's origins refer to, by name, to those of earlier chunks.

    UserError, which begins with ``where``, if one has another ID than before.
    """
    assert events.origin is not None, "read with truth"
    for name, (number, meaning) in events.origin.collections.items():
        found: Mapping[str, Any] = known.setdefault(name, {"id": number, "is": meaning})
        if found["id"] != number:
            raise UserError(
                f"{where}: collection {name} has ID {number}, in another file {found['id']}; build"
                " one dataset for each file"
            )
