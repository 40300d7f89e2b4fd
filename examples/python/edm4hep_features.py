"""The features of examples/models/clic from an EDM4hep file, with uproot and numpy alone.

Each function returns columns over all tracks, or all clusters, of the file, by the names that the
model's metadata use, and how many each event has. Units are GeV, mm and rad. A file of another
reconstruction may hold tracks without a state at the interaction point, hits without energy or
clusters without a position: leave them out first.
"""

import awkward as ak
import numpy as np

B_FIELD_TESLA = 4.0
TRACKS, CLUSTERS = "SiTracks_Refitted", "PandoraClusters"
# 0 is the ECAL, 1 the HCAL, 2 everything else
HITS = {"ECALBarrel": 0, "ECALEndcap": 0, "HCALBarrel": 1, "HCALEndcap": 1, "MUON": 2}
# Where barrel and endcap begin in mm, and how many lengths a millimetre has in each: radiation
# lengths of the ECAL, interaction lengths of the HCAL. Then the edges of the bins of depth.
ECAL = (1500.0, 2307.0, 40 * 0.57 / (1702 - 1500), 40 * 0.57 / (2509 - 2307), (5.0, 10.0, 17.0))
HCAL = (1740.0, 2539.0, 60 * 0.125 / (3330 - 1740), 60 * 0.125 / (4129 - 2539), (1.0, 2.5))
CORE_RADII_MM = (14.0, 28.0, 56.0)
AT_IP, AT_FIRST_HIT, AT_CALORIMETER = 1, 2, 4  # locations of track states


def flat(events, leaf):
    """Return a leaf's values over all events, and how many each event has."""
    values = events[leaf].array()
    return ak.to_numpy(ak.flatten(values)).astype(np.float64), ak.to_numpy(ak.num(values))


def track_columns(events):
    """Return the columns of the tracks, and their number in each event."""

    def of(member):
        return flat(events, f"{TRACKS}.{member}")[0]

    def at(location):  # the state's members for each track, NaN where it has none
        here = where == location
        found = {name: np.full(len(counts), np.nan) for name in states}
        for name, values in states.items():
            found[name][track_of_state[here]] = values[here]
        return found

    n_tracks = flat(events, f"{TRACKS}.chi2")[1]
    counts = (of("trackStates_end") - of("trackStates_begin")).astype(np.int64)
    track_of_state = np.repeat(np.arange(len(counts)), counts)
    where = flat(events, f"_{TRACKS}_trackStates.location")[0]
    members = ("D0", "Z0", "phi", "omega", "tanLambda", *(f"referencePoint.{x}" for x in "xyz"))
    states = {name: flat(events, f"_{TRACKS}_trackStates.{name}")[0] for name in members}
    ip, first, calo = at(AT_IP), at(AT_FIRST_HIT), at(AT_CALORIMETER)  # D0, Z0 from the origin here
    pt, eta = 0.299792458e-3 * B_FIELD_TESLA / np.abs(ip["omega"]), np.arcsinh(ip["tanLambda"])
    dedx, n_dedx = flat(events, f"{TRACKS}_dQdx.dQdx.value")
    row = np.repeat(np.cumsum(n_tracks) - n_tracks, n_dedx)
    row = row + flat(events, f"_{TRACKS}_dQdx_track.index")[0].astype(np.int64)
    of_track = np.zeros(len(pt))
    of_track[row] = dedx
    x, y, z = (calo[f"referencePoint.{axis}"] for axis in "xyz")
    reaches = np.isfinite(x)
    phi_calo = np.where(reaches, np.arctan2(y, x), ip["phi"])
    return {
        "pt": pt,
        "eta": eta,
        "sin_phi": np.sin(ip["phi"]),
        "cos_phi": np.cos(ip["phi"]),
        "p": pt * np.hypot(1, ip["tanLambda"]),
        "charge": np.sign(ip["omega"]),
        "d0": ip["D0"],
        "z0": ip["Z0"],
        "chi2": of("chi2"),
        "n_hits": of("trackerHits_end") - of("trackerHits_begin"),
        "dedx": of_track,
        "radius_innermost_hit": np.hypot(first["referencePoint.x"], first["referencePoint.y"]),
        "eta_calo": np.where(reaches, np.arcsinh(z / np.hypot(x, y)), eta),
        "sin_phi_calo": np.sin(phi_calo),
        "cos_phi_calo": np.cos(phi_calo),
    }, n_tracks


