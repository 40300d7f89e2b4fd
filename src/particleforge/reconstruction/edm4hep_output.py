"""Reconstructed candidates as an EDM4hep file.

Parquet of candidates (tables.RECONSTRUCTED_SCHEMA) -> ROOT file with EventHeader and one
ReconstructedParticle collection: PDG, momentum and energy in GeV, charge in e, and the mass of the
candidate's class. Beside it the weights of the candidates, for which that type has no member, as
user data, in the same order. The file is streamed block by block; events without candidates, and
files without events, are kept.

Where the candidates come from a file that was read without truth, the event header has its numbers
and time stamp, and each candidate refers to its track or cluster: by that file's index in the event
and collection ID, as podio refers to what lies in another file. A candidate that stands for a hit
refers to nothing, for the type has no such relation; nor does one of a Parquet file's, whose
elements are no rows of a collection. The model gives no covariance, so the member is left out.
The tracks and clusters may be copied from that file, each member as it is.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq

from particleforge.edm4hep.copies import Copies
from particleforge.edm4hep.datamodel import (
    CLUSTER,
    EVENT_HEADER,
    RECONSTRUCTED_PARTICLE,
    TRACK,
    USER_FLOATS,
)
from particleforge.edm4hep.writer import (
    HEADER,
    Chunk,
    Collection,
    Copy,
    References,
    UserFloats,
    write_edm4hep,
)
from particleforge.tables import schema
from particleforge.tables.parquet import from_arrow, iter_events, read_metadata

# relations of a ReconstructedParticle by what an element is
_RELATIONS = {"track": "tracks", "cluster": "clusters"}
_TYPES = {"track": TRACK, "cluster": CLUSTER}


def write_particles(
    path: Path,
    collection: str,
    reconstructed: Path,
    classes: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    copied_from: Path | None = None,
) -> None:
    """Write the candidates in ``reconstructed`` as an EDM4hep file.

    ``classes`` as in the manifest, class 0 none. Of the file ``copied_from``, with the same events,
    the collections that candidates refer to are copied.
    """
    masses = np.array([c.get("mass_gev", 0.0) for c in classes])
    metadata = read_metadata(reconstructed)
    collections, referred = metadata.get("collections", {}), referred_to(metadata)
    ids = {name: found["id"] for name, found in referred.items()}
    types = {
        HEADER: EVENT_HEADER,
        collection: RECONSTRUCTED_PARTICLE,
        weights_of(collection): USER_FLOATS,
    }
    # makes the collections of an empty file
    types_there = pq.read_schema(reconstructed)
    empty = from_arrow(types_there.empty_table())
    read = [name for name in types_there.names if name != schema.LATENTS.name]
    with Copies(copied_from, referred) if copied_from else nullcontext() as copies:

        def chunks() -> Iterator[Chunk]:
            start = 0
            for events in itertools.chain([empty], iter_events(reconstructed, read)):
                chunk = _chunk(events, collection, masses, collections)
                stop = start + len(events)
                yield chunk if copies is None else _with_copies(chunk, copies, start, stop)
                start = stop

        if copies is not None:
            of_file = {name: one for name, one in copies.ids.items() if name not in types}
            ids = {**of_file, **ids}
            types |= {name: _TYPES[found["is"]] for name, found in referred.items()}
        write_edm4hep(path, types, chunks(), provenance, ids=ids)


def _with_copies(chunk: Chunk, copies: Copies, start: int, stop: int) -> Chunk:
    """Return a chunk with what is copied of the same events."""
    copied = {name: Copy(fields) for name, fields in copies.read(start, stop).items()}
    return Chunk(chunk.n_events, {**chunk.collections, **copied})


def referred_to(metadata: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return those of the collections in a table's metadata that candidates can refer to."""
    collections = metadata.get("collections", {})
    return {name: found for name, found in collections.items() if found["is"] in _RELATIONS}


def weights_of(collection: str) -> str:
    """Return the name of the user data that hold the weights of a collection."""
    return f"{collection}_{schema.WEIGHT.name}"


def _chunk(
    events: ak.Array,
    collection: str,
    masses: np.ndarray[Any, np.dtype[np.float64]],
    collections: Mapping[str, Any],
) -> Chunk:
    n_events = len(events)
    candidates = ak.flatten(events.candidates)
    column = {
        name: ak.to_numpy(candidates[name])
        for name in ("pdg", "charge", "energy", "class_id", "px", "py", "pz", "weight")
    }
    of_file = schema.ORIGINS.name in events.fields
    header = {
        "eventNumber": ak.to_numpy(events["file_event_number" if of_file else "event_number"]),
        "runNumber": ak.to_numpy(events.run_number),
        "weight": ak.to_numpy(events.weight),
    }
    if of_file:
        header["timeStamp"] = ak.to_numpy(events.time_stamp)
    particles = {
        "PDG": column["pdg"],
        "energy": column["energy"],
        "charge": column["charge"],
        "mass": masses[column["class_id"]],
        **{f"momentum.{axis}": column[f"p{axis}"] for axis in "xyz"},
    }
    relations = _relations(ak.flatten(events.origins), collections) if of_file else {}
    event = np.repeat(np.arange(n_events), ak.to_numpy(ak.num(events.candidates)))
    return Chunk(
        n_events,
        {
            HEADER: Collection(np.arange(n_events), header),
            collection: Collection(event, particles, relations),
            weights_of(collection): UserFloats(event, column["weight"]),
        },
    )


def _relations(origins: ak.Array, collections: Mapping[str, Any]) -> dict[str, References]:
    """Return what each candidate refers to, given where its element lies."""
    number, index = ak.to_numpy(origins.collection), ak.to_numpy(origins["index"])
    found = {}
    for meaning, relation in _RELATIONS.items():
        ids = [one["id"] for one in collections.values() if one["is"] == meaning]
        refers = np.isin(number, np.array(ids, np.uint32))
        found[relation] = References(refers.astype(np.int64), index[refers], number[refers])
    return found
