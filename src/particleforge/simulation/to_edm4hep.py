"""The simulation's columns as EDM4hep collections.

Records of a batch of events -> the collections of one chunk of the file, named as the configuration
says. Units stay GeV, mm, ns.

Conventions, as Key4hep's reconstruction writes them (checked on a full-simulation file of CLD):
links go from the reconstructed object to the particle; the weight of a hit's link is the particle's
energy in GeV, that of a cluster's link the particle's share of the cluster's energy, that of a
track's link the share of its hits. Tracks carry the states at the interaction point, the first hit
and the calorimeter. Tracker hits are not kept: a track has references for as many as it has, and
they lead nowhere, as in a slimmed file.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from particleforge.config.collections import CollectionsConfig, first_name
from particleforge.edm4hep import datamodel
from particleforge.edm4hep.writer import HEADER, Chunk, Collection, Relation, Vector, event_headers
from particleforge.simulation import helix
from particleforge.simulation.columns import (
    Candidates,
    Clusters,
    HitCollection,
    Hits,
    Particles,
    Tracks,
)
from particleforge.simulation.helix import State

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Batch:
    """Everything of a batch of events."""

    event_numbers: Ints
    particles: Particles
    tracks: Tracks
    hits: Hits
    clusters: Clusters
    candidates: Candidates


def hit_names(names: CollectionsConfig) -> dict[HitCollection, str]:
    """Return the collection that hits of each kind go to.

    A detector that names one collection for barrel and endcap gets one.
    """
    return {
        HitCollection.ECAL_BARREL: first_name(names.ecal_hits[0]),
        HitCollection.ECAL_ENDCAP: first_name(names.ecal_hits[:2][-1]),
        HitCollection.HCAL_BARREL: first_name(names.hcal_hits[0]),
        HitCollection.HCAL_ENDCAP: first_name(names.hcal_hits[:2][-1]),
        HitCollection.MUON: first_name(names.other_hits[0]),
    }


def types_of(names: CollectionsConfig) -> dict[str, str]:
    """Return the EDM4hep type of every collection of a simulated file."""
    return {
        HEADER: datamodel.EVENT_HEADER,
        first_name(names.particles): datamodel.MCPARTICLE,
        first_name(names.tracks): datamodel.TRACK,
        dqdx_name(names): datamodel.RECDQDX,
        **dict.fromkeys(hit_names(names).values(), datamodel.CALORIMETER_HIT),
        first_name(names.clusters): datamodel.CLUSTER,
        first_name(names.candidates): datamodel.RECONSTRUCTED_PARTICLE,
        first_name(names.hit_links): datamodel.LINK,
        first_name(names.cluster_links): datamodel.LINK,
        first_name(names.track_links): datamodel.LINK,
    }


def dqdx_name(names: CollectionsConfig) -> str:
    """Return the name of the specific ionisations' collection, which follows the tracks' one."""
    return first_name(names.dqdx) if names.dqdx else f"{first_name(names.tracks)}_dQdx"


def to_chunk(
    batch: Batch, run_number: int, b_field_tesla: float, names: CollectionsConfig
) -> Chunk:
    """Return the collections of a batch."""
    places = _HitPlaces(batch.hits, names)
    tracks = batch.tracks
    dqdx = {"dQdx.value": tracks.dedx, "dQdx.error": tracks.dedx_error}
    collections = {
        HEADER: event_headers(run_number, batch.event_numbers),
        first_name(names.particles): _particles(batch.particles, names),
        first_name(names.tracks): _tracks(tracks, b_field_tesla),
        dqdx_name(names): Collection(
            tracks.event,
            dqdx,
            {"track": Relation((first_name(names.tracks),), np.arange(len(tracks)))},
        ),
        **places.collections(),
        first_name(names.clusters): _clusters(batch.clusters, places),
        first_name(names.candidates): _candidates(batch.candidates, names),
        first_name(names.hit_links): _hit_links(batch.hits, places, names),
        first_name(names.cluster_links): _cluster_links(batch, names),
        first_name(names.track_links): _track_links(tracks, names),
    }
    return Chunk(len(batch.event_numbers), collections)


def _particles(particles: Particles, names: CollectionsConfig) -> Collection:
    members = {
        "PDG": particles.pdg,
        "generatorStatus": particles.generator_status,
        "simulatorStatus": particles.simulator_status,
        "charge": particles.charge,
        "time": particles.time,
        "mass": particles.mass,
        **{f"vertex.{axis}": getattr(particles, axis) for axis in "xyz"},
        **{f"endpoint.{axis}": getattr(particles, f"endpoint_{axis}") for axis in "xyz"},
        **{f"momentum.{axis}": getattr(particles, f"p{axis}") for axis in "xyz"},
    }
    relations = {
        name: Relation(
            (first_name(names.particles),),
            getattr(particles, f"{name}_index"),
            np.diff(getattr(particles, f"{name}_offsets")),
        )
        for name in ("parents", "daughters")
    }
    return Collection(particles.event, members, relations)


def _tracks(tracks: Tracks, b_field_tesla: float) -> Collection:
    """Return tracks with three states each: interaction point, first hit, calorimeter."""
    n = len(tracks)
    at_perigee = (
        -tracks.d0 * np.sin(tracks.phi0),
        tracks.d0 * np.cos(tracks.phi0),
        tracks.z0,
        tracks.pt * np.cos(tracks.phi0),
        tracks.pt * np.sin(tracks.phi0),
        tracks.pt * tracks.tan_lambda,
        tracks.charge,
    )
    start = State(*(np.asarray(values, np.float64) for values in at_perigee))
    to_hit = helix.path_to_cylinder(
        start, np.asarray(tracks.radius_innermost_hit, np.float64), b_field_tesla
    )
    first = helix.advance(start, np.where(np.isfinite(to_hit), to_hit, 0.0), b_field_tesla)
    zero = np.zeros(n)
    states: dict[str, tuple[Any, Any, Any]] = {
        "location": (
            np.full(n, datamodel.AT_IP),
            np.full(n, datamodel.AT_FIRST_HIT),
            np.full(n, datamodel.AT_CALORIMETER),
        ),
        "D0": (tracks.d0, zero, zero),
        "Z0": (tracks.z0, zero, zero),
        "phi": (
            tracks.phi0,
            np.arctan2(first.py, first.px),
            np.arctan2(tracks.dy_calo, tracks.dx_calo),
        ),
        "omega": (tracks.omega,) * 3,
        "tanLambda": (tracks.tan_lambda,) * 3,
        "referencePoint.x": (zero, first.x, tracks.x_calo),
        "referencePoint.y": (zero, first.y, tracks.y_calo),
        "referencePoint.z": (zero, first.z, tracks.z_calo),
    }
    vectors = {
        "trackStates": Vector(
            np.full(n, 3),
            {name: np.stack(values, axis=1).ravel() for name, values in states.items()},
        ),
        "subdetectorHitNumbers": Vector(np.ones(n, np.int64), tracks.n_hits),
    }
    hits = Relation((), np.full(int(tracks.n_hits.sum()), -1), tracks.n_hits)
    return Collection(
        tracks.event, {"chi2": tracks.chi2, "ndf": tracks.ndf}, {"trackerHits": hits}, vectors
    )


class _HitPlaces:
    """Where each hit goes: its collection and its row there."""

    def __init__(self, hits: Hits, names: CollectionsConfig) -> None:
        self.hits = hits
        by_kind = hit_names(names)
        self.names = tuple(dict.fromkeys(by_kind.values()))
        number_of_kind = np.array([self.names.index(by_kind[kind]) for kind in HitCollection])
        self.which = number_of_kind[hits.collection]
        self.row = np.empty(len(hits), np.int64)
        for number in range(len(self.names)):
            rows = np.flatnonzero(self.which == number)
            self.row[rows] = np.arange(len(rows))

    def collections(self) -> dict[str, Collection]:
        """Return the hit collections."""
        return {
            name: self._collection(np.flatnonzero(self.which == number))
            for number, name in enumerate(self.names)
        }

    def _collection(self, rows: Ints) -> Collection:
        hits = self.hits
        members = {
            "cellID": hits.cell_id[rows],
            "energy": hits.energy[rows],
            "type": hits.collection[rows],
            **{f"position.{axis}": getattr(hits, axis)[rows] for axis in "xyz"},
        }
        return Collection(hits.event[rows], members)

    def relation(self, rows: Ints, counts: Ints | None = None) -> Relation:
        """Return references to these rows of Hits."""
        return Relation(self.names, self.row[rows], counts, self.which[rows])


def _clusters(clusters: Clusters, places: _HitPlaces) -> Collection:
    members = {
        "energy": clusters.energy,
        **{f"position.{axis}": getattr(clusters, axis) for axis in "xyz"},
        "iTheta": np.arctan2(np.hypot(clusters.x, clusters.y), clusters.z),
        "phi": np.arctan2(clusters.y, clusters.x),
    }
    clustered = np.flatnonzero(clusters.cluster_of_hit >= 0)
    order = clustered[np.argsort(clusters.cluster_of_hit[clustered], kind="stable")]
    counts = np.bincount(clusters.cluster_of_hit[clustered], minlength=len(clusters))
    energies = Vector(np.full(len(clusters), clusters.energies.shape[1]), clusters.energies.ravel())
    return Collection(
        clusters.event,
        members,
        {"hits": places.relation(order, counts)},
        {"subdetectorEnergies": energies},
    )


def _candidates(candidates: Candidates, names: CollectionsConfig) -> Collection:
    members = {
        "PDG": candidates.pdg,
        "energy": candidates.energy,
        "charge": candidates.charge,
        "mass": candidates.mass,
        **{f"momentum.{axis}": getattr(candidates, f"p{axis}") for axis in "xyz"},
    }
    relations = {
        relation: Relation((target,), rows[rows >= 0], (rows >= 0).astype(np.int64))
        for relation, target, rows in (
            ("tracks", first_name(names.tracks), candidates.track),
            ("clusters", first_name(names.clusters), candidates.cluster),
        )
    }
    return Collection(candidates.event, members, relations)


def _hit_links(hits: Hits, places: _HitPlaces, names: CollectionsConfig) -> Collection:
    order = np.argsort(hits.contribution_hit, kind="stable")
    hit = hits.contribution_hit[order]
    relations = {
        "from": places.relation(hit),
        "to": Relation((first_name(names.particles),), hits.contribution_particle[order]),
    }
    return Collection(hits.event[hit], {"weight": hits.contribution_energy[order]}, relations)


def _cluster_links(batch: Batch, names: CollectionsConfig) -> Collection:
    """Return each particle's share of the energy that particles left in the cluster."""
    hits, clusters, n_particles = batch.hits, batch.clusters, len(batch.particles)
    cluster = clusters.cluster_of_hit[hits.contribution_hit]
    inside = np.flatnonzero(cluster >= 0)
    pair, where = np.unique(
        cluster[inside].astype(np.int64) * n_particles + hits.contribution_particle[inside],
        return_inverse=True,
    )
    energy = np.bincount(where, hits.contribution_energy[inside], len(pair))
    cluster, particle = pair // max(n_particles, 1), pair % max(n_particles, 1)
    weight = energy / np.bincount(cluster, energy, len(clusters))[cluster]
    relations = {
        "from": Relation((first_name(names.clusters),), cluster),
        "to": Relation((first_name(names.particles),), particle),
    }
    return Collection(clusters.event[cluster], {"weight": weight}, relations)


def _track_links(tracks: Tracks, names: CollectionsConfig) -> Collection:
    relations = {
        "from": Relation((first_name(names.tracks),), tracks.link_track),
        "to": Relation((first_name(names.particles),), tracks.link_particle),
    }
    return Collection(tracks.event[tracks.link_track], {"weight": tracks.link_weight}, relations)
