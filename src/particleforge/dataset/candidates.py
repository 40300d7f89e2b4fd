"""The baseline's candidates, aligned to the same elements as the targets.

Inputs -> outputs: candidates of ``RawEvents`` with their track and cluster references ->
``schema.CANDIDATES``. A candidate stands for its first track, else for its most energetic cluster
(with hits as elements: the most energetic hit of its clusters), else for no element. Its energy is
the stored one, but never below its momentum: some files fill momenta alone.
"""

from collections.abc import Sequence

import numpy as np

from particleforge.config.detector import ParticleClass
from particleforge.dataset.classes import absolute_eta, class_of
from particleforge.edm4hep.raw_events import IntArray, RawEvents, Table, whole_charge

_ROUNDING = 1e-5  # of massless candidates, whose energy and momentum are in single precision


def baseline_candidates(events: RawEvents, classes: Sequence[ParticleClass]) -> Table:
    """Return the candidates of a chunk of valid events."""
    candidates = events.candidates
    pdg, charge = candidates["pdg"].astype(np.int64), whole_charge(candidates["charge"])
    eta = absolute_eta(candidates["px"], candidates["py"], candidates["pz"])
    columns = {name: candidates[name] for name in ("px", "py", "pz", "energy")}
    columns |= {
        "pdg": pdg,
        "charge": charge,
        "class_id": class_of(classes, pdg, charge != 0, eta),
        "element": _elements(events),
    }
    return Table(candidates.offsets, columns)


def with_energy_of_momentum(candidates: Table) -> tuple[Table, int]:
    """Return the candidates with E >= p, and how many had less.

    The momentum takes the place of an energy below it.
    """
    energy, px, py, pz = (
        candidates[name].astype(np.float64) for name in ("energy", "px", "py", "pz")
    )
    momentum = np.sqrt(px**2 + py**2 + pz**2)
    less = energy < momentum * (1 - _ROUNDING)
    if not np.any(less):
        return candidates, 0
    columns = {**candidates.columns, "energy": np.where(less, momentum, energy)}
    return Table(candidates.offsets, columns), int(np.sum(less))


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
