"""Made-up events of named oddities: whoever asks for one gets it, whatever is drawn."""

import math

from .edm4hep_events import HIT_COLLECTIONS, Event, random_event, shuffled, single

HIT = ("ECALBarrel", 0)


def _event(rng, n_particles=9, n_tracks=4, n_clusters=4, n_hits=5):
    event = random_event(rng, n_particles, n_tracks, n_clusters, n_hits)
    if n_tracks:
        event.tracks[0].update(omega=single(1e-3), location=1)
    if n_clusters:
        event.clusters[0]["energy"] = 2.5
    if n_hits:
        event.hits[HIT[0]][HIT[1]]["energy"] = 1.5
    return event


def _shared_hit(rng):
    event = _event(rng)
    for cluster in event.clusters[:2]:
        cluster.update(energy=2.5, hits=[HIT])
    event.hit_links += [(HIT, 0, 0.25), (HIT, 1, 1.0)]
    return event


def _secondaries(rng):
    """A conversion whose electron made a track, and a neutral secondary that left energy in the
    calorimeter.
    """
    event = _event(rng)
    event.particles[0].update(pdg=22, charge=0, status=1, parents=[], p=[4.0, 0.0, 1.0], mass=0.0)
    event.particles[1].update(pdg=11, charge=-1, status=0, parents=[0], p=[2.0, 0.0, 0.5], mass=0.0)
    event.particles[2].update(pdg=2112, charge=0, status=0, parents=[0], p=[0.5, 0.0, 0.1])
    event.track_links = [(0, 1, 1.0)]
    event.hit_links.append((HIT, 2, 1.0))
    event.cluster_links.append((0, 2, 1.0))
    return event


def _out_of_range(rng):
    event = _event(rng)
    beyond = len(event.particles)
    event.hit_links += [(HIT, beyond, 1.0), (HIT, -1, 1.0), ((HIT[0], 5), 0, 1.0)]
    event.track_links += [(0, beyond, 1.0), (len(event.tracks), 0, 1.0), (-1, 0, 1.0)]
    event.cluster_links += [(0, beyond + 7, 1.0), (len(event.clusters), 0, 1.0)]
    event.clusters[0]["hits"].append((HIT[0], 5))
    event.particles[0]["parents"] = [beyond]
    return event


def _zero_weights(rng):
    """Some hit, cluster and track whose links all weigh nothing."""
    event = _event(rng)
    event.hit_links = [link for link in event.hit_links if link[0] != HIT] + [
        (HIT, 0, 0.0),
        (HIT, 1, 0.0),
    ]
    event.cluster_links = [link for link in event.cluster_links if link[0] != 0] + [(0, 0, 0.0)]
    event.track_links = [link for link in event.track_links if link[0] != 0] + [(0, 0, 0.0)]
    return event


def _no_energy(rng):
    """A hit, a cluster and a link's weight are no numbers, another cluster has no energy."""
    event = _event(rng)
    event.hits[HIT[0]][HIT[1]]["energy"] = math.nan
    event.hit_links += [(HIT, 0, 1.0), ((HIT[0], 1), 0, math.nan)]
    event.clusters[0].update(energy=math.nan, hits=[(HIT[0], 1)])
    event.clusters[1]["energy"] = 0.0
    event.cluster_links += [(0, 0, 1.0), (1, 1, 1.0)]
    return event


def _unusable_track(rng):
    event = _event(rng)
    event.tracks[1]["location"], event.tracks[2]["omega"] = 0, 0.0
    event.track_links += [(1, 0, 1.0), (2, 1, 1.0)]
    return event


def _daughters_first(rng):
    event = _event(rng)
    event.particles = [
        {**entry, "parents": [i - 1] if i else []} for i, entry in enumerate(event.particles)
    ]
    while all(parent < i for i, entry in enumerate(event.particles) for parent in entry["parents"]):
        event.particles = shuffled(event.particles, rng)
    return event


