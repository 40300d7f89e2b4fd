"""Tracks and clusters (or hits) with the members of the dataset's schema.

Inputs -> outputs: ``RawEvents`` -> the columns of ``schema.TRACKS`` and ``schema.CLUSTERS`` (or
``schema.HITS``), and the events with all invalid rows and what refers to them removed. Lengths in
mm, energies in GeV, angles in rad, times in ns.

* Track parameters are those of the state at the interaction point (EDM4hep location 1), at the
  helix's point of closest approach to the origin, whatever the state's reference point
  (``edm4hep.helix``); pT = 0.299792458e-3 B / |omega| (LCIO helix parameters, LC-DET-2006-004);
  the entry into the calorimeter is the reference point of the state there (4).
* A cluster's energies per calorimeter, widths, shape (``cluster_shape``) and number of hits come
  from its hits. Where the file has none, the energies are those that the cluster carries (or 0),
  and widths and shape are 0. A cluster without position takes its hits' centroid, or else the
  direction of the first neutral candidate that refers to it, on the calorimeter's inner face
  (FCC-ee samples of spring 2021).
* With hits as elements, each hit is a cluster of its own (``hits_as_clusters``) before anything
  else happens.
* Depth is the distance between the calorimeter's inner face and the position along the straight
  line from the origin.

What is dropped and counted: tracks without state, or with one that is not finite, has no
curvature, or an azimuth of more than ``PHI_MAX``, which was never filled; hits and clusters whose
energy is not a finite positive number; clusters without a position; candidates that are not finite.
Candidates that get the energy of their momentum are counted, too (``candidates_raised``), and of
the tracks those without state (``tracks_without_state``). The particles get a column
``made_unusable``: a link says that the entry had a part in a track, hit or cluster that was left
out. Invariant: every number in the result is finite.
"""

from dataclasses import replace

import numba
import numpy as np

from particleforge.config.cluster_shape import ClusterShapeConfig
from particleforge.config.geometry import CalorimeterConfig, SamplingConfig
from particleforge.dataset.candidates import with_energy_of_momentum
from particleforge.dataset.cluster_shape import cluster_shape
from particleforge.edm4hep.constants import GEV_PER_TESLA_MM
from particleforge.edm4hep.datamodel import AT_CALORIMETER, AT_FIRST_HIT, AT_IP
from particleforge.edm4hep.helix import seen_from_origin
from particleforge.edm4hep.raw_events import (
    ORIGIN,
    Array,
    BoolArray,
    FloatArray,
    Pairs,
    RawEvents,
    Table,
    joined,
    summed,
)

PHI_MAX = 6 * np.pi  # three turns; fits wrap angles, memory that was never filled holds anything
_SYSTEMS = ("energy_ecal", "energy_hcal", "energy_other")
_IN_SYSTEMS = ("in_ecal", "in_hcal", "in_other")


def hits_as_clusters(raw: RawEvents, energy_min_gev: float) -> RawEvents:
    """Return the events with one cluster for each hit of at least ``energy_min_gev``.

    Clusters are in the order of the hits.

    Candidates refer to the hits of the clusters that they referred to. Hits below remain, as hits
    outside of all clusters.
    """
    energy = raw.hits["energy"]
    clusters, cluster_of = raw.hits.select(
        _positive(energy) & (energy >= energy_min_gev) & _finite(raw.hits, "energy", "x", "y", "z")
    )
    return replace(
        raw,
        clusters=clusters,
        cluster_hits=Pairs.of(np.arange(clusters.n_rows), np.flatnonzero(cluster_of >= 0)),
        cluster_links=Pairs.none(),
        candidate_clusters=joined(
            raw.candidate_clusters, raw.cluster_hits, raw.clusters.n_rows
        ).renumber(right=cluster_of),
        unread_hits=None,
        truth_from_hits=True,
    )


