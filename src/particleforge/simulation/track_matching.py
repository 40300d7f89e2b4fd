"""Which clusters belong to which tracks.

Inputs: ``Tracks``, ``Clusters``, ``Hits`` of a batch (GeV, mm). A track continues in the
calorimeters as a straight line from its extrapolated point of entry. Every hit of the event is
compared with every line:

* ``near``: distance of a cluster's closest hit to the line;
* ``tube``: energy of a cluster's hits within the matching distance of the line, enlarged by half a
  cell in each calorimeter;
* muon-system hits within the matching distance of muons.

A track is assigned to the cluster with the most energy in its tube. Clusters without a track may be
fragments of the shower of a charged hadron: they join the closest group that lacks energy
(``absorb_fragments``).

Invariants: events do not see each other; ties go to the cluster of higher energy (lower row).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from particleforge.config.settings import SimulateSettings
from particleforge.simulation.calorimeter import SUBDETECTOR
from particleforge.simulation.columns import Clusters, Hits, Tracks, offsets_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BEHIND_MM = 20.0  # hits this far before the point of entry still count: cells have a size


@dataclass(frozen=True)
class Links:
    """Tracks against clusters of the same event.

    Matrices are flat: row ``track``, beginning at ``first[track]``.
    """

    first: Integers
    near: Floats  # mm
    tube: Floats  # GeV
    tube_total: Floats  # GeV, per track
    muon_hits: Integers  # per track
    track_offsets: Integers  # per event
    cluster_offsets: Integers


def link(
    tracks: Tracks, clusters: Clusters, hits: Hits, n_events: int, settings: SimulateSettings
) -> Links:
    """Return how close tracks and clusters of each event are."""
    rules, calorimeter = settings.particle_flow, settings.calorimeter
    track_offsets, cluster_offsets, hit_offsets = (
        offsets_of(np.bincount(one.event, minlength=n_events)) for one in (tracks, clusters, hits)
    )
    cells = np.array([calorimeter.ecal.cell_size_mm, calorimeter.hcal.cell_size_mm])
    reach = np.append(rules.match_distance_mm + cells / 2, rules.muon_match_mm)
    line = np.stack(
        [
            getattr(tracks, name).astype(np.float64)
            for name in ("x_calo", "y_calo", "z_calo", "dx_calo", "dy_calo", "dz_calo")
        ],
        axis=1,
    )
    position = np.stack([hits.x, hits.y, hits.z], axis=1).astype(np.float64)
    n_clusters = np.diff(cluster_offsets)[tracks.event]
    first = offsets_of(n_clusters)
    near, tube, tube_total, muon_hits = _compare(
        line,
        position,
        hits.energy.astype(np.float64),
        SUBDETECTOR[hits.collection],
        clusters.cluster_of_hit,
        reach,
        (track_offsets, cluster_offsets, hit_offsets),
        first,
    )
    return Links(first[:-1], near, tube, tube_total, muon_hits, track_offsets, cluster_offsets)


@njit(cache=True)
def _compare(line, position, energy, detector, cluster_of_hit, reach, offsets, first):  # type: ignore[no-untyped-def]
    """Compare all hits with all lines of their event; returns the members of Links."""
    track_offsets, cluster_offsets, hit_offsets = offsets
    near, tube = np.full(first[-1], 1e9), np.zeros(first[-1])
    tube_total, muon_hits = np.zeros(line.shape[0]), np.zeros(line.shape[0], np.int64)
    reach2 = reach**2
    for event in range(track_offsets.size - 1):
        for track in range(track_offsets[event], track_offsets[event + 1]):
            x, y, z, dx, dy, dz = line[track]
            base = first[track] - cluster_offsets[event]
            for hit in range(hit_offsets[event], hit_offsets[event + 1]):
                px, py, pz = position[hit, 0] - x, position[hit, 1] - y, position[hit, 2] - z
                along = px * dx + py * dy + pz * dz
                if along < -_BEHIND_MM:
                    continue
                d2 = max(px * px + py * py + pz * pz - along * along, 0.0)
                inside = d2 < reach2[detector[hit]]
                if detector[hit] == 2:
                    muon_hits[track] += inside
                    continue
                tube_total[track] += energy[hit] * inside
                if cluster_of_hit[hit] >= 0:
                    pair = base + cluster_of_hit[hit]
                    near[pair] = min(near[pair], d2)
                    tube[pair] += energy[hit] * inside
    return np.sqrt(near), tube, tube_total, muon_hits


@njit(cache=True)
def assign_tracks(first, tube, track_offsets, cluster_offsets):  # type: ignore[no-untyped-def]
    """Return the cluster (row) that each track belongs to, -1 for none."""
    cluster_of_track = np.full(first.size, -1, np.int64)
    for event in range(track_offsets.size - 1):
        begin, end = cluster_offsets[event], cluster_offsets[event + 1]
        for track in range(track_offsets[event], track_offsets[event + 1]):
            best = 0.0
            for cluster in range(begin, end):
                energy = tube[first[track] + cluster - begin]
                if energy > best:
                    cluster_of_track[track], best = cluster, energy
    return cluster_of_track


@njit(cache=True)
def absorb_fragments(  # type: ignore[no-untyped-def]
    links, cluster_of_track, expected, sigma, energy, electromagnetic, reach, n_sigma
):
    """Return each cluster's group: the cluster itself, or the one that absorbs it.

    Clusters without a track are offered, in descending energy, to the groups whose tracks pass
    within ``reach`` mm, the closest first. A group takes what keeps it below ``expected`` (GeV per
    cluster, of its tracks) plus one ``sigma``; what looks electromagnetic, so is probably a photon,
    only if it lacks more than ``n_sigma``.
    """
    first, near, track_offsets, cluster_offsets = links
    group, found = np.arange(energy.size), energy.copy()
    has_track = np.zeros(energy.size, np.bool_)
    for cluster in cluster_of_track:
        if cluster >= 0:
            has_track[cluster] = True
    for event in range(track_offsets.size - 1):
        begin = cluster_offsets[event]
        # clusters come in descending energy
        for fragment in range(begin, cluster_offsets[event + 1]):
            if has_track[fragment]:
                continue
            closest = reach
            for track in range(track_offsets[event], track_offsets[event + 1]):
                host = cluster_of_track[track]
                if host < 0 or near[first[track] + fragment - begin] >= closest:
                    continue
                lacks = expected[host] - found[host]
                if (electromagnetic[fragment] and lacks > n_sigma * sigma[host]) or (
                    not electromagnetic[fragment] and energy[fragment] < lacks + sigma[host]
                ):
                    group[fragment], closest = host, near[first[track] + fragment - begin]
            if group[fragment] != fragment:
                found[group[fragment]] += energy[fragment]
    return group
