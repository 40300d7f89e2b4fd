"""The truth of one made-up event, written slowly and literally after docs/truth.md: loops and
dictionaries, no arrays.
"""

import math
from collections import Counter
from dataclasses import replace

GEV_PER_TESLA_MM = 0.299792458e-3


def reference(event, rules, hits=True):
    """Return particles, targets and candidate elements of one event, and its energy balance."""
    tracks = {
        old: new
        for new, old in enumerate(
            i
            for i, t in enumerate(event.tracks)
            if t["location"] == 1 and t["omega"] != 0 and math.isfinite(t["omega"])
        )
    }
    clusters = {
        old: new
        for new, old in enumerate(
            i
            for i, c in enumerate(event.clusters)
            if math.isfinite(c["energy"]) and c["energy"] > 0
        )
    }
    energy, in_clusters, on_tracks = _left(event, tracks, clusters, hits)
    particles, heir = _truth_particles(event, energy, on_tracks, rules)
    deposits = dict.fromkeys(particles, 0.0)
    shares = {i: {} for i in particles}
    cluster_energy = {i: {} for i in particles}
    _hand_down(event, energy, in_clusters, particles, heir)
    for i in range(len(event.particles)):
        if heir(i) is None:
            continue
        deposits[heir(i)] += energy[i]
        for cluster, value in in_clusters[i].items():
            cluster_energy[heir(i)][cluster] = cluster_energy[heir(i)].get(cluster, 0.0) + value
        if i in particles:
            shares[i] = {
                track: share for track, share in on_tracks[i].items() if share >= rules["share"]
            }
    visible = [
        i
        for i in particles
        if _visible(event.particles[i], particles[i], deposits[i], shares[i], rules)
    ]
    fates, targets = _hosts(
        event, particles, visible, shares, cluster_energy, len(tracks), len(clusters)
    )
    return {
        "particles": [
            (event.particles[i]["pdg"], *particles[i], *fates.get(i, (0, -1)), deposits[i])
            for i in sorted(particles)
        ],
        "targets": targets,
        "candidates": [_candidate_element(c, event, tracks, clusters) for c in event.candidates],
        "balance": _balance(
            event, particles, fates, shares, _spoilt(event, tracks, clusters, heir, hits), rules
        ),
    }


def _hand_down(event, energy, in_clusters, particles, heir):
    """Move what entries left for which nobody inherits to the truth particles that came of them."""
    left = dict.fromkeys(particles, 0.0)
    for i in range(len(event.particles)):
        if heir(i) is not None:
            left[heir(i)] += energy[i]
    orphans = [i for i in range(len(event.particles)) if heir(i) is None and energy[i] > 0]
    moved = []
    for orphan in orphans:
        takes = [
            i
            for i in particles
            if orphan in list(_ancestors(event.particles, i))[1:]
            and not _is_neutrino(event.particles[i])
            and particles[i][3] > 0
        ]
        takes = [i for i in takes if left[i] == 0] or takes
        total = sum(particles[i][3] for i in takes)
        for i in takes:
            share = particles[i][3] / total
            moved.append((i, energy[orphan] * share, dict(in_clusters[orphan]), share))
        if takes:
            energy[orphan], in_clusters[orphan] = 0.0, {}
    for i, value, clusters, share in moved:
        energy[i] += value
        for cluster, in_cluster in clusters.items():
            in_clusters[i][cluster] = in_clusters[i].get(cluster, 0.0) + in_cluster * share


def _ancestors(history, i):
    """Yield i and its ancestors along first parents."""
    n = len(history)
    while i is not None:
        yield i
        i = next((parent for parent in history[i]["parents"] if 0 <= parent < n), None)


def _is_neutrino(entry):
    return abs(entry["pdg"]) in (12, 14, 16, 18)


def settled_status(history):
    """Return the status of each particle, those with daughters of the generator as decayed."""
    n = len(history)
    with_daughters = {
        parent
        for particle in history
        if particle["status"] != 0
        for parent in particle["parents"]
        if 0 <= parent < n
    }
    return [
        2 if particle["status"] == 1 and i in with_daughters else particle["status"]
        for i, particle in enumerate(history)
    ]


