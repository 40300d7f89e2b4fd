"""Small made-up events as plain Python, and EDM4hep files of them in the layouts of two
generations.

Values are exact in single precision, so that what is read equals what was made.
"""

from dataclasses import dataclass, field
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

HIT_COLLECTIONS = ("ECALBarrel", "HCALBarrel", "MUON")
IDS = {
    name: 11 + i
    for i, name in enumerate(
        (
            "MCParticles",
            "SiTracks_Refitted",
            "PandoraClusters",
            "PandoraPFOs",
            *HIT_COLLECTIONS,
            "SomethingElse",
            "EventHeader",
        )
    )
}
P, T, C, R = "MCParticles", "SiTracks_Refitted", "PandoraClusters", "PandoraPFOs"


@dataclass
class Event:
    """One event; references are (collection, index) or indices into the obvious collection."""

    # pdg, status, charge, mass, p, parents; vertex (x, y in mm) where it is known
    particles: list[dict] = field(default_factory=list)
    tracks: list[dict] = field(default_factory=list)  # omega, phi, tan_lambda, location
    clusters: list[dict] = field(default_factory=list)  # energy, position, hits
    # energy, position
    hits: dict[str, list[dict]] = field(
        default_factory=lambda: {name: [] for name in HIT_COLLECTIONS}
    )
    hit_links: list[tuple] = field(default_factory=list)  # (collection, index), particle, weight
    track_links: list[tuple] = field(default_factory=list)  # track, particle, weight
    cluster_links: list[tuple] = field(default_factory=list)  # cluster, particle, weight
    candidates: list[dict] = field(default_factory=list)  # pdg, charge, energy, p, tracks, clusters


def single(value):
    """Return the nearest single-precision number."""
    return float(np.float32(value))


def random_event(rng, n_particles, n_tracks, n_clusters, n_hits):
    """Return an event full of oddities: dangling references, shared hits, zero weights, invalid
    energies.
    """
    event = Event(particles=_random_history(rng, n_particles))
    for name in HIT_COLLECTIONS:
        for _ in range(n_hits):
            energy = rng.choice(
                [rng.exponential(0.5), rng.exponential(3), np.nan, -1.0], p=[0.7, 0.25, 0.03, 0.02]
            )
            event.hits[name].append({"energy": single(energy), "position": _position(rng)})
    for _ in range(n_tracks):
        omega = rng.choice([1e-3, -4e-4, 1e-4, 0.0, np.inf], p=[0.4, 0.3, 0.2, 0.05, 0.05])
        state = {
            "omega": single(omega),
            "phi": single(rng.uniform(-3, 3)),
            "tan_lambda": single(rng.normal()),
        }
        event.tracks.append(state | {"location": int(rng.choice([1, 0], p=[0.95, 0.05]))})
    for _ in range(n_clusters):
        energy = single(rng.choice([rng.exponential(5), np.nan, 0.0], p=[0.9, 0.05, 0.05]))
        hits = [_random_hit(rng, n_hits) for _ in range(rng.integers(0, 6))]
        event.clusters.append({"energy": energy, "position": _position(rng), "hits": hits})
    as_simulated(event.particles)
    if n_particles:
        event.hit_links = [
            (_random_hit(rng, n_hits), int(rng.integers(0, n_particles + 1)), _weight(rng))
            for _ in range(3 * n_hits)
        ]
        event.track_links = _random_links(rng, n_tracks, n_particles)
        event.cluster_links = _random_links(rng, n_clusters, n_particles)
    event.candidates = [
        _random_candidate(rng, n_tracks, n_clusters) for _ in range(rng.integers(0, 4))
    ]
    return event


def as_simulated(history):
    """Give status 0 to whatever comes of particles that the generator left stable."""
    stable = {i for i, particle in enumerate(history) if particle["status"] <= 1}
    while True:
        came_of_it = {
            i
            for i, particle in enumerate(history)
            if particle["status"] != 0 and stable.intersection(particle["parents"])
        }
        if not came_of_it:
            return
        stable |= came_of_it
        for i in came_of_it:
            history[i]["status"] = 0


def _random_history(rng, n_particles):
    history = []
    for i in range(n_particles):
        parents = [int(x) for x in rng.integers(-1, i + 1, rng.choice([0, 1, 1, 1, 2]))]
        parents = [n_particles if x == i else x for x in parents]  # -1 and this point nowhere
        if i and rng.random() < 0.7:
            parents = [int(rng.integers(0, i))]
        p = rng.normal(0, 3, 3)
        good = [x for x in parents if 0 <= x < i]
        if good and rng.random() < 0.7:  # a decay or conversion that conserves momentum
            p = np.array(history[good[0]]["p"]) * rng.choice([0.25, 0.5, 0.75, 1.0])
        charge, pdg = [
            (0, 22),
            (0, 130),
            (0, 12),
            (1, 211),
            (-1, 11),
            (-1, 13),
            (1, -11),
            (0, 310),
        ][rng.integers(8)]
        entry = {
            "pdg": pdg,
            "charge": charge,
            "status": int(rng.choice([0, 0, 1, 1, 1, 2])),
            "parents": parents,
        }
        entry["vertex"] = (0.0, single(rng.choice([0.0, rng.exponential(100)])))
        history.append(
            entry | {"mass": single(rng.choice([0, 0.1396, 0.4976])), "p": [single(x) for x in p]}
        )
    return shuffled(history, rng) if rng.random() < 0.3 else history