def valid_events(
    raw: RawEvents,
    b_field_tesla: float,
    calorimeter: CalorimeterConfig,
    shape: ClusterShapeConfig,
) -> RawEvents:
    """Return the events with schema's ``tracks`` and ``clusters``, less invalid rows.

    Invalid rows are counted.
    """
    counts, ecal = dict(raw.counts), calorimeter.ecal
    by_links = clusters_by_links(raw)
    hits, new_hit = raw.hits.select(
        _positive(raw.hits["energy"]) & _finite(raw.hits, "energy", "x", "y", "z")
    )
    cluster_hits = raw.cluster_hits.renumber(right=new_hit)
    if "system" in raw.clusters:  # they are hits
        clusters = hit_features(raw.clusters, ecal)
    else:
        located = _towards_candidates(
            _located(raw.clusters, hits, cluster_hits), raw.candidates, raw.candidate_clusters, ecal
        )
        clusters = cluster_features(located, hits, cluster_hits, calorimeter, shape)
    keep = _positive(raw.clusters["energy"]) & _finite(clusters, *clusters.columns)
    clusters, new_cluster = _of_same_origin(clusters, raw.clusters).select(keep)
    tracks = track_features(raw.tracks, raw.states, raw.track_states, b_field_tesla)
    usable = _finite(tracks, *tracks.columns)
    tracks, new_track = _of_same_origin(tracks, raw.tracks).select(usable)
    candidates, counts["candidates_raised"] = with_energy_of_momentum(raw.candidates)
    candidates, new_candidate = candidates.select(_finite(candidates, *candidates.columns))
    for name, before, after in (
        ("hits_dropped", raw.hits, hits),
        ("clusters_dropped", raw.clusters, clusters),
        ("tracks_dropped", raw.tracks, tracks),
        ("candidates_dropped", raw.candidates, candidates),
    ):
        counts[name] = before.n_rows - after.n_rows
    counts["tracks_without_state"] = raw.n_tracks_without_state
    made_unusable = _linked(raw.track_links, new_track < 0, raw.particles.n_rows)
    # of a cluster that is left out, the hits are still there, but no element any more
    if raw.truth_from_hits:
        in_lost_cluster = np.zeros(raw.hits.n_rows, bool)
        in_lost_cluster[raw.cluster_hits.right[new_cluster[raw.cluster_hits.left] < 0]] = True
        made_unusable |= _linked(
            raw.hit_links, (new_hit < 0) | in_lost_cluster, raw.particles.n_rows
        )
    made_unusable |= _linked(raw.cluster_links, (new_cluster < 0) & by_links, raw.particles.n_rows)
    return replace(
        raw,
        particles=Table(
            raw.particles.offsets, {**raw.particles.columns, "made_unusable": made_unusable}
        ),
        hits=hits,
        clusters=clusters,
        tracks=tracks,
        candidates=candidates,
        cluster_hits=cluster_hits.renumber(left=new_cluster),
        hit_links=raw.hit_links.renumber(left=new_hit),
        cluster_links=raw.cluster_links.renumber(left=new_cluster),
        track_links=raw.track_links.renumber(left=new_track),
        candidate_tracks=raw.candidate_tracks.renumber(new_candidate, new_track),
        candidate_clusters=raw.candidate_clusters.renumber(new_candidate, new_cluster),
        by_links=by_links[new_cluster >= 0],
        counts=counts,
    )


def _of_same_origin(table: Table, raw: Table) -> Table:
    """Return a table of the raw one's rows with where these lie in the file, if that is known."""
    known = {name: raw[name] for name in ORIGIN if name in raw}
    return Table(table.offsets, {**table.columns, **known}) if known else table