def hits_of_clusters(file, events):
    """Return energy, x, y, z and calorimeter of the clusters' hits, and whose they are."""
    table = file["podio_metadata"]["events___CollectionTypeInfo"]
    names, ids = (table[leaf].array()[0].to_list() for leaf in ("name", "collectionID"))
    number, n_references = flat(events, f"_{CLUSTERS}_hits.collectionID")
    index = flat(events, f"_{CLUSTERS}_hits.index")[0].astype(np.int64)
    event = np.repeat(np.arange(len(n_references)), n_references)
    hits = np.zeros((len(index), 5))
    for name, calorimeter in HITS.items():
        mine = number == ids[names.index(name)]
        n_hits = flat(events, f"{name}.energy")[1]
        row = (np.cumsum(n_hits) - n_hits)[event[mine]] + index[mine]
        for column, member in enumerate(("energy", *(f"position.{x}" for x in "xyz"))):
            hits[mine, column] = flat(events, f"{name}.{member}")[0][row]
        hits[mine, 4] = calorimeter
    n_members = (
        flat(events, f"{CLUSTERS}.hits_end")[0] - flat(events, f"{CLUSTERS}.hits_begin")[0]
    ).astype(np.int64)
    return hits.T, np.repeat(np.arange(len(n_members)), n_members)


def depth_bin(radius, z, ecal, hcal):
    """Return the bin of depth of points: four in the ECAL, then three behind the HCAL's face."""
    behind = (radius >= hcal[0]) | (np.abs(z) >= hcal[1])
    found = np.zeros(len(radius), np.int64)
    for part, chosen, first in ((ecal, ~behind, 0), (hcal, behind, len(ecal[4]) + 1)):
        barrel, endcap = part[0] / np.maximum(radius, 1e-9), part[1] / np.maximum(np.abs(z), 1e-9)
        per_mm = np.where(barrel < endcap, part[2], part[3])
        depth = np.hypot(radius, z) * (1 - np.minimum(barrel, endcap)) * per_mm
        found[chosen] = first + np.searchsorted(part[4], depth[chosen], side="left")
    return found


def cluster_columns(file, events):
    """Return the columns of the clusters, and their number in each event."""
    energy, n_clusters = flat(events, f"{CLUSTERS}.energy")
    x, y, z = (flat(events, f"{CLUSTERS}.position.{axis}")[0] for axis in "xyz")
    (w, hx, hy, hz, calorimeter), of = hits_of_clusters(file, events)

    def total(values):
        return np.bincount(of, values, len(energy))

    distance, transverse = np.sqrt(x**2 + y**2 + z**2), np.hypot(x, y)
    sine, sum_w = transverse / distance, np.maximum(total(w), 1e-30)
    # each hit in the frame of its cluster's axis: along it, and in two directions across
    ax, ay, az, sin_axis = (v[of] for v in (x / distance, y / distance, z / distance, sine))
    along = ax * hx + ay * hy + az * hz
    u = (-ay * hx + ax * hy) / sin_axis
    v = (-az * ax * hx - az * ay * hy) / sin_axis + sin_axis * hz
    spread = along - (total(w * along) / sum_w)[of]
    uu, uv, vv = (total(w * product) / sum_w for product in (u * u, u * v, v * v))
    depth_of_hit = depth_bin(np.hypot(hx, hy), hz, ECAL, HCAL)
    face = np.minimum(ECAL[0] / np.maximum(sine, 1e-9), ECAL[1] * distance / np.abs(z))
    hottest = np.zeros(len(energy))
    np.maximum.at(hottest, of, w)
    columns = {
        "et": energy * sine,
        "eta": np.arcsinh(z / transverse),
        "sin_phi": y / transverse,
        "cos_phi": x / transverse,
        "energy": energy,
        "x": x,
        "y": y,
        "z": z,
        "n_hits": total(np.ones(len(w))),
        "width_transverse": np.sqrt(uu + vv),
        "width_longitudinal": np.sqrt(total(w * spread**2) / sum_w),
        "depth": distance - face,
        "fraction_hottest": hottest / sum_w,
        "width_minor": np.sqrt(np.maximum((uu + vv) / 2 - np.hypot((uu - vv) / 2, uv), 0)),
    }
    for number, name in enumerate(("ecal", "hcal", "other")):
        columns[f"energy_{name}"] = total(w * (calorimeter == number))
    for number, radius in enumerate(CORE_RADII_MM, start=1):
        columns[f"fraction_core_{number}"] = total(w * (u * u + v * v < radius**2)) / sum_w
    bins = [f"ecal_{n}" for n in range(1, 5)] + [f"hcal_{n}" for n in range(1, 4)]
    for number, name in enumerate(bins):
        columns[f"fraction_{name}"] = total(w * (depth_of_hit == number)) / sum_w
    return columns, n_clusters
