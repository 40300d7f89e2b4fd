"""Clusters of calorimeter hits.

Input: ``Hits`` (GeV, mm) ordered by event. Output: ``Clusters``. Two steps per event:

1. Fragments: within ECAL and HCAL each, every hit follows its nearest neighbour of higher energy
   density within the link distance until a peak is reached (the idea of CLUE, Rovere et al.,
   arXiv:2001.09761, section 2, with a parabolic kernel, three-dimensional distance and the link
   distance as its only parameter). Density, unlike plain linking, separates the cores of showers
   that touch. Neighbours come from a grid of cubes with the link distance as edge.
2. Merging: fragments are taken in descending energy. Each joins the cluster whose axis (the line
   from the origin through the cluster's first fragment) passes closest in units of the merge
   distance, or starts a cluster. The merge distance is that of the HCAL if either is there, and a
   larger one for fragments of little energy. The first fragment of a cluster does not move, so
   chains of fragments cannot join distant showers. An HCAL fragment is compared at its front, where
   a shower that does not point to the origin has departed least. Muon-system hits join the closest
   cluster in the same way.

Showers closer than the merge distances become one cluster: two photons of a fast pi0, or a photon
in a hadron's shower.

Invariants: events do not see each other; the result depends on the hits alone; a hit belongs to one
cluster at most.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from particleforge.config.settings import SimulateSettings
from particleforge.simulation.calorimeter import SUBDETECTOR
from particleforge.simulation.columns import Clusters, Hits, Ints, SubDetector

_FRONT_MM = 100.0  # depth over which hits count for the front of a fragment


def cluster_hits(hits: Hits, n_events: int, settings: SimulateSettings) -> Clusters:
    """Return the clusters of each event in descending energy.

    Args:
        hits: ordered by event.
        n_events: events in the batch.
        settings: its clustering and calorimeter blocks are read.
    """
    cuts, calorimeter = settings.clustering, settings.calorimeter
    detector = SUBDETECTOR[hits.collection]
    position = np.stack([hits.x, hits.y, hits.z], axis=1).astype(np.float64)
    energy = hits.energy.astype(np.float64)
    link = np.array([cuts.ecal_link_mm, cuts.hcal_link_mm])
    face = np.array([calorimeter.hcal.barrel_inner_radius_mm, calorimeter.hcal.endcap_z_min_mm])
    merge = np.array(
        [
            [cuts.ecal_merge_mm, cuts.ecal_halo_merge_mm],
            [cuts.hcal_merge_mm, cuts.hcal_halo_merge_mm],
        ]
    )
    peak = _peaks(position, energy, detector, hits.event, link)
    point, total = _reference_points(position, energy, detector, hits.collection, peak, face)
    fragments = np.flatnonzero(peak == np.arange(len(hits)))
    fragments = fragments[np.lexsort((fragments, -total[fragments], hits.event[fragments]))]
    bounds = np.searchsorted(hits.event[fragments], np.arange(n_events + 1))
    leader = _merge_fragments(
        detector, fragments, bounds, point, total, merge, cuts.halo_energy_fraction
    )
    first = np.where(peak >= 0, leader[peak], -1)
    muon = np.flatnonzero(peak < 0)
    first[muon] = _join_muon_hits(
        position[muon], hits.event[muon], leader, fragments, bounds, point, cuts.muon_merge_mm
    )
    return _build(hits, position, energy, detector, first, cuts.energy_min_mev / 1e3)


def _cubes(position: NDArray[np.float64], edge: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the keys of the cubes, of edge length ``edge`` per hit, that hits lie in.

    Z runs fastest.
    """
    x, y, z = (np.floor(position / edge[:, None]).astype(np.int64) + 1_000_000).T
    return np.asarray((x << 42) | (y << 21) | z)