def clusters_by_links(raw: RawEvents) -> BoolArray:
    """Tell of which clusters the links say more than the hits.

    Such are those with links that have a hit that is not read, or none that is linked. Without
    truth from hits they are all.
    """
    if not raw.truth_from_hits:
        return np.ones(raw.clusters.n_rows, bool)
    linked = np.zeros(raw.clusters.n_rows, bool)
    linked[raw.cluster_links.left[raw.cluster_links.weight > 0]] = True
    linked_hit = np.zeros(raw.hits.n_rows, bool)
    linked_hit[raw.hit_links.left[raw.hit_links.weight > 0]] = True
    linked_hit &= _positive(raw.hits["energy"]) & _finite(raw.hits, "energy", "x", "y", "z")
    has_linked_hit = np.zeros(raw.clusters.n_rows, bool)
    has_linked_hit[raw.cluster_hits.left[linked_hit[raw.cluster_hits.right]]] = True
    incomplete = ~has_linked_hit
    if raw.unread_hits is not None:
        incomplete |= raw.unread_hits > 0
    return linked & incomplete


def track_features(
    tracks: Table, states: Table, track_states: Pairs, b_field_tesla: float
) -> Table:
    """Return ``schema.TRACKS``.

    A track without usable state at the interaction point has NaN in ``omega``.
    """

    def at(location: int) -> dict[str, FloatArray]:
        chosen = track_states.where(states["location"][track_states.right] == location)
        found = {name: np.full(tracks.n_rows, np.nan) for name in states.columns}
        for name, column in states.columns.items():
            found[name][chosen.left] = column[chosen.right]
        return found

    start, first, calorimeter = at(AT_IP), at(AT_FIRST_HIT), at(AT_CALORIMETER)
    omega = np.where(
        (start["omega"] == 0) | (np.abs(start["phi"]) > PHI_MAX), np.nan, start["omega"]
    )
    start = seen_from_origin(start | {"omega": omega})
    pt = GEV_PER_TESLA_MM * b_field_tesla / np.abs(omega)
    eta = np.arcsinh(start["tan_lambda"])
    radius = np.hypot(calorimeter["x"], calorimeter["y"])
    reaches = np.isfinite(radius) & np.isfinite(calorimeter["z"]) & (radius > 0)
    radius_first = np.where(
        tracks["radius_innermost_hit"] > 0,
        tracks["radius_innermost_hit"],
        np.hypot(first["x"], first["y"]),
    )
    return Table(
        tracks.offsets,
        {
            "pt": pt,
            "eta": eta,
            "phi": _wrapped(start["phi"]),
            "p": pt * np.sqrt(1 + start["tan_lambda"] ** 2),
            "charge": np.nan_to_num(np.sign(omega)),
            "omega": omega,
            "tan_lambda": start["tan_lambda"],
            "d0": start["d0"],
            "z0": start["z0"],
            "chi2": tracks["chi2"],
            "ndf": tracks["ndf"],
            "n_hits": tracks["n_hits"],
            "dedx": np.nan_to_num(tracks["dedx"], nan=0, posinf=0, neginf=0),
            "radius_innermost_hit": np.nan_to_num(radius_first, nan=0, posinf=0, neginf=0),
            "eta_calo": np.where(
                reaches, np.arcsinh(calorimeter["z"] / np.where(reaches, radius, 1)), eta
            ),
            "phi_calo": np.where(
                reaches, np.arctan2(calorimeter["y"], calorimeter["x"]), _wrapped(start["phi"])
            ),
        },
    )


def cluster_features(
    clusters: Table,
    hits: Table,
    cluster_hits: Pairs,
    calorimeter: CalorimeterConfig,
    shape: ClusterShapeConfig,
) -> Table:
    """Return ``schema.CLUSTERS``; a cluster without position has NaN in ``eta``."""
    columns, axis = _at_position(clusters, calorimeter.ecal)
    of_hits = [hits[name] for name in ("system", "energy", "x", "y", "z")]
    n_hits, by_system, moments = _of_members(axis, cluster_hits.left, cluster_hits.right, *of_hits)
    return Table(
        clusters.offsets,
        columns
        | _energies_by_system(clusters, n_hits, by_system)
        | {"n_hits": n_hits}
        | _widths(moments)
        | cluster_shape(axis, hits, cluster_hits, calorimeter, shape),
    )


