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
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq

from particleforge.edm4hep.datamodel import EVENT_HEADER, RECONSTRUCTED_PARTICLE, USER_FLOATS
from particleforge.edm4hep.writer import (
    HEADER,
    Chunk,
    Collection,
    References,
    UserFloats,
    write_edm4hep,
)
from particleforge.tables import schema
from particleforge.tables.parquet import from_arrow, iter_events, read_metadata

# relations of a ReconstructedParticle by what an element is
_RELATIONS = {"track": "tracks", "cluster": "clusters"}


def write_particles(
    path: Path,
    collection: str,
    reconstructed: Path,
    classes: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> None:
    """Write the candidates in ``reconstructed`` as an EDM4hep file.

    ``classes`` as in the manifest, class 0 none.
    """
    masses = np.array([c.get("mass_gev", 0.0) for c in classes])
    collections = read_metadata(reconstructed).get("collections", {})
    elsewhere = {
        name: found["id"] for name, found in collections.items() if found["is"] in _RELATIONS
    }

    def chunks() -> Iterator[Chunk]:
        # makes the collections of an empty file
        empty = pq.read_schema(reconstructed).empty_table()
        for events in itertools.chain([from_arrow(empty)], iter_events(reconstructed)):
            yield _chunk(events, collection, masses, collections)

    types = {
        HEADER: EVENT_HEADER,
        collection: RECONSTRUCTED_PARTICLE,
        weights_of(collection): USER_FLOATS,
    }
    write_edm4hep(path, types, chunks(), provenance, elsewhere=elsewhere)


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
