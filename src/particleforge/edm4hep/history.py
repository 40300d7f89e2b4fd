"""Refuse a particle history that runs in circles.

What is its own ancestor has no truth particle behind it.

Inputs -> outputs: a collection's particles and their parents, all of them -> nothing, or a
UserError that names a particle on a cycle.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from particleforge.edm4hep import kernels
from particleforge.edm4hep.raw_events import BoolArray, Pairs, Table
from particleforge.errors import UserError


def on_cycle(parents: Pairs, n_particles: int) -> BoolArray:
    """Tell which of ``n_particles`` rows are on a cycle of ``parents``, or their own parents."""
    found = np.zeros(n_particles, bool)
    if kernels.without_cycle(parents.left, parents.right, n_particles):
        return found
    edges = coo_array(
        (np.ones(len(parents.left), np.int8), (parents.left, parents.right)),
        shape=(n_particles, n_particles),
    )
    component = connected_components(edges, directed=True, connection="strong")[1]
    found[:] = np.bincount(component)[component] > 1
    found[parents.left[parents.left == parents.right]] = True
    return found


def refuse_cycles(
    path: str, collection: str, particles: Table, parents: Pairs, first_event: int
) -> None:
    """Raise UserError if a particle of a file's ``collection`` is its own ancestor.

    ``first_event`` is the chunk's place in the file.
    """
    found = np.flatnonzero(on_cycle(parents, particles.n_rows))
    if len(found):
        event = particles.events()[found[0]]
        raise UserError(
            f"{path}: event {first_event + event}: particle {found[0] - particles.offsets[event]}"
            f" of {collection} is its own ancestor; the history is damaged, simulate the file again"
        )
