"""Who stands for whom: the truth particles of an event, and the one behind every history entry.

Inputs -> outputs: the particle table with parents, and what every entry itself left (calorimeter
energy, tracks) -> which entries are truth particles, their four-momenta (GeV), and for every entry
the truth particle that inherits what it left.

The truth particles are those with generatorStatus 1, with two corrections (docs/truth.md has the
reasons):

1. *Stand-in.* A decayed (status > 1) long-lived parent that itself left something, while nothing
   that descends from it did, was simulated instead of its daughters, for example because it
   interacted before it could decay. It is a truth particle and its daughters are not.
2. *Split.* Where a particle made no track but simulated descendants did (K0S -> pi+ pi-, photon
   conversion, a kaon that decays in flight), those descendants become truth particles of their own,
   and their four-momenta are taken from the ancestor's, which keeps the remainder, or is no truth
   particle any more where nothing remains (less than a ten-thousandth of its energy: rounding). Of
   nested descendants the one nearest to the ancestor counts. A remainder that is not physical (the
   descendants carry more than the ancestor had) cancels the split. What the history leaves out may
   be missing in its momentum, though: the recoil of the nucleus in whose field a photon converts,
   and what the magnetic field gave to a charged particle on the way to where it ended.

The history is followed through each entry's first parent; the reader has refused histories with a
cycle.
"""

from dataclasses import dataclass

import numba
import numpy as np

from particleforge.edm4hep.constants import PHOTON
from particleforge.edm4hep.raw_events import BoolArray, FloatArray, IntArray, Pairs, Table

_STABLE = 1
# of the ancestor's energy: single-precision momenta of a dozen daughters stay well below
_TOLERANCE = 1e-4
# hbar / radius: beyond, the form factor of a nucleus keeps it from taking up momentum as a whole
_RECOIL_GEV = 0.05


@dataclass(frozen=True)
class Bending:
    """What the magnetic field does to momenta across it."""

    gev_per_mm: float  # transverse momentum of charge e for each mm across the field, 0.3 B
    reach_mm: float  # how far from the beam a particle can begin and still make a track


@dataclass(frozen=True)
class Ancestry:
    """Truth particles among the entries of the history."""

    selected: BoolArray  # [n entries]
    p4: FloatArray  # [n entries, 4] px, py, pz, energy; remainders where split
    heir: IntArray  # [n entries] entry of the truth particle that inherits, -1 none
    parent: IntArray  # [n entries] first parent, -1 none
    n_stand_ins: int
    n_split: int


def trace(
    particles: Table,
    parents: Pairs,
    left_energy: FloatArray,
    made_track: BoolArray,
    best_of_track: BoolArray,
    bending: Bending,
) -> Ancestry:
    """Return the truth particles.

    ``left_energy`` [n] is what each entry itself left in the calorimeters, ``made_track`` tells
    which made the visible share of a track, ``best_of_track`` which made the largest share of one.
    """
    parent = first_parent(particles.n_rows, parents)
    stable, n_stand_ins = _stable(particles["status"], parent, (left_energy > 0) | made_track)
    p4 = np.stack([particles[name] for name in ("px", "py", "pz", "energy")], axis=1)
    heir = nearest(parent, stable)
    simulated = particles["status"] == 0
    inherits = heir >= 0
    wanted = (
        simulated & ~stable & made_track & best_of_track & inherits & ~(made_track[heir] & inherits)
    )
    split = wanted & stable[_through(nearest(parent, stable | wanted), parent)]
    rows = np.flatnonzero(split)
    ancestors, of_row = np.unique(heir[rows], return_inverse=True)
    taken = np.zeros((len(ancestors), 4))
    np.add.at(taken, of_row, p4[rows])
    remainder = p4[ancestors] - taken
    limit = _TOLERANCE * p4[ancestors, 3]
    missing = np.zeros(len(ancestors))
    np.add.at(missing, of_row, _left_out(particles, parent, stable, rows, heir[rows], bending))
    size = np.linalg.norm(remainder[:, :3], axis=1)
    possible = (remainder[:, 3] >= -limit) & (size <= remainder[:, 3] + 2 * limit + missing)
    # momentum that the history leaves out must not make a particle that is faster than light
    room = np.maximum(remainder[:, 3], 0.0)
    remainder[:, :3] *= (np.minimum(size, room) / np.maximum(size, np.finfo(float).tiny))[:, None]
    split[rows] = possible[of_row]
    p4[ancestors[possible]] = remainder[possible]
    selected = stable | split
    selected[ancestors[possible & (remainder[:, 3] <= limit)]] = False
    heir = nearest(parent, selected)
    return Ancestry(selected, p4, heir, parent, n_stand_ins, int(split.sum()))


