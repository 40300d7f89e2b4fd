"""Truth of a chunk: truth particles, what became of them, and the target of every element.

The energy accounting is closed.

Inputs -> outputs: valid ``RawEvents`` -> ``schema.PARTICLES``, ``TARGETS``, ``TRACK_LINKS``,
``CLUSTER_LINKS`` and the ``Balance`` in GeV. docs/truth.md explains the rules; in short:

1. ``deposits`` says what every entry of the history left, ``ancestry`` who inherits it.
2. A particle is visible if it is no neutrino and made a share of a track, or left more than a share
   of its energy in the calorimeters or, if charged, more than an absolute energy; outside their
   acceptance it must have left most of its energy (thresholds: ``settings.dataset``).
3. In descending energy each visible particle takes the free track that it made most of, else the
   free cluster that it left most in. Without either it is merged into the owner of its strongest
   cluster, or dropped if it left nothing there.
4. A target is the four-momentum sum of an element's owner and what was merged into it; its class
   follows the host.

Invariants: an element has at most one owner; visible energy = target energy + dropped energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from particleforge.config.dataset import DatasetConfig
from particleforge.config.detector import ParticleClass
from particleforge.dataset.ancestry import Bending, trace
from particleforge.dataset.balance import Balance, balance_of
from particleforge.dataset.classes import absolute_eta, class_by_host, class_of
from particleforge.dataset.deposits import Deposits, deposits, handed_down, inherited
from particleforge.edm4hep.constants import is_neutrino
from particleforge.edm4hep.raw_events import (
    Array,
    BoolArray,
    FloatArray,
    IntArray,
    Pairs,
    RawEvents,
    Table,
    summed,
)
from particleforge.tables import schema

_P4 = ("px", "py", "pz", "energy")


@dataclass(frozen=True)
class Truth:
    """Columns of the dataset that the truth gives."""

    particles: Table
    targets: Table
    track_links: Table
    cluster_links: Table
    balance: Balance


def build_truth(
    events: RawEvents,
    rules: DatasetConfig,
    classes: Sequence[ParticleClass],
    abs_eta_max: float,
    bending: Bending,
) -> Truth:
    """Return the truth of a chunk of valid events (see ``elements.valid_events``).

    ``abs_eta_max`` is the calorimeters' acceptance.
    """
    own = deposits(events)
    strong = own.on_tracks.where(own.on_tracks.weight >= rules.visible_track_share_min)
    ancestry = trace(
        events.particles,
        events.parents,
        own.energy,
        _named(strong, events.particles.n_rows),
        _largest(own.on_tracks, events),
        bending,
    )
    particles, row = events.particles.select(ancestry.selected)
    heir = np.where(ancestry.heir >= 0, row[ancestry.heir], -1)
    own = handed_down(own, ancestry, is_neutrino(events.particles["pdg"]))
    left = inherited(own, heir, events.clusters.n_rows, particles.n_rows)
    left = Deposits(left.energy, left.in_clusters, own.on_tracks.renumber(right=row))
    strong = strong.renumber(right=row)
    made_track = _named(strong, particles.n_rows)
    p4 = ancestry.p4[ancestry.selected]
    eta = absolute_eta(p4[:, 0], p4[:, 1], p4[:, 2])
    accepted = eta <= abs_eta_max
    visible = _visible(particles, p4, left.energy, made_track, rules, accepted)
    order = np.lexsort((np.arange(particles.n_rows), -p4[:, 3]))
    fate, track, cluster = _assign(
        order[visible[order]],
        *_by_particle(strong, particles.n_rows),
        *_by_particle(left.in_clusters, particles.n_rows),
        events.tracks.n_rows,
        events.clusters.n_rows,
    )
    element = _elements(events, particles, track, cluster)
    targets = _targets(events, particles, p4, fate, track, cluster, classes)
    columns = {name: particles[name] for name in ("pdg", "charge")}
    columns |= dict(zip(_P4, p4.T, strict=True))
    class_id = class_of(classes, particles["pdg"], particles["charge"] != 0, eta)
    columns |= {"class_id": class_id, "fate": fate, "element": element}
    columns["deposited_energy"] = left.energy
    table = Table(particles.offsets, columns)
    spoilt = np.zeros(particles.n_rows, bool)
    spoilt[heir[events.particles["made_unusable"] & (heir >= 0)]] = True
    balance = _balance(table, targets, spoilt, accepted, made_track)
    unlinked = np.ones(events.clusters.n_rows, bool)
    unlinked[own.in_clusters.left] = False
    balance.clusters = float(events.clusters["energy"].sum())
    balance.unlinked_clusters = float(events.clusters["energy"][unlinked].sum())
    balance.deposits = float(own.energy.sum())
    balance.orphan_deposits = float(own.energy[heir < 0].sum())
    balance.n_stand_ins, balance.n_split = ancestry.n_stand_ins, ancestry.n_split
    return Truth(
        table,
        targets,
        _links(left.on_tracks, events.tracks, particles, "track", "weight"),
        _links(left.in_clusters, events.clusters, particles, "cluster", "energy"),
        balance,
    )


def _balance(
    particles: Table, targets: Table, spoilt: BoolArray, accepted: BoolArray, made_track: BoolArray
) -> Balance:
    """Return the balance of truth particles from what is known of each.

    ``spoilt``: made an unusable element; ``accepted``: flies within the acceptance.
    """
    rest = np.ones(particles.n_rows, bool)
    return balance_of(
        particles["energy"],
        particles["fate"],
        targets["energy"],
        invisible={
            "neutrinos": is_neutrino(particles["pdg"]),
            "unusable": spoilt,
            "outside": ~accepted,
            "faint": rest,
        },
        dropped={
            "dropped_unusable": spoilt,
            "dropped_shared_track": made_track,
            "dropped_no_cluster": rest,
        },
    )


def _named(pairs: Pairs, n_right: int) -> BoolArray:
    """Tell which right rows occur in the pairs."""
    named = np.zeros(n_right, bool)
    named[pairs.right] = True
    return named


def _largest(on_tracks: Pairs, events: RawEvents) -> BoolArray:
    """Tell which entries made the largest share of a track."""
    order = np.lexsort((on_tracks.right, -on_tracks.weight, on_tracks.left))
    first = np.append(True, np.diff(on_tracks.left[order]) > 0)[: len(order)]
    best = np.zeros(events.particles.n_rows, bool)
    best[on_tracks.right[order[first]]] = True
    return best


def _visible(
    particles: Table,
    p4: FloatArray,
    left: FloatArray,
    made_track: BoolArray,
    rules: DatasetConfig,
    accepted: BoolArray,
) -> BoolArray:
    seen = left > rules.visible_fraction_min * p4[:, 3]
    seen |= (particles["charge"] != 0) & (left > rules.visible_charged_energy_gev)
    # What flies past the calorimeters and sheds a little into them cannot be reconstructed from
    # that.
    seen &= accepted | (left > rules.visible_fraction_outside_min * p4[:, 3])
    seen |= made_track
    return seen & (p4[:, 3] > 0) & ~is_neutrino(particles["pdg"])


def _by_particle(pairs: Pairs, n_particles: int) -> tuple[IntArray, IntArray]:
    """Return the left rows of each particle, best first, as (offsets, rows)."""
    order = np.lexsort((pairs.left, -pairs.weight, pairs.right))
    counts = np.bincount(pairs.right, minlength=n_particles)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), pairs.left[order]


@numba.njit(cache=True)
def _assign(order, track_offsets, tracks, cluster_offsets, clusters, n_tracks, n_clusters):  # type: ignore[no-untyped-def]
    """Give visible particles, in ``order``, an element each.

    Return fate and the rows of track and cluster (or -1).
    """
    n_particles = len(track_offsets) - 1
    fate = np.full(n_particles, schema.Fate.INVISIBLE.value, np.int8)
    track, cluster = np.full(n_particles, -1, np.int64), np.full(n_particles, -1, np.int64)
    track_owner, cluster_owner = np.full(n_tracks, -1, np.int64), np.full(n_clusters, -1, np.int64)
    for particle in order:
        for i in range(track_offsets[particle], track_offsets[particle + 1]):
            if track_owner[tracks[i]] < 0:
                track_owner[tracks[i]] = particle
                track[particle] = tracks[i]
                break
        if track[particle] < 0:
            for i in range(cluster_offsets[particle], cluster_offsets[particle + 1]):
                if cluster_owner[clusters[i]] < 0:
                    cluster_owner[clusters[i]] = particle
                    cluster[particle] = clusters[i]
                    break
        if track[particle] >= 0 or cluster[particle] >= 0:
            fate[particle] = schema.Fate.HOSTED.value
        elif cluster_offsets[particle] < cluster_offsets[particle + 1]:
            cluster[particle] = clusters[cluster_offsets[particle]]
            fate[particle] = schema.Fate.MERGED.value
        else:
            fate[particle] = schema.Fate.DROPPED.value
    return fate, track, cluster


def _elements(events: RawEvents, particles: Table, track: IntArray, cluster: IntArray) -> IntArray:
    """Return element numbers within the event: tracks, then clusters."""
    event = particles.events()
    on_cluster = cluster - events.clusters.offsets[event] + events.tracks.counts[event]
    return np.where(
        track >= 0, track - events.tracks.offsets[event], np.where(cluster >= 0, on_cluster, -1)
    )


def _targets(
    events: RawEvents,
    particles: Table,
    p4: FloatArray,
    fate: Array,
    track: IntArray,
    cluster: IntArray,
    classes: Sequence[ParticleClass],
) -> Table:
    """Return ``schema.TARGETS``, one row per element."""
    event = particles.events()
    offsets = events.tracks.offsets + events.clusters.offsets
    element = offsets[event] + _elements(events, particles, track, cluster)
    hosted, merged = fate == schema.Fate.HOSTED, fate == schema.Fate.MERGED
    counted = hosted | merged
    n_elements = int(offsets[-1])
    columns: dict[str, Array] = {
        name: summed(element[counted], p4[counted, i], n_elements) for i, name in enumerate(_P4)
    }
    class_id, charge = np.zeros(n_elements, np.int8), np.zeros(n_elements, np.int8)
    owner = np.full(n_elements, -1, np.int64)
    host = element[hosted]
    on_track = track[hosted] >= 0
    eta = absolute_eta(*p4[hosted, :3].T)
    charges = particles["charge"][hosted]
    class_id[host] = class_by_host(classes, particles["pdg"][hosted], charges != 0, eta, on_track)
    # A neutral particle on a track has no charge to teach; the track's own is what a reconstruction
    # would give it.
    padded = np.append(events.tracks["charge"], 0)
    charge[host] = np.where(
        on_track,
        np.sign(np.where(charges != 0, charges, padded[np.where(on_track, track[hosted], -1)])),
        0,
    )
    owner[host] = particles.local()[hosted]
    columns |= {"class_id": class_id, "charge": charge, "particle": owner}
    columns["n_merged"] = np.bincount(element[merged], minlength=n_elements)
    return Table(offsets, columns)


def _links(pairs: Pairs, left: Table, particles: Table, name: str, weight: str) -> Table:
    """Return pairs as a table of row numbers within the event."""
    counts = np.bincount(left.events()[pairs.left], minlength=len(left.offsets) - 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    columns = {
        name: left.local()[pairs.left],
        "particle": particles.local()[pairs.right],
        weight: pairs.weight,
    }
    return Table(offsets, columns)