def hit_features(hits: Table, ecal: SamplingConfig) -> Table:
    """Return ``schema.HITS``; a hit at the origin has NaN in ``eta``."""
    systems = {name: hits["system"] == number for number, name in enumerate(_IN_SYSTEMS)}
    return Table(
        hits.offsets,
        _at_position(hits, ecal)[0]
        | systems
        | {"time": np.nan_to_num(hits["time"], nan=0, posinf=0, neginf=0)},
    )


def _at_position(table: Table, ecal: SamplingConfig) -> tuple[dict[str, Array], FloatArray]:
    """Return what follows from energy and position, and the unit vectors [n, 3] from the origin.

    Eta is NaN without position.
    """
    energy = table["energy"].astype(np.float64)
    x, y, z = (table[axis].astype(np.float64) for axis in "xyz")
    distance = np.sqrt(x**2 + y**2 + z**2)
    located = np.isfinite(distance) & (distance > 0)
    safe = np.where(located, distance, 1)
    sin_theta = np.hypot(x, y) / safe
    eta = np.where(located, np.arcsinh(z / np.maximum(np.hypot(x, y), 1e-6 * safe)), np.nan)
    columns = {
        "energy": energy,
        "et": energy * sin_theta,
        "eta": eta,
        "phi": np.arctan2(y, x),
        "x": x,
        "y": y,
        "z": z,
    }
    columns["depth"] = distance - distance_to_face(sin_theta, np.abs(z) / safe, ecal)
    return columns, np.stack([x, y, z], axis=1) / safe[:, None]


def distance_to_face(sin_theta: Array, cos_theta: Array, ecal: SamplingConfig) -> FloatArray:
    """Return the distance in mm from the origin to the first inner face, of barrel or endcap."""
    barrel = ecal.barrel_inner_radius_mm / np.maximum(sin_theta, 1e-9)
    endcap = ecal.endcap_z_min_mm / np.maximum(cos_theta, 1e-9)
    return np.minimum(barrel, endcap)


def acceptance_abs_eta(calorimeter: CalorimeterConfig) -> float:
    """Return the |eta| up to which a straight line meets the face of an endcap calorimeter.

    The line begins at the origin.
    """
    endcaps = (calorimeter.ecal, calorimeter.hcal)
    return max(
        float(np.arcsinh(endcap.endcap_z_min_mm / endcap.endcap_inner_radius_mm))
        for endcap in endcaps
    )


def _located(clusters: Table, hits: Table, cluster_hits: Pairs) -> Table:
    """Give clusters without position their hits' centroid, or NaN where they have none."""
    missing = ~_finite(clusters, "x", "y", "z") | (
        (clusters["x"] == 0) & (clusters["y"] == 0) & (clusters["z"] == 0)
    )
    if not np.any(missing):
        return clusters
    weight = hits["energy"][cluster_hits.right]
    total = summed(cluster_hits.left, weight, clusters.n_rows)
    known = missing & (total > 0)
    columns = dict(clusters.columns)
    for axis in "xyz":
        mean = summed(
            cluster_hits.left, weight * hits[axis][cluster_hits.right], clusters.n_rows
        ) / np.where(total > 0, total, 1)
        columns[axis] = np.where(known, mean, np.where(missing, np.nan, clusters[axis]))
    return Table(clusters.offsets, columns)