def clusters_by_links(event, hits=True):
    """Return the clusters of which the links say more than the hits."""
    n = len(event.particles)
    if not hits:
        return set(range(len(event.clusters)))

    def counts(link):
        return 0 <= link[1] < n and math.isfinite(link[2]) and link[2] > 0

    def there(hit):
        return 0 <= hit[1] < len(event.hits[hit[0]])

    def usable(hit):
        energy = event.hits[hit[0]][hit[1]]["energy"]
        return math.isfinite(energy) and energy > 0

    linked_hits = {
        link[0] for link in event.hit_links if counts(link) and there(link[0]) and usable(link[0])
    }
    return {
        old
        for old, cluster in enumerate(event.clusters)
        if any(link[0] == old and counts(link) for link in event.cluster_links)
        and (
            not all(there(hit) for hit in cluster["hits"])
            or not linked_hits.intersection(cluster["hits"])
        )
    }


def with_hits_as_clusters(event, energy_min_gev):
    """Return the event with one cluster for each usable hit of at least this energy.

    Candidates refer to their clusters' hits.
    """
    clusters, number = [], {}
    for name, found in event.hits.items():
        for i, hit in enumerate(found):
            if (
                math.isfinite(hit["energy"])
                and hit["energy"] > 0
                and hit["energy"] >= energy_min_gev
            ):
                number[name, i] = len(clusters)
                clusters.append(
                    {"energy": hit["energy"], "position": hit["position"], "hits": [(name, i)]}
                )
    candidates = []
    for candidate in event.candidates:
        known = [event.clusters[i] for i in candidate["clusters"] if 0 <= i < len(event.clusters)]
        hits = [number[hit] for cluster in known for hit in cluster["hits"] if hit in number]
        candidates.append({**candidate, "clusters": hits})
    return replace(event, clusters=clusters, cluster_links=[], candidates=candidates)


def _left(event, tracks, clusters, hits):  # noqa: C901
    """Return what every entry left: calorimeter energy, energy by cluster, share by track."""
    n = len(event.particles)
    energy, in_clusters, on_tracks = [0.0] * n, [{} for _ in range(n)], [{} for _ in range(n)]

    def usable(links):
        return [
            link for link in links if 0 <= link[1] < n and math.isfinite(link[2]) and link[2] > 0
        ]

    def total(links, left):
        return sum(link[2] for link in links if link[0] == left)

    by_links = clusters_by_links(event, hits)
    if hits:
        good = {
            (name, i): hit["energy"]
            for name, found in event.hits.items()
            for i, hit in enumerate(found)
            if math.isfinite(hit["energy"]) and hit["energy"] > 0
        }
        links = [link for link in usable(event.hit_links) if link[0] in good]
        of_links = {hit for old in by_links & set(clusters) for hit in event.clusters[old]["hits"]}
        of_hits = {
            hit
            for old, cluster in enumerate(event.clusters)
            if old in clusters and old not in by_links
            for hit in cluster["hits"]
        }
        for hit, particle, weight in links:
            if hit in of_hits or hit not in of_links:
                energy[particle] += weight / total(links, hit) * good[hit]
        for old, new in clusters.items():
            for member in [] if old in by_links else event.clusters[old]["hits"]:
                for hit, particle, weight in links:
                    if hit == member:
                        value = weight / total(links, hit) * good[hit]
                        in_clusters[particle][new] = in_clusters[particle].get(new, 0.0) + value
    links = [link for link in usable(event.cluster_links) if link[0] in clusters]
    for old, particle, weight in links:
        if old in by_links:
            value = weight / total(links, old) * event.clusters[old]["energy"]
            energy[particle] += value
            in_clusters[particle][clusters[old]] = (
                in_clusters[particle].get(clusters[old], 0.0) + value
            )
    links = [link for link in usable(event.track_links) if link[0] in tracks]
    for old, particle, weight in links:
        share = weight / max(1.0, total(links, old))
        on_tracks[particle][tracks[old]] = on_tracks[particle].get(tracks[old], 0.0) + share
    return energy, in_clusters, on_tracks