def _shared_track(rng):
    """Two charged particles made one track, and the second left nothing else."""
    event = _event(rng)
    for i, energy in ((0, 30.0), (1, 20.0)):
        event.particles[i].update(pdg=211, charge=1, status=1, parents=[], p=[energy, 0.0, 0.0])
    for entry in event.particles[2:]:
        entry["parents"] = []
    event.track_links = [(0, 0, 0.5), (0, 1, 0.5)]
    event.hit_links = [link for link in event.hit_links if link[1] != 1]
    event.cluster_links = [link for link in event.cluster_links if link[1] != 1]
    return event


def _outside_clusters(rng):
    """A photon whose only hit belongs to no cluster."""
    event = _event(rng)
    event.particles[0].update(pdg=22, charge=0, status=1, parents=[], p=[1.0, 0.0, 0.0], mass=0.0)
    for entry in event.particles[1:]:
        entry["parents"] = []
    event.hit_links = [link for link in event.hit_links if link[0] != HIT and link[1] != 0] + [
        (HIT, 0, 1.0)
    ]
    event.track_links = [link for link in event.track_links if link[1] != 0]
    for cluster in event.clusters:
        cluster["hits"] = [hit for hit in cluster["hits"] if hit != HIT]
    return event


def _crowded_cluster(rng):
    """Three photons in one cluster that is all they left anything in."""
    event = _event(rng)
    for i, energy in enumerate((4.0, 2.0, 1.0)):
        event.particles[i].update(
            pdg=22, charge=0, status=1, parents=[], p=[energy, 0.0, 0.0], mass=0.0
        )
    for entry in event.particles[3:]:
        entry["parents"] = []
    event.clusters[0].update(energy=6.0, hits=[HIT])
    event.hits[HIT[0]][HIT[1]]["energy"] = 6.0
    for cluster in event.clusters[1:]:
        cluster["hits"] = [hit for hit in cluster["hits"] if hit != HIT]
    shares = ((0, 0.5), (1, 0.25), (2, 0.25))
    event.track_links = [link for link in event.track_links if link[1] > 2]
    event.hit_links = [link for link in event.hit_links if link[0] != HIT and link[1] > 2] + [
        (HIT, i, share) for i, share in shares
    ]
    event.cluster_links = [link for link in event.cluster_links if link[0] and link[1] > 2] + [
        (0, i, share) for i, share in shares
    ]
    return event


def _along_the_beam(rng):
    """A pion that flies down the beam pipe and sheds a little into the calorimeter."""
    event = _event(rng)
    event.particles[0].update(pdg=211, charge=1, status=1, parents=[], p=[0.5, 0.0, 500.0])
    for entry in event.particles[1:]:
        entry["parents"] = []
    event.track_links = [link for link in event.track_links if link[1] != 0]
    return event


def _status_1_throughout(rng):
    """A Z -> tau -> pi+ nu, pi-, photon; the generator's status says that all are stable."""
    event = _event(rng, n_particles=0)
    event.particles = [
        {"pdg": pdg, "charge": charge, "status": 1, "parents": parents, "p": [p, 0.0, 0.0]}
        | {"mass": 0.0}
        for pdg, charge, parents, p in (
            (23, 0, [], 9.0),
            (-15, 1, [0], 5.0),
            (211, 1, [1], 3.0),
            (-16, 0, [1], 2.0),
            (-211, -1, [0, 7], 3.0),
            (22, 0, [0], 1.0),
        )
    ]
    event.track_links, event.hit_links = [(0, 2, 1.0)], [(HIT, 5, 1.0), (HIT, 1, 0.5)]
    event.cluster_links = [(0, 5, 1.0), (0, 1, 0.5)]
    return event


def _decayed_parent(rng):
    """What a K0S and the pion before it left, by the links, though others came of both."""
    event = _event(rng, n_particles=0)
    event.particles = [
        {"pdg": pdg, "charge": charge, "status": status, "parents": parents, "p": [p, 0.0, 0.0]}
        | {"mass": 0.0}
        for pdg, charge, status, parents, p in (
            (421, 0, 2, [], 9.0),
            (310, 0, 2, [0], 5.0),
            (211, 1, 1, [1], 3.0),
            (-211, -1, 1, [1], 2.0),
            (12, 0, 1, [0], 3.0),
            (22, 0, 1, [0], 1.0),
            (2112, 0, 0, [], 1.0),
        )
    ]
    event.track_links = [(0, 2, 1.0)]
    event.hit_links = [(HIT, i, 1.0) for i in (0, 1, 2, 6)]
    event.cluster_links = [(0, i, 1.0) for i in (0, 1, 2, 6)]
    return event


