"""Reconstructed candidates as an EDM4hep file.

Parquet of candidates (tables.RECONSTRUCTED_SCHEMA) -> ROOT file with EventHeader and one
ReconstructedParticle collection: PDG, momentum and energy in GeV, charge in e, and the mass of the
candidate's class. Beside it the weights of the candidates, for which that type has no member, as
user data, in the same order. The file is streamed block by block; events without candidates, and
files without events, are kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from particleforge.edm4hep.datamodel import EVENT_HEADER, RECONSTRUCTED_PARTICLE, USER_FLOATS
from particleforge.edm4hep.writer import HEADER, Chunk, Collection, UserFloats, write_edm4hep
from particleforge.tables.parquet import RECONSTRUCTED_SCHEMA, from_arrow, iter_events
from particleforge.tables.schema import WEIGHT


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

    def chunks() -> Iterator[Chunk]:
        # makes the collections of an empty file
        yield _chunk(from_arrow(RECONSTRUCTED_SCHEMA.empty_table()), collection, masses)
        for events in iter_events(reconstructed):
            yield _chunk(events, collection, masses)

    types = {
        HEADER: EVENT_HEADER,
        collection: RECONSTRUCTED_PARTICLE,
        weights_of(collection): USER_FLOATS,
    }
    write_edm4hep(path, types, chunks(), provenance)


def weights_of(collection: str) -> str:
    """Return the name of the user data that hold the weights of a collection."""
    return f"{collection}_{WEIGHT.name}"


def _chunk(
    events: ak.Array, collection: str, masses: np.ndarray[Any, np.dtype[np.float64]]
) -> Chunk:
    n_events = len(events)
    candidates = ak.flatten(events.candidates)
    column = {
        name: ak.to_numpy(candidates[name])
        for name in ("pdg", "charge", "energy", "class_id", "px", "py", "pz", "weight")
    }
    header = {
        "eventNumber": ak.to_numpy(events.event_number),
        "runNumber": ak.to_numpy(events.run_number),
        "weight": ak.to_numpy(events.weight),
    }
    particles = {
        "PDG": column["pdg"],
        "energy": column["energy"],
        "charge": column["charge"],
        "mass": masses[column["class_id"]],
        **{f"momentum.{axis}": column[f"p{axis}"] for axis in "xyz"},
    }
    event = np.repeat(np.arange(n_events), ak.to_numpy(ak.num(events.candidates)))
    return Chunk(
        n_events,
        {
            HEADER: Collection(np.arange(n_events), header),
            collection: Collection(event, particles),
            weights_of(collection): UserFloats(event, column["weight"]),
        },
    )
