"""Assign events to train, valid and test by their identity alone.

``event_id`` (uint64) and the run's seed -> split name per event. A keyed hash of the identity, as a
fraction of 2^64, falls into one of three consecutive intervals of the configured lengths. So a
split does not depend on the file, the order or the number of events, and the same event can never
be in two splits. Only samples that are held out of training have no split of their own: their
events are all test events (``select``).
"""

import numpy as np
from numpy.typing import NDArray

from particleforge.config.selection import SelectionConfig
from particleforge.paths import SPLITS
from particleforge.seeds import hash_of

HELD_OUT_SPLIT = "test"


def split_of(
    event_id: NDArray[np.uint64], selection: SelectionConfig, seed: int
) -> NDArray[np.str_]:
    """Return ``train``, ``valid`` or ``test`` for each identity, shape [n_events]."""
    position = hash_of(event_id, seed, "split") / 2.0**64
    upper_edges = np.cumsum([getattr(selection, f"{name}_fraction") for name in SPLITS[:-1]])
    return np.array(SPLITS)[np.searchsorted(upper_edges, position, side="right")]