@njit(cache=True)
def _neighbour_ranges(keys):  # type: ignore[no-untyped-def]
    """Return, per entry of the sorted ``keys``, its 9 ranges in the 27 cubes around it, [n, 9, 2].

    Three cubes that follow each other in z are one range. Both ends of a range only move forward as
    the key grows.
    """
    ranges = np.zeros((keys.size, 9, 2), np.int64)
    for neighbour in range(9):
        shift = ((neighbour // 3 - 1) << 42) + ((neighbour % 3 - 1) << 21)
        begin, end = 0, 0
        for k in range(keys.size):
            low = keys[k] + shift - 1
            while begin < keys.size and keys[begin] < low:
                begin += 1
            while end < keys.size and keys[end] <= low + 2:
                end += 1
            ranges[k, neighbour, 0], ranges[k, neighbour, 1] = begin, end
    return ranges


@njit(cache=True)
def _densities(point, energy, ranges, link):  # type: ignore[no-untyped-def]
    """Return the energy within the link distance of each hit, weighted by nearness.

    The weight is 1 at no distance and 0 at the link distance.
    """
    density = np.zeros(energy.size)
    for a in range(energy.size):
        for r in range(9):
            for b in range(ranges[a, r, 0], ranges[a, r, 1]):
                d2 = (
                    (point[b, 0] - point[a, 0]) ** 2
                    + (point[b, 1] - point[a, 1]) ** 2
                    + (point[b, 2] - point[a, 2]) ** 2
                )
                if d2 < link * link:
                    density[a] += energy[b] * (1 - d2 / (link * link))
    return density


@njit(cache=True)
def _nearest_higher(point, density, ranges, link):  # type: ignore[no-untyped-def]
    """Return the closest hit of higher density within the link distance, else the hit itself.

    Ties go by index.
    """
    nearest = np.arange(density.size)
    for a in range(density.size):
        best_d2 = link * link
        for r in range(9):
            for b in range(ranges[a, r, 0], ranges[a, r, 1]):
                if density[b] > density[a] or (density[b] == density[a] and b < a):
                    d2 = (
                        (point[b, 0] - point[a, 0]) ** 2
                        + (point[b, 1] - point[a, 1]) ** 2
                        + (point[b, 2] - point[a, 2]) ** 2
                    )
                    if d2 < best_d2:
                        nearest[a], best_d2 = b, d2
    return nearest


@njit(cache=True)
def _follow_density(position, energy, keys, segments, link):  # type: ignore[no-untyped-def]
    """Return the hit at the density peak that each hit leads to.

    Hits come in segments (one event, one calorimeter) and in the order of their ``keys`` within;
    ``link`` is per segment.
    """
    peak = np.empty(energy.size, np.int64)
    for k in range(segments.size - 1):
        begin, end = segments[k], segments[k + 1]
        ranges = _neighbour_ranges(keys[begin:end])
        density = _densities(position[begin:end], energy[begin:end], ranges, link[k])
        nearest = _nearest_higher(position[begin:end], density, ranges, link[k])
        for a in range(end - begin):
            top = a
            while nearest[top] != top:
                top = nearest[top]
            nearest[a] = top  # a short cut for those that follow
            peak[begin + a] = begin + top
    return peak


def _peaks(
    position: NDArray[np.float64],
    energy: NDArray[np.float64],
    detector: NDArray[np.int64],
    event: Ints,
    link: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return the hit at the density peak of each ECAL and HCAL hit; -1 for muon-system hits."""
    rows = np.flatnonzero(detector < len(link))
    keys = _cubes(position[rows], link[detector[rows]])
    order = np.lexsort((keys, detector[rows], event[rows]))
    rows, keys = rows[order], keys[order]
    segment = event[rows].astype(np.int64) * len(link) + detector[rows]
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    segments = np.append(starts, len(rows))
    peak = np.full(len(energy), -1, np.int64)
    peak[rows] = rows[
        _follow_density(position[rows], energy[rows], keys, segments, link[detector[rows[starts]]])
    ]
    return peak


@njit(cache=True)
def _distance_to_axis(axis, length, direction, norm):  # type: ignore[no-untyped-def]
    """Return how far two directions are apart at the nearer of their two depths, in mm.

    Directions are unit vectors from the origin.
    """
    cosine = axis[0] * direction[0] + axis[1] * direction[1] + axis[2] * direction[2]
    if cosine < 0.8:  # further apart than any merge distance
        return 1e9
    return min(norm, length) * np.sqrt(max(1 - cosine * cosine, 0.0))


@njit(cache=True)
def _reference_points(position, energy, detector, collection, peak, faces):  # type: ignore[no-untyped-def]
    """Return positions and energies of fragments at the rows of peak hits.

    The position is that in the ECAL, or the front in the HCAL.
    """
    point, weights, total = np.zeros(position.shape), np.zeros(energy.size), np.zeros(energy.size)
    for hit in range(energy.size):
        if peak[hit] < 0:
            continue
        weight = energy[hit]
        if detector[hit] == 1:
            barrel = collection[hit] % 2 == 0
            depth = (
                np.hypot(position[hit, 0], position[hit, 1]) - faces[0]
                if barrel
                else abs(position[hit, 2]) - faces[1]
            )
            weight *= np.exp(-depth / _FRONT_MM)
        total[peak[hit]] += energy[hit]
        weights[peak[hit]] += weight
        point[peak[hit]] += weight * position[hit]
    for hit in range(energy.size):
        if peak[hit] == hit:
            point[hit] /= weights[hit]
    return point, total


@njit(cache=True)
def _merge_fragments(detector, fragments, bounds, point, total, merge, halo_fraction):  # type: ignore[no-untyped-def]
    """Return, at the rows of peak hits, the peak hit of the cluster's first fragment.

    ``fragments`` are the peak hits, by event (``bounds``) and descending energy.
    """
    leader = np.arange(total.size)
    leaders = np.empty(fragments.size, np.int64)
    axes = np.empty((fragments.size, 3))
    lengths = np.empty(fragments.size)
    for event in range(bounds.size - 1):
        n_leaders = 0
        for fragment in fragments[bounds[event] : bounds[event + 1]]:
            norm = np.sqrt((point[fragment] ** 2).sum())
            direction, best = point[fragment] / norm, 1.0
            for k in range(n_leaders):
                halo = 1 if total[fragment] < halo_fraction * total[leaders[k]] else 0
                reach = merge[max(detector[fragment], detector[leaders[k]]), halo]
                distance = _distance_to_axis(axes[k], lengths[k], direction, norm) / reach
                if distance < best:
                    leader[fragment], best = leaders[k], distance
            if leader[fragment] == fragment:
                leaders[n_leaders], axes[n_leaders], lengths[n_leaders] = fragment, direction, norm
                n_leaders += 1
    return leader


@njit(cache=True)
def _join_muon_hits(position, event, leader, fragments, bounds, point, reach):  # type: ignore[no-untyped-def]
    """Return for each muon-system hit the leader whose axis passes closest, or -1.

    The axis must pass within ``reach``.
    """
    joined = np.full(event.size, -1, np.int64)
    for hit in range(event.size):
        norm, best = np.sqrt((position[hit] ** 2).sum()), reach
        for fragment in fragments[bounds[event[hit]] : bounds[event[hit] + 1]]:
            if leader[fragment] == fragment:
                length = np.sqrt((point[fragment] ** 2).sum())
                distance = _distance_to_axis(
                    point[fragment] / length, length, position[hit] / norm, norm
                )
                if distance < best:
                    joined[hit], best = fragment, distance
    return joined


def _build(
    hits: Hits,
    position: NDArray[np.float64],
    energy: NDArray[np.float64],
    detector: NDArray[np.int64],
    first: NDArray[np.int64],
    energy_min: float,
) -> Clusters:
    """Return the clusters above ``energy_min``, numbered by event and descending energy."""
    assigned = first >= 0
    total = np.bincount(first[assigned], energy[assigned], minlength=len(hits)).astype(np.float64)
    heads = np.flatnonzero(total > max(energy_min, 0.0))
    heads = heads[np.lexsort((heads, -total[heads], hits.event[heads]))]
    number = np.full(len(hits) + 1, -1, np.int64)  # the last entry serves hits of no cluster
    number[heads] = np.arange(len(heads))
    cluster_of_hit = number[first]
    inside = cluster_of_hit >= 0
    cluster, weight = cluster_of_hit[inside], energy[inside]
    energies = np.bincount(
        cluster * len(SubDetector) + detector[inside],
        weight,
        minlength=len(heads) * len(SubDetector),
    ).astype(np.float64)
    sums = [
        np.bincount(cluster, weight * position[inside, axis], minlength=len(heads))
        for axis in range(3)
    ]
    x, y, z = (values / total[heads] for values in sums)
    return Clusters(
        event=hits.event[heads],
        energy=total[heads],
        x=x,
        y=y,
        z=z,
        energies=energies.reshape(-1, len(SubDetector)),
        cluster_of_hit=cluster_of_hit,
    )