def shuffled(history, rng):
    """Return the particles in another order, daughters before their parents among them."""
    place = [int(x) for x in rng.permutation(len(history))]
    parents = [
        [place[x] if 0 <= x < len(history) else x for x in entry["parents"]] for entry in history
    ]
    moved = zip(place, history, parents, strict=True)
    return [
        {**entry, "parents": of_entry}
        for _, entry, of_entry in sorted(moved, key=lambda row: row[0])
    ]


def _random_hit(rng, n_hits):
    return HIT_COLLECTIONS[rng.integers(3)], int(rng.integers(-1, n_hits + 1))


def _random_links(rng, n_left, n_particles):
    return [
        (left, int(rng.integers(-1, n_particles + 1)), _weight(rng))
        for left in range(n_left)
        for _ in range(rng.integers(0, 3))
    ]


def _random_candidate(rng, n_tracks, n_clusters):
    return {
        "pdg": int(rng.choice([22, 211, 2112, 11])),
        "charge": single(rng.choice([-1, 0, 1])),
        "energy": single(rng.exponential(5)),
        "p": [single(x) for x in rng.normal(0, 3, 3)],
        "tracks": [int(x) for x in rng.integers(-1, n_tracks + 1, rng.integers(0, 3))],
        "clusters": [int(x) for x in rng.integers(-1, n_clusters + 1, rng.integers(0, 3))],
    }


def _position(rng):
    return [single(x) for x in rng.normal(0, 2000, 3)]


def _weight(rng):
    return single(
        rng.choice([0.0, 0.2, 0.5, 1.0, rng.random(), np.nan], p=[0.1, 0.15, 0.15, 0.3, 0.28, 0.02])
    )


class _Leaves:
    """Collects leaves, event by event, under the names of one generation of EDM4hep."""

    def __init__(self, modern):
        self.modern = modern
        self.columns = {}

    def put(self, leaf, values, dtype):
        self.columns.setdefault(leaf, ([], dtype))[0].append(values)

    def references(self, collection, name, number, references):
        stem = f"_{collection}_{name}" if self.modern else f"{collection}#{number}"
        self.put(f"{stem}.index", [index for _, index in references], np.int32)
        self.put(
            f"{stem}.collectionID",
            [IDS[target] for target, _ in references],
            np.uint32 if self.modern else np.int32,
        )

    def ranges(self, collection, name, lengths):
        ends = np.cumsum(lengths).astype(int)
        self.put(
            f"{collection}.{name}_begin",
            [int(e - n) for e, n in zip(ends, lengths, strict=True)],
            np.uint32,
        )
        self.put(f"{collection}.{name}_end", [int(e) for e in ends], np.uint32)

    def vector(self, collection, name, number):
        return f"_{collection}_{name}" if self.modern else f"{collection}_{number}"

    def link(self, collection, pairs):
        self.put(f"{collection}.weight", [weight for _, _, weight in pairs], np.float32)
        self.references(collection, "from", 0, [origin for origin, _, _ in pairs])
        self.references(collection, "to", 1, [target for _, target, _ in pairs])


def leaves_of(events, modern=True, hits=True):
    """Return {leaf: (values per event, dtype)}.

    Without ``hits`` the file has clusters and their links only.
    """
    out = _Leaves(modern)
    for number, event in enumerate(events):
        out.put("EventHeader.runNumber", [7], np.uint32)
        out.put("EventHeader.eventNumber", [number], np.uint64)
        out.put("EventHeader.weight", [1.0], np.float64)
        for leaf, key, dtype in (
            ("PDG", "pdg", np.int32),
            ("generatorStatus", "status", np.int32),
            ("simulatorStatus", "simulator_status", np.int32),
            ("charge", "charge", np.float32),
        ):
            out.put(f"{P}.{leaf}", [particle.get(key, 0) for particle in event.particles], dtype)
        out.put(f"{P}.mass", [particle["mass"] for particle in event.particles], np.float64)
        for axis in range(3):
            out.put(
                f"{P}.momentum.{'xyz'[axis]}",
                [particle["p"][axis] for particle in event.particles],
                np.float64,
            )
        for axis in range(2):
            out.put(
                f"{P}.vertex.{'xyz'[axis]}",
                [particle.get("vertex", (0.0, 0.0))[axis] for particle in event.particles],
                np.float64,
            )
        out.ranges(P, "parents", [len(particle["parents"]) for particle in event.particles])
        out.references(
            P,
            "parents",
            0,
            [(P, parent) for particle in event.particles for parent in particle["parents"]],
        )
        _put_tracks(out, event)
        _put_clusters(out, event, hits)
        out.link(
            "SiTracksMCTruthLink",
            [((T, track), (P, particle), weight) for track, particle, weight in event.track_links],
        )
        out.link(
            "ClusterMCTruthLink",
            [
                ((C, cluster), (P, particle), weight)
                for cluster, particle, weight in event.cluster_links
            ],
        )
        _put_candidates(out, event)
    return out.columns


