"""Response of the calorimeters and the muon system: particles at the calorimeter's face -> hits.

Input: ``Entering`` (GeV, mm) of a batch of events. Output: ``Hits`` ordered by event and cell
identifier, with the particles that left energy in each. Showers (``showers``) are sampled as spots
along straight rays and collected in the cells of ``calorimeter_geometry``; every cell gets Gaussian
noise and must pass the threshold of its calorimeter.

Invariants: a hit's contributions sum to its energy without noise; events do not see each other; the
same generator state gives the same hits. Memory is bounded by working through groups of events of a
limited number of spots.
"""

import itertools
from dataclasses import fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from particleforge.config.geometry import CalorimeterConfig
from particleforge.config.settings import SimulateSettings
from particleforge.edm4hep.constants import PHOTON
from particleforge.simulation import calorimeter_geometry as geometry
from particleforge.simulation.columns import Entering, Hits, Ints, Kind, SubDetector
from particleforge.simulation.showers import (
    Material,
    Spots,
    electromagnetic_showers,
    fluctuated,
    hadronic_showers,
    ionisation,
    relative_resolution,
)

# SubDetector of each HitCollection
SUBDETECTOR = np.array(
    [SubDetector.ECAL, SubDetector.ECAL, SubDetector.HCAL, SubDetector.HCAL, SubDetector.MUON]
)
_CONVERSION_X0 = 9 / 7  # mean depth at which a photon converts
_SPOTS_PER_GROUP = 1_000_000
_ENERGY_MIN_GEV = 1e-3  # particles below leave nothing that passes a threshold


