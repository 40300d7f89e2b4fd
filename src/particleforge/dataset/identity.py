"""The identity of an event: a hash of sample, run and event number.

The split into train, valid and test hangs on it, so it must not depend on how events are spread over files.
"""

import numpy as np
from numpy.typing import NDArray

from particleforge.edm4hep.records import Array
from particleforge.seeds import seed_of


def event_ids(sample_name: str, run_number: Array, event_number: Array) -> NDArray[np.uint64]:
    """Return the uint64 identities of events ``[n_events]`` of one sample."""
    seed = np.uint64(seed_of(sample_name))
    return _splitmix64(_splitmix64(run_number.astype(np.uint64) ^ seed) ^ event_number.astype(np.uint64))


def _splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64-bit words (Steele, Lea, Flood, OOPSLA 2014, "SplittableRandom"; the finaliser is a bijection)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
