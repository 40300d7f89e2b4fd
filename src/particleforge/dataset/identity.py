"""The identity of an event: a hash of sample, run and event number.

Where files are given, the hash is of the particles, too.

The split into train, valid and test hangs on it, so it must not depend on how events are spread
over files. Events that were simulated here have numbers of their own. Given files of several jobs
often all begin with run 0, event 0; what tells such events apart is their content. Simulated
particles are taken for it, not what was reconstructed, so that events keep identity and split when
they are reconstructed again; nor is their position in a file, so that they keep them when files are
merged.
"""

import numpy as np
from numpy.typing import NDArray

from particleforge.edm4hep.raw_events import Array, Table
from particleforge.seeds import seed_of, split_mix

_WORD = np.uint64(32)


def event_ids(
    sample_name: str, run_number: Array, event_number: Array, content: Array | None = None
) -> NDArray[np.uint64]:
    """Return the uint64 identities of events ``[n_events]`` of one sample.

    ``content`` is uint64 ``[n_events]``, None where numbers do.
    """
    seed = np.uint64(seed_of(sample_name))
    numbered = split_mix(
        split_mix(run_number.astype(np.uint64) ^ seed) ^ event_number.astype(np.uint64)
    )
    return numbered if content is None else split_mix(numbered ^ content)


def content_of(particles: Table) -> NDArray[np.uint64]:
    """Return a hash ``[n_events]`` of the PDG codes and momenta of all particles.

    Momenta are hashed as float32, which every version of a file holds.

    The particles' order in the event does not matter.
    """
    code = particles["pdg"].astype(np.int64).astype(np.uint64)
    with np.errstate(over="ignore"):  # a damaged file is the reader's to refuse
        x, y, z = (
            particles[name].astype(np.float32).view(np.uint32).astype(np.uint64)
            for name in ("px", "py", "pz")
        )
    mixed = split_mix(split_mix(code ^ (x << _WORD)) ^ (y << _WORD | z))
    # sums modulo 2^64
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    return np.asarray(total[particles.offsets[1:]] - total[particles.offsets[:-1]])
