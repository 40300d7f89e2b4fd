"""The baseline's candidates, aligned to the same elements as the targets.

Inputs -> outputs: candidates of ``RawEvents`` with their track and cluster references ->
``schema.CANDIDATES``. A candidate stands for its first track, else for its most energetic cluster
(with hits as elements: the most energetic hit of its clusters), else for no element.
"""

from collections.abc import Sequence

import numpy as np

from particleforge.config.detector import ParticleClass
from particleforge.dataset.classes import absolute_eta, class_of
from particleforge.edm4hep.raw_events import IntArray, RawEvents, Table


def baseline_candidates(events: RawEvents, classes: Sequence[ParticleClass]) -> Table:
    """Return the candidates of a chunk of valid events."""
    candidates = events.candidates
    pdg, charge = candidates["pdg"].astype(np.int64), np.rint(candidates["charge"])
    eta = absolute_eta(candidates["px"], candidates["py"], candidates["pz"])
    columns = {name: candidates[name] for name in ("px", "py", "pz", "energy")}
    columns |= {
        "pdg": pdg,
        "charge": charge,
        "class_id": class_of(classes, pdg, charge != 0, eta),
        "element": _elements(events),
    }
    return Table(candidates.offsets, columns)


def _elements(events: RawEvents) -> IntArray:
    n_candidates = events.candidates.n_rows
    event = events.candidates.events()
    element = np.full(n_candidates, -1, np.int64)
    clusters = events.candidate_clusters
    # the last to be written wins
    order = np.lexsort((-clusters.right, events.clusters["energy"][clusters.right]))
    owner, row = clusters.left[order], clusters.right[order]
    element[owner] = (
        row - events.clusters.offsets[event[owner]] + events.tracks.counts[event[owner]]
    )
    owner, row = events.candidate_tracks.left[::-1], events.candidate_tracks.right[::-1]
    element[owner] = row - events.tracks.offsets[event[owner]]
    return element