def _truth_particles(event, energy, on_tracks, rules):
    """Return {entry: four-momentum} of the truth particles, and a function from entry to the truth
    particle that inherits.
    """
    history = event.particles
    n = len(history)

    def ancestors(i):
        return _ancestors(history, i)

    def nearest(i, accepted):
        return next((a for a in ancestors(i) if a in accepted), None)

    status = settled_status(history)
    made = {i for i in range(n) if any(share >= rules["share"] for share in on_tracks[i].values())}
    generated = {i for i in range(n) if status[i] != 0}
    alive = {nearest(i, generated) for i in range(n) if energy[i] > 0 or i in made} - {None}
    above = {a for i in alive for a in ancestors(i) if a != i}
    stand_ins = {i for i in alive if status[i] > 1 and i not in above}
    stable = {
        i for i in range(n) if status[i] == 1 and (i in alive or nearest(i, stand_ins) is None)
    } | stand_ins

    tracks = {track for shares in on_tracks for track in shares}
    best = {
        max(range(n), key=lambda i, t=track: (on_tracks[i].get(t, 0.0), -i)) for track in tracks
    }
    wanted = set()
    for i in best & made - stable:
        heir = nearest(i, stable)
        if status[i] == 0 and heir is not None and heir not in made:
            wanted.add(i)
    topmost = {
        i
        for i in wanted
        if next(a for a in ancestors(i) if a != i and a in stable | wanted) in stable
    }
    p4 = {
        i: [
            *history[i]["p"],
            math.sqrt(sum(x * x for x in history[i]["p"]) + history[i]["mass"] ** 2),
        ]
        for i in range(n)
    }
    return _split(history, stable, topmost, p4, rules)


def _split(history, stable, topmost, p4, rules):
    """Return what is left of the stable particles when the tracked ones are taken from them."""

    def ancestors(i):
        return _ancestors(history, i)

    def nearest(i, accepted):
        return next((a for a in ancestors(i) if a in accepted), None)

    result = {i: p4[i] for i in stable}
    for ancestor in sorted(stable):
        parts = sorted(i for i in topmost if nearest(i, stable) == ancestor)
        if not parts:
            continue
        rest = [p4[ancestor][k] - sum(p4[i][k] for i in parts) for k in range(4)]
        limit = 1e-4 * p4[ancestor][3]
        size = math.sqrt(sum(x * x for x in rest[:3]))
        missing = sum(_left_out(history, list(ancestors(i)), ancestor, rules) for i in parts)
        if rest[3] < -limit or size > rest[3] + 2 * limit + missing:
            continue
        if size > max(rest[3], 0):
            rest[:3] = [x * max(rest[3], 0) / size for x in rest[:3]]
        result[ancestor] = rest
        if rest[3] <= limit:
            del result[ancestor]
        result.update({i: p4[i] for i in parts})
    return result, lambda i: nearest(i, result)


def _left_out(history, line, ancestor, rules):
    """Return the momentum that may be missing between the first of a line and its ancestor."""
    between = line[1 : line.index(ancestor) + 1]
    missing = 0.0
    if any(history[i]["charge"] != 0 for i in between):
        first, last = (history[i].get("vertex", (0.0, 0.0)) for i in (line[0], ancestor))
        moved = math.dist(first, last)
        missing += rules["gev_per_mm"] * (
            moved if math.isfinite(moved) and moved > 0 else rules["reach_mm"]
        )
    return missing + 0.05 * any(history[i]["pdg"] == 22 for i in between)


def _visible(entry, p4, deposit, shares, rules):
    if _is_neutrino(entry) or p4[3] <= 0:
        return False
    left_enough = deposit > rules["fraction"] * p4[3] or (
        entry["charge"] != 0 and deposit > rules["charged_gev"]
    )
    return bool(shares) or (
        left_enough and (_flies_at_calorimeters(p4, rules) or deposit > rules["outside"] * p4[3])
    )