def _towards_candidates(
    clusters: Table, candidates: Table, candidate_clusters: Pairs, ecal: SamplingConfig
) -> Table:
    """Put clusters without position where ``ecal`` begins, along their first neutral candidate."""
    momentum = np.stack([candidates[f"p{axis}"].astype(np.float64) for axis in "xyz"], axis=1)
    size = np.linalg.norm(momentum, axis=1)
    usable = (candidates["charge"] == 0) & np.isfinite(size) & (size > 0)
    pairs = candidate_clusters.where(
        usable[candidate_clusters.left] & ~np.isfinite(clusters["x"])[candidate_clusters.right]
    )
    if not len(pairs.left):
        return clusters
    cluster, first = np.unique(pairs.right, return_index=True)
    candidate = pairs.left[first]
    direction = momentum[candidate] / size[candidate, None]
    distance = distance_to_face(
        np.hypot(direction[:, 0], direction[:, 1]), np.abs(direction[:, 2]), ecal
    )
    columns = dict(clusters.columns)
    for number, axis in enumerate("xyz"):
        columns[axis] = clusters[axis].astype(np.float64)
        columns[axis][cluster] = direction[:, number] * distance
    return Table(clusters.offsets, columns)


def _energies_by_system(
    clusters: Table, n_hits: FloatArray, by_system: FloatArray
) -> dict[str, FloatArray]:
    """Return the hits' energies by system [n_clusters, 3] as columns.

    Clusters without hits have what they carry themselves.
    """
    found = {}
    for number, name in enumerate(_SYSTEMS):
        carried = (
            np.nan_to_num(clusters[name], nan=0, posinf=0, neginf=0)
            if name in clusters
            else np.zeros(clusters.n_rows)
        )
        found[name] = np.where(n_hits > 0, by_system[:, number], carried)
    return found


def _widths(moments: FloatArray) -> dict[str, FloatArray]:
    """Return the energy-weighted RMS of the hits across and along the line from the origin.

    ``moments`` are those of the hits.
    """
    total, mean, along2, across2 = moments.T
    total = np.where(total > 0, total, 1)
    return {
        "width_transverse": np.sqrt(across2 / total),
        "width_longitudinal": np.sqrt(np.maximum(along2 / total - (mean / total) ** 2, 0)),
    }


@numba.njit(cache=True)
def _of_members(axis, cluster, hit, system, energy, x, y, z):  # type: ignore[no-untyped-def]
    """Return of each cluster's hits the number, energies by system, and moments.

    The moments are sums of w, w l, w l^2 and w t^2.

    w is the hit's energy, l and t are its distances along and across ``axis`` [n_clusters, 3], unit
    vectors from the origin; l is counted from the cluster's first hit, lest digits cancel.
    """
    n_clusters = len(axis)
    n_hits = np.zeros(n_clusters)
    by_system = np.zeros((n_clusters, len(_SYSTEMS)))
    moments = np.zeros((n_clusters, 4))
    origin = np.zeros(n_clusters)
    for i in range(len(cluster)):
        c, h = cluster[i], hit[i]
        dx = np.float64(x[h])
        dy = np.float64(y[h])
        dz = np.float64(z[h])
        weight = np.float64(energy[h])
        along = axis[c, 0] * dx + axis[c, 1] * dy + axis[c, 2] * dz
        if moments[c, 0] == 0:
            origin[c] = along
        n_hits[c] += 1
        by_system[c, system[h]] += weight
        moments[c, 0] += weight
        moments[c, 1] += weight * (along - origin[c])
        moments[c, 2] += weight * (along - origin[c]) ** 2
        moments[c, 3] += weight * max(dx**2 + dy**2 + dz**2 - along**2, 0.0)
    return n_hits, by_system, moments


def _linked(links: Pairs, chosen: BoolArray, n_particles: int) -> BoolArray:
    """Tell which particles are linked to chosen rows on the left."""
    found = np.zeros(n_particles, bool)
    found[links.right[chosen[links.left] & (links.weight > 0)]] = True
    return found


def _positive(values: Array) -> BoolArray:
    return np.isfinite(values) & (values > 0)


def _finite(table: Table, *names: str) -> BoolArray:
    """Tell which rows are finite in the single precision that they are stored in."""
    with np.errstate(over="ignore"):
        finite: BoolArray = np.all(
            [np.isfinite(table[name].astype(np.float32)) for name in names], axis=0
        )
    return finite


def _wrapped(phi: Array) -> Array:
    return np.arctan2(np.sin(phi), np.cos(phi))