ODDITIES = {
    "nothing at all": lambda _: Event(),
    "no particles": lambda rng: _event(rng, n_particles=0),
    "no tracks": lambda rng: _event(rng, n_tracks=0),
    "no clusters": lambda rng: _event(rng, n_clusters=0),
    "no hits": lambda rng: _event(rng, n_hits=0),
    "only particles": lambda rng: _event(rng, n_tracks=0, n_clusters=0, n_hits=0),
    "shared hit": _shared_hit,
    "secondaries": _secondaries,
    "links out of range": _out_of_range,
    "zero weights": _zero_weights,
    "energies that are no numbers": _no_energy,
    "unusable tracks": _unusable_track,
    "daughters before parents": _daughters_first,
    "shared track": _shared_track,
    "energy outside of clusters": _outside_clusters,
    "crowded cluster": _crowded_cluster,
    "along the beam": _along_the_beam,
    "status 1 throughout": _status_1_throughout,
    "decayed parent": _decayed_parent,
}


def _linked(event, links, left):
    return any(
        link[0] == left and 0 <= link[1] < len(event.particles) and link[2] > 0 for link in links
    )


HOLDS = {
    "nothing at all": lambda e: (
        not e.particles and not e.tracks and not e.clusters and not any(e.hits.values())
    ),
    "no particles": lambda e: not e.particles and e.tracks and e.clusters,
    "no tracks": lambda e: not e.tracks and e.particles and e.clusters,
    "no clusters": lambda e: not e.clusters and e.particles and e.tracks and any(e.hits.values()),
    "no hits": lambda e: not any(e.hits[name] for name in HIT_COLLECTIONS) and e.clusters,
    "only particles": lambda e: (
        e.particles and not e.tracks and not e.clusters and not any(e.hits.values())
    ),
    "shared hit": lambda e: (
        sum(HIT in cluster["hits"] for cluster in e.clusters) > 1 and _linked(e, e.hit_links, HIT)
    ),
    "secondaries": lambda e: any(
        p["status"] == 0 and e.particles[p["parents"][0]]["status"] == 1 for p in e.particles[1:3]
    ),
    "links out of range": lambda e: all(
        any(not 0 <= link[1] < len(e.particles) for link in links)
        for links in (e.hit_links, e.track_links, e.cluster_links)
    ),
    "zero weights": lambda e: all(
        any(link[2] == 0 for link in links) and not _linked(e, links, left)
        for links, left in ((e.hit_links, HIT), (e.track_links, 0), (e.cluster_links, 0))
    ),
    "energies that are no numbers": lambda e: (
        math.isnan(e.hits[HIT[0]][0]["energy"])
        and math.isnan(e.clusters[0]["energy"])
        and any(math.isnan(w) for *_, w in e.hit_links)
    ),
    "unusable tracks": lambda e: e.tracks[1]["location"] != 1 and e.tracks[2]["omega"] == 0,
    "daughters before parents": lambda e: any(
        parent > i for i, p in enumerate(e.particles) for parent in p["parents"]
    ),
    "shared track": lambda e: sum(link[0] == 0 for link in e.track_links) > 1,
    "crowded cluster": lambda e: (
        sum(link[0] == HIT for link in e.hit_links)
        == sum(link[0] == 0 for link in e.cluster_links)
        == 3
    ),
    "along the beam": lambda e: e.particles[0]["p"][2] > 100 * abs(e.particles[0]["p"][0]),
    "status 1 throughout": lambda e: all(
        p["status"] == 1 and len(p["parents"]) == (i > 0) + (i == 4)
        for i, p in enumerate(e.particles)
    ),
    "decayed parent": lambda e: {1, 2} <= {p["status"] for p in e.particles},
    "energy outside of clusters": lambda e: (
        _linked(e, e.hit_links, HIT) and all(HIT not in c["hits"] for c in e.clusters)
    ),
}
