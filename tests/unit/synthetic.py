"""Random events in the columns of ``parquet.DATASET_SCHEMA`` for tests, made without any simulator.

Number of events and seed -> awkward records. Particles fall exponentially in energy and are
isotropic in phi; charged ones leave a track (95 %), all visible ones but muons a cluster (90 %);
some clusters swallow the next particle, which is then merged into the cluster's owner. Targets
follow the rules of the dataset, so that ``sum(particles that are hosted or merged) ==
sum(targets)`` holds per event. Every 29th event is empty.
"""

from pathlib import Path

import awkward as ak
import numpy as np

from particleforge.tables import parquet, schema
from particleforge.tables.schema import Fate

# class ids 1 ... 5, as in the shipped detectors
CLASSES = ("charged_hadron", "neutral_hadron", "photon", "electron", "muon")
_KINDS = np.array(
    [(211, 1), (130, 2), (22, 3), (11, 4), (13, 5), (12, 0)],
    dtype=[("pdg", "i4"), ("class_id", "i1")],
)
_SHARES = (0.5, 0.1, 0.28, 0.04, 0.04, 0.04)
_MASSES = np.array([0.13957, 0.49761, 0.0, 0.000511, 0.10566, 0.0])
_RADIUS_MM = 1500.0


def _split_mix(x: np.ndarray) -> np.ndarray:
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _records(collection: schema.Collection, counts: np.ndarray, **members: np.ndarray) -> ak.Array:
    """Zip flat members into the collection's records; members that are not given are 0."""
    total = int(counts.sum())
    columns = {
        f.name: np.asarray(members.pop(f.name, np.zeros(total))).astype(f.dtype)
        for f in collection.fields
    }
    assert not members, f"unknown members {list(members)}"
    return ak.unflatten(ak.zip(columns), counts)