def _put_tracks(out, event):
    out.put(f"{T}.chi2", [1.0 for _ in event.tracks], np.float32)
    out.put(f"{T}.ndf", [5 for _ in event.tracks], np.int32)
    out.ranges(T, "trackStates", [1 for _ in event.tracks])
    states = out.vector(T, "trackStates", 1)
    out.put(f"{states}.location", [track["location"] for track in event.tracks], np.int32)
    for leaf, key in (("omega", "omega"), ("phi", "phi"), ("tanLambda", "tan_lambda")):
        out.put(f"{states}.{leaf}", [track[key] for track in event.tracks], np.float32)
    for leaf in ("D0", "Z0", "referencePoint.x", "referencePoint.y", "referencePoint.z"):
        out.put(f"{states}.{leaf}", [0.0 for _ in event.tracks], np.float32)


def _put_clusters(out, event, hits):
    out.put(f"{C}.energy", [cluster["energy"] for cluster in event.clusters], np.float32)
    for axis in range(3):
        out.put(
            f"{C}.position.{'xyz'[axis]}",
            [cluster["position"][axis] for cluster in event.clusters],
            np.float32,
        )
    if not hits:
        return
    out.ranges(C, "hits", [len(cluster["hits"]) for cluster in event.clusters])
    out.references(C, "hits", 1, [hit for cluster in event.clusters for hit in cluster["hits"]])
    for name in HIT_COLLECTIONS:
        out.put(f"{name}.energy", [hit["energy"] for hit in event.hits[name]], np.float32)
        for axis in range(3):
            out.put(
                f"{name}.position.{'xyz'[axis]}",
                [hit["position"][axis] for hit in event.hits[name]],
                np.float32,
            )
    out.link(
        "CalohitMCTruthLink",
        [(hit, (P, particle), weight) for hit, particle, weight in event.hit_links],
    )


def _put_candidates(out, event):
    out.put(
        f"{R}.PDG" if out.modern else f"{R}.type", [c["pdg"] for c in event.candidates], np.int32
    )
    for key in ("charge", "energy"):
        out.put(f"{R}.{key}", [c[key] for c in event.candidates], np.float32)
    for axis in range(3):
        out.put(f"{R}.momentum.{'xyz'[axis]}", [c["p"][axis] for c in event.candidates], np.float32)
    for key, target, number in (("clusters", C, 0), ("tracks", T, 1)):
        out.ranges(R, key, [len(c[key]) for c in event.candidates])
        out.references(
            R, key, number, [(target, index) for c in event.candidates for index in c[key]]
        )


def write_leaves(path: Path, leaves, modern=True) -> None:
    """Write leaves as an RNTuple (now) or a TTree (2021) with the table of collection IDs of that
    generation.
    """
    arrays = {
        leaf: ak.values_astype(
            ak.Array(
                ak.contents.ListOffsetArray(
                    _offsets(values), ak.contents.NumpyArray(_flat(values, dtype))
                )
            ),
            dtype,
        )
        for leaf, (values, dtype) in leaves.items()
    }
    table = {"m_names": ak.Array([list(IDS)]), "m_collectionIDs": ak.Array([list(IDS.values())])}
    with uproot.recreate(path) as file:
        if modern:
            file.mkrntuple("events", _nested(arrays, depth_limit=2))
            file.mkrntuple("podio_metadata", {"events___idTable": ak.zip(table, depth_limit=1)})
        else:
            tree = file.mktree(
                "events", {leaf: array.type.content for leaf, array in arrays.items()}
            )
            tree.extend(arrays)
            file.mkrntuple("metadata", {"CollectionIDs": ak.zip(table, depth_limit=1)})


def write_events(path: Path, events, modern=True, hits=True) -> None:
    """Write events as an EDM4hep file."""
    write_leaves(path, leaves_of(events, modern, hits), modern)


def _nested(arrays, depth_limit):
    """Turn {"X.a.b": array} into {"X": records}, as RNTuples hold them."""
    groups = {}
    for leaf, array in arrays.items():
        stem, _, member = leaf.partition(".")
        groups.setdefault(stem, {})[member] = array
    return {
        stem: members[""] if "" in members else ak.zip(_nested(members, 2), depth_limit=depth_limit)
        for stem, members in groups.items()
    }


def _offsets(values):
    return ak.index.Index64(
        np.concatenate([[0], np.cumsum([len(v) for v in values])]).astype(np.int64)
    )


def _flat(values, dtype):
    return np.array([x for v in values for x in v], dtype)
