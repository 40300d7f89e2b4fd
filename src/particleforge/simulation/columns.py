r"""Columns that the steps of the simulation exchange: flat arrays over a batch of events.

Units: GeV (c = 1), mm, ns, radians. Every collection has ``event``, the index of the event within
the batch, ascending; references to others are row numbers within the batch (not within the event),
-1 for none. Nothing here computes physics.

    Particles -> Entering -> Hits -> Clusters -> Candidates
        \------> Tracks ---------------------/
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


class Kind(IntEnum):
    """How a particle showers in the calorimeters."""

    ELECTROMAGNETIC = 0  # electrons, positrons, photons
    HADRON = 1
    MUON = 2


class HitCollection(IntEnum):
    """Where a calorimeter hit lies."""

    ECAL_BARREL = 0
    ECAL_ENDCAP = 1
    HCAL_BARREL = 2
    HCAL_ENDCAP = 3
    MUON = 4


class SubDetector(IntEnum):
    """Columns of the energies of a cluster."""

    ECAL = 0
    HCAL = 1
    MUON = 2


class Rows:
    """Base of the collections: members are arrays, columns where the first axis is the length."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.event)  # type: ignore[attr-defined]

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """Return these rows; only for collections whose members are all columns."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Particles(Rows):
    """The truth history: generator particles in their order, then what the simulation made.

    ``parents_index[parents_offsets[i]:parents_offsets[i + 1]]`` are the parents of particle ``i``,
    likewise the daughters. ``generator_status`` is 1 for what the generator left stable, 2 for what
    it decayed, its own status elsewhere, and 0 for secondaries that the simulation made.
    ``simulator_status`` holds the EDM4hep bits (see ``propagation``). ``endpoint_*`` is where the
    particle ended: its decay or interaction, or the calorimeter's face.
    """

    event: Ints  # int32
    pdg: Ints  # int32
    generator_status: Ints  # int32
    simulator_status: Ints  # int32
    charge: Floats  # e
    px: Floats
    py: Floats
    pz: Floats
    energy: Floats
    mass: Floats
    x: Floats  # production vertex
    y: Floats
    z: Floats
    time: Floats  # of the production vertex, ns
    endpoint_x: Floats
    endpoint_y: Floats
    endpoint_z: Floats
    parents_offsets: Ints  # int64, n + 1
    parents_index: Ints
    daughters_offsets: Ints  # int64, n + 1
    daughters_index: Ints


@dataclass(frozen=True)
class Entering(Rows):
    """Particles at the calorimeter's inner face, to be showered; neutrinos are not among them.

    ``(x, y, z)`` is the crossing point of the tracking volume's surface (cylinder of
    ``tracker.radius_mm``, planes at ``tracker.half_length_mm``), ``(dx, dy, dz)`` the unit
    direction of flight there.
    """

    event: Ints  # int32
    particle: Ints  # row in Particles
    pdg: Ints
    kind: Ints  # int8, Kind
    charge: Floats
    # what a calorimeter can measure: kinetic for baryons, total energy (with annihilation) for
    # antibaryons, total for others
    energy: Floats
    x: Floats
    y: Floats
    z: Floats
    dx: Floats
    dy: Floats
    dz: Floats


@dataclass(frozen=True)
class Tracks(Rows):
    """Reconstructed tracks.

    Parameters at the point of closest approach to the origin, EDM4hep conventions.

    ``omega`` is the signed curvature in 1/mm, ``pt = 0.299792458e-3 B / |omega|``; its sign is that
    of the charge for B along +z. Links: ``link_track[k]`` got the share ``link_weight[k]`` of its
    hits from ``link_particle[k]``.
    """

    event: Ints  # int32
    particle: Ints  # row in Particles of the main contributor
    charge: Ints  # int8, as reconstructed
    pt: Floats
    eta: Floats
    phi0: Floats
    p: Floats
    omega: Floats
    tan_lambda: Floats
    d0: Floats
    z0: Floats
    chi2: Floats
    ndf: Ints
    n_hits: Ints
    dedx: Floats  # GeV/mm
    dedx_error: Floats
    radius_innermost_hit: Floats
    x_calo: Floats  # extrapolated point on the calorimeter's face
    y_calo: Floats
    z_calo: Floats
    dx_calo: Floats  # unit direction there
    dy_calo: Floats
    dz_calo: Floats
    link_track: Ints
    link_particle: Ints
    link_weight: Floats


@dataclass(frozen=True)
class Hits(Rows):
    """Calorimeter cells over threshold, and which particles left energy in them.

    Contributions: particle ``contribution_particle[k]`` left ``contribution_energy[k]``
    (calibrated) in hit ``contribution_hit[k]``. Noise has no contribution, so those of a hit may
    sum to less than its energy.
    """

    event: Ints  # int32
    collection: Ints  # int8, HitCollection
    cell_id: NDArray[np.uint64]
    energy: Floats  # GeV, calibrated
    x: Floats
    y: Floats
    z: Floats
    contribution_hit: Ints
    contribution_particle: Ints
    contribution_energy: Floats


@dataclass(frozen=True)
class Clusters(Rows):
    """Calorimeter clusters; ``cluster_of_hit`` has one entry per hit, -1 for hits in no cluster."""

    event: Ints  # int32
    energy: Floats
    x: Floats
    y: Floats
    z: Floats
    energies: Floats  # [n, 3], columns SubDetector
    cluster_of_hit: Ints  # row in Clusters per row of Hits


@dataclass(frozen=True)
class Candidates(Rows):
    """Particles that a rule-based reconstruction found."""

    event: Ints  # int32
    pdg: Ints
    charge: Ints
    px: Floats
    py: Floats
    pz: Floats
    energy: Floats
    mass: Floats
    track: Ints  # row in Tracks, -1 for none
    cluster: Ints  # row in Clusters, -1 for none


def offsets_of(counts: Ints) -> NDArray[np.int64]:
    """Return the n + 1 offsets of lists with these ``counts``."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def lists_from_parents(child: Ints, parent: Ints, n: int) -> dict[str, Any]:
    """Return both jagged lists of Particles from pairs (child, parent).

    The daughters are the inverse of the parents.

    Parents of a child keep the order of the pairs, daughters come in the order of their rows.
    """
    by_child = np.argsort(child, kind="stable")
    by_parent = np.lexsort((child, parent))
    return {
        "parents_offsets": offsets_of(np.bincount(child, minlength=n)),
        "parents_index": np.asarray(parent[by_child], np.int64),
        "daughters_offsets": offsets_of(np.bincount(parent, minlength=n)),
        "daughters_index": np.asarray(child[by_parent], np.int64),
    }


Some = TypeVar("Some")


def concatenate(parts: Sequence[Some]) -> Some:
    """Return collections of one type, whose members are all columns, as one."""
    kind = type(parts[0])
    return kind(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(kind)  # type: ignore[arg-type]
        }
    )
