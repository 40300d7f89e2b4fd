"""To which hosts the energy of each cluster belongs, for the loss of the shares.

Inputs -> outputs: selected events (``particles``, ``cluster_links``) -> per element the
``N_SHARES`` hosts with the largest shares of its energy, and the shares.

What a particle left in a cluster belongs to the element that hosts the particle, or its owner where
it was merged. What is left over is noise, or of particles that have no host: the sink's. Hosts
beyond the largest give their energy to these in proportion. Shares of an event without a single
link are not known, nor are those of tracks: 0, the sink's too.
"""

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from particleforge.tables.schema import N_SHARES, Fate

_NONE = -1


def energy_shares(events: ak.Array) -> dict[str, NDArray[np.generic]]:
    """Return ``share_host`` int32 [n_total, H] and ``share`` float32 [n_total, H + 1]."""
    n_tracks, n_clusters = (ak.to_numpy(ak.num(events[name])) for name in ("tracks", "clusters"))
    n_elements = (n_tracks + n_clusters).astype(np.int64)
    first = np.cumsum(n_elements) - n_elements  # of each event, among all elements
    total = int(n_elements.sum())
    element, host, energy = _links(events, n_tracks, first)
    event_of = np.repeat(np.arange(len(events)), n_elements)
    place = np.arange(total) - first[event_of]
    is_cluster = place >= n_tracks[event_of]
    own = np.zeros(total)
    own[is_cluster] = ak.to_numpy(ak.flatten(events.clusters.energy))
    linked = np.bincount(element, energy, minlength=total)
    element, host, energy = _summed(element, host, energy)
    whole = np.maximum(own, linked)
    hosts = np.full((total, N_SHARES), _NONE, np.int32)
    shares = np.zeros((total, N_SHARES + 1))
    hosted = host != _NONE
    given = np.bincount(element[hosted], energy[hosted], minlength=total)
    element, host, energy = element[hosted], host[hosted], energy[hosted]
    order = np.lexsort((host, -energy, element))
    element, host, energy = element[order], host[order], energy[order]
    rank = np.arange(len(element)) - np.searchsorted(element, element)
    kept = rank < N_SHARES
    hosts[element[kept], rank[kept]] = host[kept]
    shares[element[kept], rank[kept]] = energy[kept]
    kept_energy = shares[:, :N_SHARES].sum(axis=1, keepdims=True)
    scale = given[:, None] / np.where(kept_energy > 0, kept_energy, 1)
    shares[:, :N_SHARES] *= scale / np.where(whole > 0, whole, 1)[:, None]
    known = is_cluster & (np.bincount(event_of, linked, minlength=len(events)) > 0)[event_of]
    shares[:, N_SHARES] = np.where(known, 1 - shares[:, :N_SHARES].sum(axis=1), 0)
    return {"share_host": hosts, "share": np.clip(shares, 0, 1).astype(np.float32)}


def _links(
    events: ak.Array, n_tracks: NDArray[np.int64], first: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return of each link cluster (among all elements), host (in its event) and energy in GeV."""
    links, particles = events.cluster_links, events.particles
    event = np.repeat(np.arange(len(events)), ak.to_numpy(ak.num(links)))
    n_particles = ak.to_numpy(ak.num(particles)).astype(np.int64)
    particle = ak.to_numpy(ak.flatten(links.particle)).astype(np.int64)
    particle += (np.cumsum(n_particles) - n_particles)[event]
    fate, host = (ak.to_numpy(ak.flatten(particles[name])) for name in ("fate", "element"))
    has_host = np.isin(fate, (Fate.HOSTED, Fate.MERGED))
    hosts = np.where(has_host, host, _NONE).astype(np.int64)[particle]
    cluster = ak.to_numpy(ak.flatten(links.cluster)).astype(np.int64)
    energy = ak.to_numpy(ak.flatten(links.energy)).astype(np.float64)
    return first[event] + n_tracks[event] + cluster, hosts, np.maximum(energy, 0)


def _summed(
    element: NDArray[np.int64], host: NDArray[np.int64], energy: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the energies summed over particles of one host."""
    if not len(element):
        return element, host, energy
    order = np.lexsort((host, element))
    element, host, energy = element[order], host[order], energy[order]
    is_first = np.ones(len(element), bool)
    is_first[1:] = (element[1:] != element[:-1]) | (host[1:] != host[:-1])
    starts = np.flatnonzero(is_first)
    return element[starts], host[starts], np.add.reduceat(energy, starts)
