"""Flat tables of a chunk of events: what the EDM4hep reader hands over.

All rows of a collection, of all events of the chunk, lie in one NumPy array per column; rows of
event ``i`` are ``offsets[i]:offsets[i + 1]``. Relations hold *global* row numbers of the chunk, so
that every later step is one array operation for all events at once. Energies and momenta in GeV,
lengths in mm, angles in rad.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from particleforge.edm4hep import kernels
from particleforge.edm4hep.datamodel import AT_IP, CREATED_IN_SIMULATION
from particleforge.errors import UserError

Array = NDArray[Any]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def summed(group: Array, values: Array | None, n_groups: int) -> FloatArray:
    """Return the sum of ``values``, or the number of rows, per group, float64 ``[n_groups]``."""
    return np.bincount(group, values, n_groups).astype(np.float64)


def whole_charge(charge: Array) -> FloatArray:
    """Return charges in units of e, 0 for what is none.

    Delphes gives -999 to codes that it does not know, others NaN.
    """
    known = np.isfinite(charge) & (np.abs(charge) <= np.iinfo(np.int8).max)
    return np.rint(np.where(known, charge, 0)).astype(np.float64)


@dataclass(frozen=True)
class Table:
    """Rows of one collection.

    ``offsets`` is int64 ``[n_events + 1]``, every column has ``offsets[-1]`` rows.
    """

    offsets: IntArray
    columns: Mapping[str, Array]

    @classmethod
    def empty(cls, n_events: int, columns: Mapping[str, type]) -> Self:
        """Return a table without rows."""
        return cls(
            np.zeros(n_events + 1, np.int64),
            {name: np.zeros(0, dtype) for name, dtype in columns.items()},
        )

    def __getitem__(self, name: str) -> Array:
        """Return a column."""
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        """Tell whether there is such a column."""
        return name in self.columns

    @property
    def n_rows(self) -> int:
        """Rows of all events."""
        return int(self.offsets[-1])

    @property
    def counts(self) -> IntArray:
        """Rows per event."""
        return np.diff(self.offsets)

    def events(self) -> IntArray:
        """Return each row's event."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def local(self) -> IntArray:
        """Return each row's number within its event."""
        return np.arange(self.n_rows) - np.repeat(self.offsets[:-1], self.counts)

    def select(self, keep: BoolArray) -> tuple["Table", IntArray]:
        """Return the rows where ``keep``, and each old row's new number (-1 where dropped)."""
        if keep.all():
            return self, np.arange(self.n_rows)
        kept_before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
        table = Table(
            kept_before[self.offsets], {name: column[keep] for name, column in self.columns.items()}
        )
        return table, np.where(keep, kept_before[:-1], -1)


@dataclass(frozen=True)
class Pairs:
    """A weighted relation between rows of two tables."""

    left: IntArray
    right: IntArray
    weight: FloatArray

    @classmethod
    def of(cls, left: Any, right: Any, weight: Any = None) -> Self:
        """Return pairs from anything array-like; the weight defaults to one."""
        left = np.asarray(left, np.int64)
        weights = np.ones(len(left)) if weight is None else np.asarray(weight, np.float64)
        return cls(left, np.asarray(right, np.int64), weights)

    @classmethod
    def none(cls) -> Self:
        """Return an empty relation."""
        return cls.of([], [])

    def where(self, keep: BoolArray) -> "Pairs":
        """Return the pairs where ``keep``."""
        if keep.all():
            return self
        return Pairs(self.left[keep], self.right[keep], self.weight[keep])

    def renumber(self, left: IntArray | None = None, right: IntArray | None = None) -> "Pairs":
        """Replace row numbers by maps from old to new ones; pairs with a dropped end (-1) go."""
        as_is = np.zeros(0, np.int64)
        return Pairs(
            *kernels.renumber(
                self.left,
                self.right,
                self.weight,
                as_is if left is None else left,
                as_is if right is None else right,
            )
        )


def particle_columns(read: Table, where: str) -> dict[str, Array]:
    """Return the columns of the particles from those read: energy from momentum and mass.

    Where they began (``vx``, ``vy``) is NaN where it was not read.

    UserError, which begins with ``where`` (file: collection), if momenta are not finite.
    """
    px, py, pz, mass = (read[name].astype(np.float64) for name in ("px", "py", "pz", "mass"))
    energy = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    if not np.all(np.isfinite(energy)):
        raise UserError(f"{where} holds momenta that are not finite; simulate the file again")
    return {
        "pdg": read["pdg"].astype(np.int32),
        "status": np.where(_of_simulation(read), 0, read["status"]).astype(np.int32),
        "charge": whole_charge(read["charge"]),
        "px": px,
        "py": py,
        "pz": pz,
        "energy": energy,
        **{
            name: read[name].astype(np.float64) if name in read else np.full(len(energy), np.nan)
            for name in ("vx", "vy")
        },
    }