def _flies_at_calorimeters(p4, rules):
    return abs(p4[2]) <= rules["pz_per_pt"] * math.hypot(p4[0], p4[1])


def _hosts(event, particles, visible, shares, cluster_energy, n_tracks, n_clusters):
    """Return {particle: (fate, element)}, the targets, and merged and dropped energy."""
    order = sorted(particles)
    targets = [
        {"p4": [0.0] * 4, "owner": -1, "pdg": 0, "n_merged": 0}
        for _ in range(n_tracks + n_clusters)
    ]
    fates = {}
    for i in sorted(visible, key=lambda i: (-particles[i][3], i)):
        wishes = sorted(shares[i], key=lambda t: (-shares[i][t], t))
        strongest = sorted(cluster_energy[i], key=lambda c: (-cluster_energy[i][c], c))
        elements = [*wishes, *(n_tracks + c for c in strongest)]
        free = next((e for e in elements if targets[e]["owner"] < 0), None)
        if free is not None:
            targets[free]["owner"] = order.index(i)
            targets[free]["pdg"] = event.particles[i]["pdg"]
            fates[i] = (1, free)
        elif strongest:
            free = n_tracks + strongest[0]
            targets[free]["n_merged"] += 1
            fates[i] = (2, free)
        else:
            fates[i] = (3, -1)
        if free is not None:
            targets[free]["p4"] = [
                a + b for a, b in zip(targets[free]["p4"], particles[i], strict=True)
            ]
    return fates, targets


def _spoilt(event, tracks, clusters, heir, hits):
    """Return the truth particles with a part in a track, cluster or hit that is left out."""
    found = set()

    def take(links, left_out):
        for left, particle, weight in links:
            if (
                0 <= particle < len(event.particles)
                and math.isfinite(weight)
                and weight > 0
                and left_out(left)
            ):
                found.add(heir(particle))

    take(event.track_links, lambda track: 0 <= track < len(event.tracks) and track not in tracks)
    by_links = clusters_by_links(event, hits)
    take(event.cluster_links, lambda cluster: cluster in by_links and cluster not in clusters)
    if not hits:
        return found
    lost = [
        hit
        for old, cluster in enumerate(event.clusters)
        if old not in clusters
        for hit in cluster["hits"]
    ]

    def lost_hit(hit):
        name, index = hit
        if not 0 <= index < len(event.hits[name]):
            return False
        energy = event.hits[name][index]["energy"]
        return hit in lost or not math.isfinite(energy) or energy <= 0

    take(event.hit_links, lost_hit)
    return found


def _balance(event, particles, fates, shares, spoilt, rules):
    """Return the sum of energies by what became of them, and the number of dropped particles by
    reason.
    """
    sums = Counter()
    for i, p4 in particles.items():
        fate = fates.get(i, (0, -1))[0]
        sums["generated"] += p4[3]
        if fate == 0:
            if _is_neutrino(event.particles[i]):
                reason = "neutrinos"
            elif i in spoilt:
                reason = "unusable"
            else:
                reason = "faint" if _flies_at_calorimeters(p4, rules) else "outside"
            sums[reason] += p4[3]
            continue
        sums["visible"] += p4[3]
        if fate == 2:
            sums["merged"] += p4[3]
        if fate == 3:
            reason = "unusable" if i in spoilt else "shared_track" if shares[i] else "no_cluster"
            sums["dropped"] += p4[3]
            sums[f"dropped_{reason}"] += p4[3]
            sums[f"n_dropped_{reason}"] += 1
    return sums


def _candidate_element(candidate, event, tracks, clusters):
    for track in candidate["tracks"]:
        if track in tracks:
            return tracks[track]
    found = [i for i in candidate["clusters"] if i in clusters]
    return (
        len(tracks) + clusters[max(found, key=lambda i: (event.clusters[i]["energy"], -i))]
        if found
        else -1
    )