def _index_in_event(event: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.arange(len(event)) - np.repeat(np.cumsum(counts) - counts, counts)


class _Particles:
    """Flat particles of all events with the elements that they make."""

    def __init__(self, n: int, rng: np.random.Generator, mean: float) -> None:
        self.counts = rng.poisson(mean, n)
        self.counts[28::29] = 0
        self.event = np.repeat(np.arange(n), self.counts)
        total = len(self.event)
        kind = rng.choice(len(_KINDS), total, p=_SHARES)
        sign = rng.choice([-1, 1], total)
        self.class_id = _KINDS["class_id"][kind]
        lepton = np.isin(_KINDS["pdg"][kind], (11, 13))
        self.charge = np.where(np.isin(kind, (0, 3, 4)), sign, 0)
        self.pdg = (
            np.where(self.charge == 0, 1, np.where(lepton, -self.charge, self.charge))
            * _KINDS["pdg"][kind]
        )
        self.mass = _MASSES[kind]
        self.p = 0.3 + rng.exponential(6.0, total)
        self.eta, self.phi = rng.uniform(-2, 2, total), rng.uniform(-np.pi, np.pi, total)
        self.pt = self.p / np.cosh(self.eta)
        self.p4 = np.stack(
            [
                self.pt * np.cos(self.phi),
                self.pt * np.sin(self.phi),
                self.pt * np.sinh(self.eta),
                np.sqrt(self.p**2 + self.mass**2),
            ],
            axis=1,
        )
        self.invisible = kind == 5
        self.has_track = (self.charge != 0) & (rng.random(total) < 0.95)
        self.own_cluster = ~self.invisible & (np.abs(self.pdg) != 13) & (rng.random(total) < 0.9)
        previous_is_mine = (
            np.r_[False, self.event[1:] == self.event[:-1]] if total else np.zeros(0, bool)
        )
        swallowed = (
            previous_is_mine
            & np.r_[False, self.own_cluster[:-1]][:total]
            & self.own_cluster
            & (rng.random(total) < 0.15)
        )
        swallowed &= ~np.r_[False, swallowed[:-1]][:total]
        self.own_cluster &= ~swallowed
        # the cluster that holds a particle's energy, as the particle that seeded it
        self.seed = np.where(
            swallowed, np.arange(total) - 1, np.where(self.own_cluster, np.arange(total), -1)
        )


def synthetic_events(n: int, seed: int, *, mean_particles: float = 12.0, run: int = 0) -> ak.Array:
    """Return ``n`` random events in the columns of ``parquet.DATASET_SCHEMA``.

    Their identities follow from seed and run.
    """
    rng = np.random.default_rng([seed, run])
    made = _Particles(n, rng, mean_particles)
    total = len(made.event)

    def per_event(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(made.event[chosen], minlength=n)

    track_of, cluster_of = np.full(total, -1), np.full(total, -1)
    n_tracks, n_clusters = per_event(made.has_track), per_event(made.own_cluster)
    track_of[made.has_track] = _index_in_event(made.event[made.has_track], n_tracks)
    cluster_of[made.own_cluster] = _index_in_event(made.event[made.own_cluster], n_clusters)
    in_cluster = np.where(made.seed >= 0, cluster_of[made.seed], -1)
    energy = np.where(
        made.seed >= 0, np.abs(made.p4[:, 3] * (1 + 0.1 * rng.standard_normal(total))), 0.0
    )

    hosted = made.has_track | made.own_cluster
    element = np.where(
        made.has_track, track_of, np.where(made.own_cluster, n_tracks[made.event] + cluster_of, -1)
    )
    merged = ~hosted & (made.seed >= 0) & ~made.invisible
    element = np.where(merged, element[made.seed], element)
    fate = np.select(
        [made.invisible, hosted, merged], [Fate.INVISIBLE, Fate.HOSTED, Fate.MERGED], Fate.DROPPED
    )

    columns = {
        "event_id": _split_mix(
            np.arange(n, dtype=np.uint64) + np.uint64(seed * 1_000_003 + run * 1_000_000_007)
        ),
        "run_number": np.full(n, run, np.uint32),
        "event_number": np.arange(n, dtype=np.uint64),
        "weight": rng.uniform(0.5, 1.5, n),
        "tracks": _tracks(made, n_tracks, rng),
        "clusters": _clusters(made, n_clusters, energy, rng),
        "particles": _records(
            schema.PARTICLES,
            made.counts,
            pdg=made.pdg,
            charge=made.charge,
            px=made.p4[:, 0],
            py=made.p4[:, 1],
            pz=made.p4[:, 2],
            energy=made.p4[:, 3],
            class_id=made.class_id,
            fate=fate,
            element=element,
            deposited_energy=energy,
        ),
    }
    n_elements = n_tracks + n_clusters
    columns["targets"], columns["candidates"] = _targets_and_candidates(
        made, n_elements, n_tracks, element, hosted, rng
    )
    particle_index = _index_in_event(made.event, made.counts)
    columns["track_links"] = _records(
        schema.TRACK_LINKS,
        n_tracks,
        track=track_of[made.has_track],
        particle=particle_index[made.has_track],
        weight=np.ones(int(n_tracks.sum())),
    )
    linked = in_cluster >= 0
    columns["cluster_links"] = _records(
        schema.CLUSTER_LINKS,
        per_event(linked),
        cluster=in_cluster[linked],
        particle=particle_index[linked],
        energy=energy[linked],
    )
    return ak.zip(columns, depth_limit=1)


def _tracks(made: _Particles, n_tracks: np.ndarray, rng: np.random.Generator) -> ak.Array:
    mine = made.has_track
    total = int(mine.sum())
    pt = made.pt[mine] * (1 + 0.01 * rng.standard_normal(total))
    eta = made.eta[mine] + 3e-4 * rng.standard_normal(total)
    return _records(
        schema.TRACKS,
        n_tracks,
        pt=pt,
        eta=eta,
        phi=made.phi[mine],
        p=pt * np.cosh(eta),
        charge=made.charge[mine],
        omega=made.charge[mine] * 0.3e-3 * 4 / pt,
        tan_lambda=np.sinh(eta),
        d0=0.01 * rng.standard_normal(total),
        z0=0.1 * rng.standard_normal(total),
        chi2=rng.chisquare(10, total),
        ndf=np.full(total, 10),
        n_hits=rng.integers(6, 14, total),
        dedx=rng.uniform(1e-4, 1e-3, total),
        radius_innermost_hit=np.full(total, 31.0),
        eta_calo=eta,
        phi_calo=np.remainder(made.phi[mine] - made.charge[mine] * 0.6 / pt + np.pi, 2 * np.pi)
        - np.pi,
    )


def _clusters(
    made: _Particles, n_clusters: np.ndarray, energy: np.ndarray, rng: np.random.Generator
) -> ak.Array:
    mine = made.own_cluster
    total = int(mine.sum())
    contained = np.bincount(
        made.seed[made.seed >= 0], weights=energy[made.seed >= 0], minlength=len(energy)
    )[mine]
    ecal = np.where(np.isin(np.abs(made.pdg[mine]), (11, 22)), 0.98, 0.4) * contained
    eta = made.eta[mine]
    return _records(
        schema.CLUSTERS,
        n_clusters,
        energy=contained,
        et=contained / np.cosh(eta),
        eta=eta,
        phi=made.phi[mine],
        x=_RADIUS_MM * np.cos(made.phi[mine]),
        y=_RADIUS_MM * np.sin(made.phi[mine]),
        z=_RADIUS_MM * np.sinh(eta),
        energy_ecal=ecal,
        energy_hcal=contained - ecal,
        n_hits=rng.integers(3, 200, total),
        width_transverse=rng.uniform(5, 80, total),
        width_longitudinal=rng.uniform(10, 200, total),
        depth=rng.uniform(0, 800, total),
    )


def _targets_and_candidates(
    made: _Particles,
    n_elements: np.ndarray,
    n_tracks: np.ndarray,
    element: np.ndarray,
    hosted: np.ndarray,
    rng: np.random.Generator,
) -> tuple[ak.Array, ak.Array]:
    total = int(n_elements.sum())
    # valid where element >= 0
    place = np.cumsum(n_elements)[made.event] - n_elements[made.event] + element
    owned = element >= 0
    p4 = np.stack(
        [np.bincount(place[owned], weights=made.p4[owned, i], minlength=total) for i in range(4)],
        axis=1,
    )
    on_cluster = hosted & ~made.has_track
    host_class = np.where(
        on_cluster, np.where(np.isin(np.abs(made.pdg), (11, 22)), 3, 2), made.class_id
    )
    class_id, charge, particle = np.zeros(total, int), np.zeros(total, int), np.full(total, -1)
    class_id[place[hosted]] = host_class[hosted]
    charge[place[hosted]] = np.where(made.has_track, made.charge, 0)[hosted]
    particle[place[hosted]] = _index_in_event(made.event, made.counts)[hosted]
    n_merged = np.maximum(np.bincount(place[owned], minlength=total) - 1, 0)
    targets = _records(
        schema.TARGETS,
        n_elements,
        class_id=class_id,
        charge=charge,
        px=p4[:, 0],
        py=p4[:, 1],
        pz=p4[:, 2],
        energy=p4[:, 3],
        particle=particle,
        n_merged=n_merged,
    )
    found = (class_id > 0) & (rng.random(total) < 0.93)
    event = np.repeat(np.arange(len(n_elements)), n_elements)
    scale = 1 + 0.05 * rng.standard_normal(int(found.sum()))
    code = np.array([0, 211, 130, 22, 11, 13])[class_id[found]]
    sign = np.where(
        charge[found] == 0, 1, np.where(np.isin(code, (11, 13)), -charge[found], charge[found])
    )
    candidates = _records(
        schema.CANDIDATES,
        np.bincount(event[found], minlength=len(n_elements)),
        pdg=code * sign,
        class_id=class_id[found],
        charge=charge[found],
        px=p4[found, 0] * scale,
        py=p4[found, 1] * scale,
        pz=p4[found, 2] * scale,
        energy=p4[found, 3] * scale,
        element=_index_in_event(event, n_elements)[found],
    )
    return targets, candidates


def write_dataset(
    path: Path, events: ak.Array, *, sample: str = "ttbar", row_group_size: int = 500
) -> Path:
    """Write events as a dataset table, with the sample's name in the metadata."""
    metadata = {"sample": sample, "provenance": {"stage": "synthetic"}}
    types = parquet.DATASET_SCHEMA
    parquet.write_table(
        path, [parquet.to_arrow(events, types)], types, metadata, row_group_size=row_group_size
    )
    return path