def _left_out(
    particles: Table,
    parent: IntArray,
    stable: BoolArray,
    rows: IntArray,
    ancestor: IntArray,
    bending: Bending,
) -> FloatArray:
    """Return the momentum that the history may leave out between each ancestor and its ``rows``.

    Unit charge that moves by dr across the field takes up 0.3 B dr, whatever its way (dp = q dr x
    B). Where a file does not tell where a particle began, ``reach_mm`` is the farthest. A photon on
    the way converted.
    """

    def passes(kind: BoolArray) -> BoolArray:
        return np.asarray(kind[_through(nearest(parent, stable | kind), parent)[rows]])

    moved = np.hypot(*(particles[name][rows] - particles[name][ancestor] for name in ("vx", "vy")))
    known = np.isfinite(moved) & (moved > 0)
    moved = np.where(known, moved, bending.reach_mm)
    bent = np.where(passes(particles["charge"] != 0), bending.gev_per_mm * moved, 0.0)
    return bent + np.where(passes(particles["pdg"] == PHOTON), _RECOIL_GEV, 0.0)


def first_parent(n_particles: int, parents: Pairs) -> IntArray:
    """Return each entry's first parent, -1 where it has none."""
    parent = np.full(n_particles, -1, np.int64)
    parent[parents.left[::-1]] = parents.right[::-1]
    return parent


@numba.njit(cache=True)
def nearest(parent, terminal):  # type: ignore[no-untyped-def]
    """Return for each entry the nearest of itself and its ancestors that is ``terminal``, or -1."""
    found = np.full(len(parent), -2, np.int64)  # -2: not known yet
    for start in range(len(parent)):
        entry = start
        while entry >= 0 and found[entry] == -2:
            if terminal[entry]:
                found[entry] = entry
            else:
                found[entry] = -1  # until the walk is over: a circle would end here
                entry = parent[entry]
        answer = found[entry] if entry >= 0 else -1
        entry = start
        while entry >= 0 and found[entry] == -1 and answer != -1:
            found[entry] = answer
            entry = parent[entry]
    return found


@numba.njit(cache=True)
def descendants(parent, of, rows):  # type: ignore[no-untyped-def]
    """Return all pairs (entry of ``of``, one of ``rows`` that descends from it)."""
    n_pairs = 0
    for row in rows:
        entry = parent[row]
        while entry >= 0:
            n_pairs += of[entry]
            entry = parent[entry]
    above, below = np.empty(n_pairs, np.int64), np.empty(n_pairs, np.int64)
    n_pairs = 0
    for row in rows:
        entry = parent[row]
        while entry >= 0:
            if of[entry]:
                above[n_pairs], below[n_pairs] = entry, row
                n_pairs += 1
            entry = parent[entry]
    return above, below


def _through(found: IntArray, parent: IntArray) -> IntArray:
    """Return ``found`` of each entry's parent; entries without a parent point at themselves."""
    beyond = np.where(parent >= 0, found[parent], -1)
    return np.where(beyond >= 0, beyond, np.arange(len(parent)))


def _stable(status: IntArray, parent: IntArray, left_something: BoolArray) -> tuple[BoolArray, int]:
    """Return the truth particles before any split, and how many stand in for their daughters."""
    carrier = nearest(parent, status != 0)
    alive = np.zeros(len(status), bool)
    alive[carrier[left_something & (carrier >= 0)]] = True
    has_living_descendant = np.zeros(len(status), bool)
    frontier = parent[alive]
    while len(frontier := np.unique(frontier[frontier >= 0])):
        frontier = frontier[~has_living_descendant[frontier]]
        has_living_descendant[frontier] = True
        frontier = parent[frontier]
    stands_in = (status > _STABLE) & alive & ~has_living_descendant
    replaced = (status == _STABLE) & ~alive & (nearest(parent, stands_in) >= 0)
    return ((status == _STABLE) & ~replaced) | stands_in, int(stands_in.sum())