def _of_simulation(read: Table) -> BoolArray:
    """Tell which particles the simulation made, whatever their generatorStatus says."""
    if "simulator_status" not in read:
        return np.zeros(len(read["status"]), bool)
    bits = read["simulator_status"].astype(np.int64)
    return np.asarray(bits & CREATED_IN_SIMULATION != 0)


def combined(parts: Sequence[Pairs]) -> Pairs:
    """Return the pairs of all parts."""
    if len(parts) == 1:
        return parts[0]
    return Pairs(
        *(
            np.concatenate([empty, *(getattr(part, key) for part in parts)])
            for key, empty in vars(Pairs.none()).items()
        )
    )


def joined(first: Pairs, second: Pairs, n_middle: int) -> Pairs:
    """Return all pairs that meet in one of ``n_middle`` rows.

    A pair is (left of ``first``, right of ``second``, weight of ``second``).
    """
    left, chosen = kernels.join(first.left, first.right, second.left, n_middle)
    return Pairs(left, second.right[chosen], second.weight[chosen])


def grouped(pairs: Pairs, n_left: int, n_right: int) -> Pairs:
    """Return one pair for each (left, right), with the summed weight, sorted."""
    return Pairs(*kernels.group(pairs.left, pairs.right, pairs.weight, n_left, n_right))


def joined_sums(first: Pairs, second: Pairs, n_left: int, n_middle: int, n_right: int) -> Pairs:
    """Return ``grouped(joined(first, second))``."""
    return Pairs(
        *kernels.join_and_group(
            first.left,
            first.right,
            second.left,
            second.right,
            second.weight,
            n_left,
            n_middle,
            n_right,
        )
    )


ORIGIN = ("collection", "index")  # columns of a row's place in the file, where that is asked for


@dataclass(frozen=True)
class Origin:
    """What leads back to the file of a chunk of events.

    ``collections`` gives ID and meaning (``track``, ``cluster``, ``hit``) of those that the columns
    ``ORIGIN`` of tracks, clusters and hits refer to, by name.
    """

    event_number: Array  # as the file has it; where it has none, the position
    time_stamp: Array
    collections: Mapping[str, tuple[int, str]]


def with_origin(table: Table, collection: Array, index: Array) -> Table:
    """Return a table whose rows say which row of which collection they are."""
    return Table(table.offsets, {**table.columns, "collection": collection, "index": index})


@dataclass
class RawEvents:
    """A chunk of events as the file has it, invalid rows included.

    ``counts`` tells what the reader itself had to leave out. The module ``reader`` gives the
    columns' units.
    """

    run_number: Array
    # that of the file; where events share theirs or have none, their position in it
    event_number: Array
    own_number: Array  # that of the file in any case, 0 where it has none
    weight: FloatArray
    particles: Table  # pdg, status, charge, px, py, pz, energy, vx, vy
    parents: Pairs  # particle -> parent
    tracks: Table  # chi2, ndf, n_hits, dedx, radius_innermost_hit
    states: Table  # location, d0, phi, omega, z0, tan_lambda, x, y, z
    track_states: Pairs  # track -> state
    # energy, x, y, z, and energy_ecal, energy_hcal, energy_other where the file tells
    clusters: Table
    hits: Table  # energy, x, y, z, time, system (0 ECAL, 1 HCAL, 2 other)
    cluster_hits: Pairs  # cluster -> hit
    hit_links: Pairs  # hit -> particle, weight
    cluster_links: Pairs  # cluster -> particle, weight
    track_links: Pairs  # track -> particle, weight
    candidates: Table  # pdg, charge, px, py, pz, energy
    candidate_tracks: Pairs  # candidate -> track
    candidate_clusters: Pairs  # candidate -> cluster
    more_than_hits: bool = True  # the file has tracks or clusters
    linked_hits: bool = True  # the file has hits and tells which particles left them
    truth_from_hits: bool = True  # False: not so, or clusters without hits; cluster links must do
    # of each cluster, how many hits are in collections that are not read, and these; None: none
    unread_hits: FloatArray | None = None
    unread_collections: tuple[str, ...] = ()
    # clusters whose truth is that of their links, not of their hits (``dataset.elements``)
    by_links: BoolArray | None = None
    counts: dict[str, int] = field(default_factory=dict)
    origin: Origin | None = None  # where truth was not read

    @property
    def n_events(self) -> int:
        """Events of the chunk."""
        return len(self.weight)

    @property
    def n_tracks_without_state(self) -> int:
        """Tracks that have no state at the interaction point."""
        at_ip = self.states["location"][self.track_states.right] == AT_IP
        return self.tracks.n_rows - len(np.unique(self.track_states.left[at_ip]))
