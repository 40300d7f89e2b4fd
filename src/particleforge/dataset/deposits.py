"""What each particle left in hits, clusters and tracks.

Inputs -> outputs: hits, links and clusters of ``RawEvents`` -> weighted pairs (cluster, particle,
GeV) and (track, particle, share), and each particle's deposited energy.

A particle's energy in a hit is its share of the hit's link weights times the calibrated energy of
the hit; its energy in a cluster is the sum over the cluster's hits. In clusters without linked
hits, or with hits that are not read, the share of the cluster's link weights times the energy of
the cluster takes its place (``RawEvents.by_links``). Weights that are not positive count as none. A
track's share is the link weight (the share of the track's hits), scaled down where the weights of
one track add up to more than one. Invariant: no hit, cluster or track gives away more than it has.
"""

from dataclasses import dataclass

import numpy as np

from particleforge.dataset.ancestry import Ancestry, descendants
from particleforge.edm4hep.raw_events import (
    BoolArray,
    FloatArray,
    IntArray,
    Pairs,
    RawEvents,
    combined,
    grouped,
    joined_sums,
    summed,
)


@dataclass(frozen=True)
class Deposits:
    """What particles left; rows of particles are those of the particle table."""

    energy: FloatArray  # [n_particles] GeV
    in_clusters: Pairs  # cluster -> particle, GeV
    on_tracks: Pairs  # track -> particle, share


def deposits(events: RawEvents) -> Deposits:
    """Return what every entry of the history itself left."""
    n_particles = events.particles.n_rows
    tracks = _shares(events.track_links, events.tracks.n_rows, at_least=1.0)
    by_links = events.by_links
    assert by_links is not None  # set with the elements
    share = _shares(events.cluster_links, events.clusters.n_rows)
    share = share.where(by_links[share.left])
    shared = Pairs(share.left, share.right, share.weight * events.clusters["energy"][share.left])
    in_clusters = grouped(shared, events.clusters.n_rows, n_particles)
    energy = summed(shared.right, shared.weight, n_particles)
    if events.truth_from_hits:
        share = _shares(events.hit_links, events.hits.n_rows)
        in_hits = Pairs(share.left, share.right, share.weight * events.hits["energy"][share.left])
        members = events.cluster_hits.where(~by_links[events.cluster_hits.left])
        of_hits = joined_sums(
            members, in_hits, events.clusters.n_rows, events.hits.n_rows, n_particles
        )
        in_clusters = combined([of_hits, in_clusters]) if np.any(by_links) else of_hits
        # what lies in clusters of links alone is counted there
        counted = np.zeros(events.hits.n_rows, bool)
        counted[events.cluster_hits.right[by_links[events.cluster_hits.left]]] = True
        counted[members.right] = False
        in_hits = in_hits.where(~counted[in_hits.left])
        energy = energy + summed(in_hits.right, in_hits.weight, n_particles)
    return Deposits(energy, in_clusters, grouped(tracks, events.tracks.n_rows, n_particles))


def handed_down(own: Deposits, ancestry: Ancestry, invisible: BoolArray) -> Deposits:
    """Hand down what a decayed particle left, as links say, to those that came of it.

    It left that through its descendants, so it goes to the truth particles among these, in
    proportion to their energies: to those of which nothing else is known, or else to all. They must
    not be ``invisible``. What has no such descendant stays where it is. Rows are entries.
    """
    lost = (ancestry.heir < 0) & (own.energy > 0)
    if not np.any(lost):
        return own
    known = ancestry.heir >= 0
    left = summed(ancestry.heir[known], own.energy[known], len(own.energy))
    takes = ancestry.selected & ~invisible & (ancestry.p4[:, 3] > 0)
    of, to = descendants(ancestry.parent, lost, np.flatnonzero(takes))
    weight = np.where(left[to] > 0, 0.0, ancestry.p4[to, 3])
    none_free = summed(of, weight, len(lost)) == 0
    weight = np.where(none_free[of], ancestry.p4[to, 3], weight)
    order = np.argsort(of, kind="stable")
    order = order[weight[order] > 0]
    of, to, weight = of[order], to[order], weight[order]
    share = weight / summed(of, weight, len(lost))[of]
    stays = np.ones(len(lost), bool)
    stays[of] = False
    energy = np.where(stays, own.energy, 0.0) + summed(to, own.energy[of] * share, len(lost))
    kept = own.in_clusters.where(stays[own.in_clusters.right])
    moved = own.in_clusters.where(~stays[own.in_clusters.right])
    first, count = np.searchsorted(of, moved.right), np.bincount(of, minlength=len(lost))
    pair = np.repeat(np.arange(len(moved.right)), count[moved.right])
    member = np.arange(len(pair)) - np.searchsorted(pair, pair) + first[pair]
    given = Pairs(moved.left[pair], to[member], moved.weight[pair] * share[member])
    return Deposits(energy, combined([kept, given]), own.on_tracks)


def inherited(own: Deposits, heir: IntArray, n_clusters: int, n_particles: int) -> Deposits:
    """Hand what entries left to their heirs.

    ``heir`` maps entries to rows of ``n_particles`` truth particles, or -1.

    Tracks are not inherited: a track belongs to the particle that made it (see ``ancestry``).
    """
    known = heir >= 0
    energy = summed(heir[known], own.energy[known], n_particles)
    return Deposits(
        energy,
        grouped(own.in_clusters.renumber(right=heir), n_clusters, n_particles),
        own.on_tracks,
    )


def _shares(links: Pairs, n_left: int, at_least: float = 0.0) -> Pairs:
    """Divide weights by their sum over each left row, or by ``at_least`` if that is larger."""
    links = links.where(links.weight > 0)
    total = np.maximum(summed(links.left, links.weight, n_left), at_least)
    return Pairs(links.left, links.right, links.weight / total[links.left])
