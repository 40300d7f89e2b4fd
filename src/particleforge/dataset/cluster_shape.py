"""The shape of clusters, from their hits.

Unit vectors from the origin to each cluster's position (its axis), and the hits of each cluster ->
columns of ``schema.CLUSTERS``: fractions of the hits' energy by depth and by distance from the
axis, of the hottest hit, and the narrower width. A cluster without hits has 0 everywhere. Energies
in GeV, lengths in mm. The cost is linear in hits.

* Depth is counted along the line from the origin to the hit, from the inner face of the calorimeter
  that the hit lies in by its position: in radiation lengths of the ECAL before the HCAL's face,
  else in interaction lengths of the HCAL. A millimetre has the barrel's lengths where the line
  meets the barrel's face, else the endcap's.
* Distances are taken across the axis, so neither a rotation about the beam axis nor the order of
  hits changes anything but the last digits.
"""

import numba
import numpy as np

from particleforge.config.cluster_shape import ClusterShapeConfig
from particleforge.config.geometry import CalorimeterConfig, SamplingConfig
from particleforge.edm4hep.raw_events import FloatArray, Pairs, Table


def cluster_shape(
    axis: FloatArray,
    hits: Table,
    cluster_hits: Pairs,
    calorimeter: CalorimeterConfig,
    shape: ClusterShapeConfig,
) -> dict[str, FloatArray]:
    """Return columns of ``schema.CLUSTERS`` for clusters whose ``axis`` is given, [n, 3]."""
    ecal, hcal = calorimeter.ecal, calorimeter.hcal
    by_depth, by_radius, hottest, moments = _of_members(
        _across(axis),
        (
            _faces(ecal, ecal.radiation_lengths_per_layer),
            _faces(hcal, hcal.interaction_lengths_per_layer),
        ),
        (
            np.array(shape.ecal_depth_edges_radiation_lengths),
            np.array(shape.hcal_depth_edges_interaction_lengths),
        ),
        np.array(shape.core_radii_moliere) * ecal.moliere_radius_mm,
        cluster_hits.left,
        cluster_hits.right,
        *(hits[name] for name in ("energy", "x", "y", "z")),
    )
    total = by_depth.sum(axis=1)
    total = np.where(total > 0, total, 1)
    n_ecal = len(shape.ecal_depth_edges_radiation_lengths) + 1
    names = [f"fraction_ecal_{number + 1}" for number in range(n_ecal)]
    names += [f"fraction_hcal_{number + 1}" for number in range(by_depth.shape[1] - n_ecal)]
    columns = {name: by_depth[:, i] / total for i, name in enumerate(names)}
    for number, within in enumerate(by_radius.T):
        columns[f"fraction_core_{number + 1}"] = within / total
    columns["fraction_hottest"] = hottest / total
    columns["width_minor"] = _width_minor(moments / total[:, None])
    return columns


def _faces(part: SamplingConfig, per_layer: float) -> tuple[float, float, float, float]:
    """Return where barrel and endcap begin, and the lengths of ``per_layer`` per mm of each."""
    lengths = part.n_layers * per_layer
    return (
        part.barrel_inner_radius_mm,
        part.endcap_z_min_mm,
        lengths / (part.barrel_outer_radius_mm - part.barrel_inner_radius_mm),
        lengths / (part.endcap_z_max_mm - part.endcap_z_min_mm),
    )


def _across(axis: FloatArray) -> FloatArray:
    """Return two unit vectors across each axis, azimuthal (x, y) and polar (x, y, z), [n, 5].

    An axis along the beam has neither: those along x and y then.
    """
    x, y, z = axis.T
    sine = np.hypot(x, y)
    is_along = sine < 1e-9
    safe = np.where(is_along, 1, sine)
    vectors = np.stack([-y / safe, x / safe, -z * x / safe, -z * y / safe, sine], axis=1)
    vectors[is_along] = (1, 0, 0, 1, 0)
    return vectors


def _width_minor(moments: FloatArray) -> FloatArray:
    """Return the smaller RMS across the axis, of the mean u u, u v, v v [n_clusters, 3]."""
    uu, uv, vv = moments.T
    least: FloatArray = np.maximum((uu + vv) / 2 - np.hypot((uu - vv) / 2, uv), 0)
    return least**0.5


@numba.njit(cache=True)
def _bin(radius, z, faces, edges):  # type: ignore[no-untyped-def]
    """Return how many of the few ``edges`` lie before a point.

    They are counted in lengths from the calorimeter's inner face, on the line from the origin.
    """
    barrel = faces[0] / max(radius, 1e-9)
    endcap = faces[1] / max(abs(z), 1e-9)
    per_mm = faces[2] if barrel < endcap else faces[3]
    depth = np.sqrt(radius * radius + z * z) * (1 - min(barrel, endcap)) * per_mm
    number = 0
    for edge in edges:
        number += depth > edge
    return number


@numba.njit(cache=True)
def _of_members(  # type: ignore[no-untyped-def]
    across, faces, edges, radii, cluster, hit, energy, x, y, z
):
    """Return sums over each cluster's hits.

    ``across`` is from ``_across``; ``faces`` and ``edges`` of depth are those of ECAL and HCAL.

    Energies by depth and within ``radii``; the largest energy of a hit; w u u, w u v, w v v.
    """
    n_clusters = len(across)
    by_depth = np.zeros((n_clusters, len(edges[0]) + len(edges[1]) + 2))
    by_radius = np.zeros((n_clusters, len(radii)))
    hottest = np.zeros(n_clusters)
    moments = np.zeros((n_clusters, 3))
    for i in range(len(cluster)):
        c, h = cluster[i], hit[i]
        dx, dy, dz = np.float64(x[h]), np.float64(y[h]), np.float64(z[h])
        weight = np.float64(energy[h])
        u = across[c, 0] * dx + across[c, 1] * dy
        v = across[c, 2] * dx + across[c, 3] * dy + across[c, 4] * dz
        radius = np.sqrt(dx * dx + dy * dy)
        # 1 behind the HCAL's face
        side = int(radius >= faces[1][0] or abs(dz) >= faces[1][1])
        number = side * (len(edges[0]) + 1) + _bin(radius, dz, faces[side], edges[side])
        hottest[c] = max(hottest[c], weight)
        by_depth[c, number] += weight
        for j in range(len(radii)):
            if u * u + v * v < radii[j] ** 2:
                by_radius[c, j] += weight
        moments[c, 0] += weight * u * u
        moments[c, 1] += weight * u * v
        moments[c, 2] += weight * v * v
    return by_depth, by_radius, hottest, moments
