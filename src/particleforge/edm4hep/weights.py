"""The events' weights, wherever a file keeps them.

Inputs -> outputs: an open EDM4hep file -> the weight of each event. ``EventHeader.weight`` counts,
or the entry of the vector ``EventHeader.weights`` that the detector's file chooses. Simulations
that leave the weight at 0 in every event (DD4hep) have not filled it: then the vector's first entry
counts, or 1 where there is none.
"""

from collections.abc import Callable

import numpy as np

from particleforge.edm4hep.layout import Layout
from particleforge.edm4hep.raw_events import Array, FloatArray, IntArray
from particleforge.errors import UserError

_VECTORS = ("_EventHeader_weights", "EventHeader_weights")
_KEY = "collections.event_weight_entry"


def event_weights(
    layout: Layout,
    jagged: Callable[[str, int, int], tuple[IntArray, Array]],
    n_events: int,
    entry: int | None,
) -> FloatArray:
    """Return the weights float64 ``[n_events]``; what is not one number per event is a UserError.

    ``jagged`` reads a leaf's entries per event and its values, ``entry`` is the chosen one.
    """
    leaf = layout.member("EventHeader", "weight")
    if entry is None and leaf is not None:
        counts, values = jagged(leaf, 0, n_events)
        # a collection may be there and empty
        if np.any(counts) and (np.any(counts != 1) or not np.all(np.isfinite(values))):
            raise UserError(
                f"{layout.path}: {leaf} must hold one finite number per event; the file is damaged"
            )
        if np.any(values):
            return values.astype(np.float64)
    vector = next((name for name in _VECTORS if name in layout.leaves), None)
    if vector is None:
        if entry is not None:
            raise UserError(
                f"{layout.path}: no EventHeader.weights, and {_KEY} is {entry}; take {_KEY} out"
            )
        return np.ones(n_events)
    return filled(_entries(layout, vector, *jagged(vector, 0, n_events), entry))


def filled(weights: FloatArray) -> FloatArray:
    """Return the weights, or 1 for each if they are 0 in every event."""
    return weights if np.any(weights) else np.ones_like(weights)


def _entries(
    layout: Layout, vector: str, counts: IntArray, values: Array, entry: int | None
) -> FloatArray:
    """Return one entry of each event's vector, the first without ``entry``."""
    if entry is None and not np.any(counts):
        return np.ones(len(counts))
    place = entry or 0
    if np.any(counts <= place):
        raise UserError(
            f"{layout.path}: {vector} has {int(np.min(counts))} entries in an event, and {_KEY} is"
            f" {place}, counted from 0; correct {_KEY}"
        )
    chosen: FloatArray = values[np.cumsum(counts) - counts + place].astype(np.float64)
    if not np.all(np.isfinite(chosen)):
        raise UserError(
            f"{layout.path}: {vector} holds numbers that are not finite; the file is damaged"
        )
    return chosen