def simulate_hits(
    entering: Entering, n_events: int, settings: SimulateSettings, rng: np.random.Generator
) -> Hits:
    """Return the hits that particles leave.

    Args:
        entering: particles at the calorimeter's face, ordered by event; rows with less than 1 MeV
            are ignored.
        n_events: events in the batch, those without particles included (they get noise hits if
            configured).
        settings: its calorimeter block is read.
        rng: source of all randomness.
    """
    calorimeter = settings.calorimeter
    entering = entering.take(entering.energy > _ENERGY_MIN_GEV)
    per_gev = max(part.spots_per_gev for part in (calorimeter.ecal, calorimeter.hcal))
    spots_before = (
        np.cumsum(np.bincount(entering.event, entering.energy, minlength=n_events)) * per_gev
    )
    group = (spots_before // _SPOTS_PER_GROUP).astype(np.int64)
    edges = [*(np.flatnonzero(np.diff(group, prepend=-1)).tolist() or [0]), n_events]
    bounds = np.searchsorted(entering.event, edges)
    parts = []
    for k, (first, last) in enumerate(itertools.pairwise(edges)):
        inside = entering.take(np.arange(bounds[k], bounds[k + 1]))
        parts.append(_hits_of_group(inside, first, last, calorimeter, rng))
    return _joined(parts)


def _hits_of_group(
    entering: Entering,
    first: int,
    last: int,
    calorimeter: CalorimeterConfig,
    rng: np.random.Generator,
) -> Hits:
    """Return the hits of events ``first`` to ``last - 1``."""
    volumes = geometry.volume_table(calorimeter)
    origin = np.stack([entering.x, entering.y, entering.z], axis=1).astype(np.float64)
    direction = np.stack([entering.dx, entering.dy, entering.dz], axis=1).astype(np.float64)
    rays = geometry.trace_rays(volumes, origin, direction)
    spots, through, energy_left = _spots(entering, calorimeter, rays, volumes, rng)
    cells = geometry.cells_of_points(
        volumes,
        spots.row,
        spots.distance,
        spots.slot,
        spots.u,
        spots.v,
        rays.origin,
        rays.direction,
        rays.side_u,
        rays.side_v,
        rays.volume,
    )
    chamber_row, chamber_cell = _chamber_hits(
        through[energy_left > calorimeter.muon.coil_loss_gev], calorimeter, rays, rng
    )
    chamber_energy = (
        calorimeter.muon.hit_energy_mev / 1e3 * rng.gamma(9.0, 1 / 9.0, chamber_row.size)
    )
    row = np.concatenate([spots.row, chamber_row])
    cells = np.concatenate([cells, chamber_cell])
    scale = np.array(
        [
            *(
                geometry.part_of_volume(calorimeter, index).calibration
                for index in range(geometry.N_VOLUMES)
            ),
            1.0,
        ]
    )
    energy = (
        np.concatenate([spots.energy, chamber_energy]) * scale[geometry.collection_of_cells(cells)]
    )
    order = np.argsort(row, kind="stable")
    event, cell, hit_energy, c_hit, c_row, c_energy = _collect(
        row[order], cells[order], energy[order], entering.event.astype(np.int64)
    )
    event, cell, hit_energy, c_hit = _with_noise_cells(
        event, cell, hit_energy, c_hit, first, last, calorimeter, rng
    )
    return _digitised(
        event, cell, hit_energy, (c_hit, entering.particle[c_row], c_energy), calorimeter, rng
    )


def _spots(
    entering: Entering,
    calorimeter: CalorimeterConfig,
    rays: geometry.Rays,
    volumes: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[Spots, NDArray[np.int64], NDArray[np.float64]]:
    """Return all spots, and the rays and energies of ionising particles that leave at the back."""
    energy = entering.energy.astype(np.float64)
    n = len(entering)
    hadron = entering.kind == Kind.HADRON
    stop = np.full(n, np.inf)
    stop_slot = np.full(n, -1, np.int8)
    rows = np.flatnonzero(hadron)
    stop[rows], stop_slot[rows] = geometry.distance_at_depth(
        rows, rng.standard_exponential(rows.size), rays.interaction, rays.start, rays.length
    )
    ionising = np.flatnonzero((entering.kind != Kind.ELECTROMAGNETIC) & (entering.charge != 0))
    tracks, lost = ionisation(
        ionising, energy[ionising], stop[ionising], calorimeter, rays, volumes, rng
    )
    left = energy.copy()
    left[ionising] -= lost
    parts = [tracks]

    rows = np.flatnonzero(hadron & (stop_slot >= 0) & (left > _ENERGY_MIN_GEV))
    material = Material.of(calorimeter, rays.volume[rows, stop_slot[rows]])
    parts += hadronic_showers(
        rows, left[rows], stop[rows], material, rays, calorimeter.hadron_spots_per_gev, rng
    )

    rows = np.flatnonzero((entering.kind == Kind.ELECTROMAGNETIC) & (rays.length[:, 0] > 0))
    material = Material.of(calorimeter, rays.volume[rows, 0])
    start = np.where(
        entering.pdg[rows] == PHOTON, _CONVERSION_X0 * rng.standard_exponential(rows.size), 0.0
    )
    visible = fluctuated(
        energy[rows], relative_resolution(energy[rows], material.em_resolution), rng
    )
    parts.append(electromagnetic_showers(rows, energy[rows], visible, start, material, rays, rng))

    through = ionising[(stop_slot[ionising] < 0) & (left[ionising] > _ENERGY_MIN_GEV)]
    return Spots.joined(parts), through, left[through]


def _chamber_hits(
    through: NDArray[np.int64],
    calorimeter: CalorimeterConfig,
    rays: geometry.Rays,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return rays and cells of the efficient crossings of muon chambers."""
    row, cell = geometry.chamber_crossings(calorimeter.muon, rays, through)
    seen = rng.random(row.size) < calorimeter.muon.hit_efficiency
    return row[seen], cell[seen]


@njit(cache=True)
def _collect(row, cell, energy, event_of_row):  # type: ignore[no-untyped-def]
    """Sum spots, ordered by row, into cells per event and contributions per cell and row.

    Returns event, cell and energy of each hit; hit, row and energy of each contribution. One
    open-addressing hash table serves all events: an entry is alive only if it is stamped with the
    current event.
    """
    no_cell = np.uint64(0xFFFFFFFFFFFFFFFF)
    n = row.size
    size, begin, largest = 16, 0, 1
    for k in range(1, n + 1):
        if k == n or event_of_row[row[k]] != event_of_row[row[begin]]:
            largest, begin = max(largest, k - begin), k
    while size < 2 * largest:
        size *= 2
    stamp, slot_hit = np.full(size, -1, np.int64), np.empty(size, np.int64)
    hit_event, hit_cell, hit_energy = np.empty(n, np.int32), np.empty(n, np.uint64), np.zeros(n)
    # newest contribution of a hit; rows come in order, so an older one is of another particle
    newest = np.empty(n, np.int64)
    c_hit, c_row, c_energy = np.empty(n, np.int64), np.empty(n, np.int64), np.zeros(n)
    n_hits, n_contributions = 0, 0
    for k in range(n):
        if cell[k] == no_cell or energy[k] <= 0:
            continue
        event = event_of_row[row[k]]
        mixed = (cell[k] ^ (cell[k] >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
        slot = np.int64((mixed >> np.uint64(32)) & np.uint64(size - 1))
        while stamp[slot] == event and hit_cell[slot_hit[slot]] != cell[k]:
            slot = (slot + 1) & (size - 1)
        if stamp[slot] != event:
            stamp[slot], slot_hit[slot] = event, n_hits
            hit_event[n_hits], hit_cell[n_hits], newest[n_hits] = event, cell[k], -1
            n_hits += 1
        hit = slot_hit[slot]
        hit_energy[hit] += energy[k]
        if newest[hit] < 0 or c_row[newest[hit]] != row[k]:
            newest[hit] = n_contributions
            c_hit[n_contributions], c_row[n_contributions] = hit, row[k]
            n_contributions += 1
        c_energy[newest[hit]] += energy[k]
    hits, contributions = slice(0, n_hits), slice(0, n_contributions)
    return (
        hit_event[hits].copy(),
        hit_cell[hits].copy(),
        hit_energy[hits].copy(),
        c_hit[contributions].copy(),
        c_row[contributions].copy(),
        c_energy[contributions].copy(),
    )


def _with_noise_cells(
    event: NDArray[np.int32],
    cell: NDArray[np.uint64],
    energy: NDArray[np.float64],
    c_hit: NDArray[np.int64],
    first: int,
    last: int,
    calorimeter: CalorimeterConfig,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.float64], NDArray[np.int64]]:
    """Return hits ordered by event and cell, with cells of zero energy that noise is going to lift.

    ``c_hit`` follows the order.
    """
    events, cells = [event], [cell]
    volumes = geometry.volume_table(calorimeter)
    for index in range(geometry.N_VOLUMES):
        share = 0.5  # barrel and endcap of a calorimeter get half of its noise each
        mean = geometry.part_of_volume(calorimeter, index).noise_cells_per_event * share
        if mean == 0:
            continue
        count = rng.poisson(mean, last - first)
        events.append(np.repeat(np.arange(first, last, dtype=np.int32), count))
        cells.append(_random_cells(volumes, index, int(count.sum()), rng))
    if len(events) > 1:
        extra_event, extra_cell = np.concatenate(events[1:]), np.concatenate(cells[1:])
        event = np.concatenate([event, extra_event])
        cell = np.concatenate([cell, extra_cell])
        energy = np.concatenate([energy, np.zeros(len(extra_event))])
    order = np.lexsort((energy == 0, cell, event))
    event, cell, energy = event[order], cell[order], energy[order]
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    again = np.zeros(order.size, np.bool_)  # noise cells that were hit anyway
    again[1:] = (event[1:] == event[:-1]) & (cell[1:] == cell[:-1])
    place = (np.cumsum(~again) - 1)[place]
    return event[~again], cell[~again], energy[~again], place[c_hit]


def _random_cells(
    volumes: NDArray[np.float64], index: int, n: int, rng: np.random.Generator
) -> NDArray[np.uint64]:
    """Return the cells of a volume at n random points."""
    low, high, cross_min, cross_max = volumes[index, :4]
    phi = rng.uniform(0, 2 * np.pi, n)
    sign = rng.choice([-1.0, 1.0], n)
    depth = rng.uniform(low, high, n)
    cross = (
        np.sqrt(rng.uniform(cross_min**2, cross_max**2, n))
        if index % 2
        else rng.uniform(cross_min, cross_max, n)
    )
    radius, z = (cross, sign * depth) if index % 2 else (depth, sign * cross)
    origin = np.stack([radius * np.cos(phi), radius * np.sin(phi), z], axis=1)
    zero, unused, slot = np.zeros(n), np.zeros((n, 3)), np.zeros(n, np.int8)
    own = np.full((n, geometry.N_VOLUMES), index)
    cells: NDArray[np.uint64] = geometry.cells_of_points(
        volumes, np.arange(n), zero, slot, zero, zero, origin, unused, unused, unused, own
    )
    return cells


def _digitised(
    event: NDArray[np.int32],
    cell: NDArray[np.uint64],
    energy: NDArray[np.float64],
    contributions: tuple[NDArray[np.int64], Ints, NDArray[np.float64]],
    calorimeter: CalorimeterConfig,
    rng: np.random.Generator,
) -> Hits:
    """Add noise, apply thresholds and place the hits at the centres of their cells."""
    collection = geometry.collection_of_cells(cell)
    parts = [geometry.part_of_volume(calorimeter, index) for index in range(geometry.N_VOLUMES)]
    noise, threshold = (
        np.array([*values, 0.0])[collection] / 1e3
        for values in ([part.noise_mev for part in parts], [part.threshold_mev for part in parts])
    )
    pure_noise = energy == 0
    measured = energy + noise * rng.standard_normal(energy.size)
    # Noise over threshold falls off like the tail of a Gaussian: exponentially, with the length
    # noise^2 / threshold.
    tail = noise**2 / np.maximum(threshold, noise + 1e-12) * rng.standard_exponential(energy.size)
    measured = np.where(pure_noise, threshold + tail, measured)
    dead = np.array([*(part.dead_cells_fraction for part in parts), 0.0])[collection]
    kept = (measured >= threshold) & (measured > 0) & (_uniform_of(cell) >= dead)
    place = np.cumsum(kept) - 1
    c_hit, c_particle, c_energy = contributions
    c_kept = kept[c_hit]
    c_hit = place[c_hit[c_kept]]
    order = np.argsort(c_hit, kind="stable")
    cell = cell[kept]
    x, y, z = geometry.cell_centres(calorimeter, cell)
    return Hits(
        event=event[kept],
        collection=collection[kept],
        cell_id=cell,
        energy=measured[kept],
        x=x,
        y=y,
        z=z,
        contribution_hit=c_hit[order],
        contribution_particle=np.asarray(c_particle)[c_kept][order],
        contribution_energy=c_energy[c_kept][order],
    )


def _uniform_of(cell: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return a number from 0 to 1 for each cell, always the same for the same cell.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 17).
    """
    mixed = cell * np.uint64(0x9E3779B97F4A7C15)  # neighbouring cells have neighbouring numbers
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _joined(parts: list[Hits]) -> Hits:
    """Return the hits of groups of events, in order."""
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Hits)}
    before = np.cumsum([0, *(len(part) for part in parts[:-1])])
    columns["contribution_hit"] = [
        hit + offset for hit, offset in zip(columns["contribution_hit"], before, strict=True)
    ]
    return Hits(**{name: np.concatenate(arrays) for name, arrays in columns.items()})
