"""Volumes and cells of the calorimeters and the muon system.

Inputs: the calorimeter's configuration, straight rays (point in mm, unit direction). Outputs: the
path of each ray through the volumes, cell identifiers of points, centres of cells.

The four calorimeter volumes are numbered as ``HitCollection``: barrels are cylindrical shells with
layers in r and cells in (phi, z), endcaps are discs on both sides with layers in |z| and cells in
(x, y). A volume is homogeneous on the scale of its layers: radiation and interaction lengths grow
linearly with the path.

A cell identifier packs, from the top: collection (4 bits), side (2: 0 barrel, 1 +z, 2 -z), layer
(8), i (24), j (24); i is the phi index or the x index, j the z or y index, both offset so that they
are positive. It depends on the geometry alone.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from particleforge.config.geometry import CalorimeterConfig, MuonSystemConfig, SamplingConfig
from particleforge.simulation.columns import HitCollection

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

N_VOLUMES = 4  # HitCollection below MUON
NO_CELL = np.uint64(0xFFFFFFFFFFFFFFFF)
BARREL, PLUS, MINUS = 0, 1, 2
_OFFSET = 1 << 23
_FAR = 1e9  # mm, beyond everything
# Columns of the volume table that the compiled functions read.
DEPTH_MIN, DEPTH_MAX, CROSS_MIN, CROSS_MAX, LAYERS, CELL, X0_PER_MM, LAMBDA_PER_MM = range(8)


def volume_table(calorimeter: CalorimeterConfig) -> Floats:
    """Return the volumes as rows [4, 8] with the columns named above.

    Depth is r (barrel) or |z|, cross is |z| or r; mm.
    """
    rows = []
    for part in (calorimeter.ecal, calorimeter.hcal):
        for barrel in (True, False):
            low, high = (
                (part.barrel_inner_radius_mm, part.barrel_outer_radius_mm)
                if barrel
                else (part.endcap_z_min_mm, part.endcap_z_max_mm)
            )
            cross = (
                (0.0, part.barrel_half_length_mm)
                if barrel
                else (part.endcap_inner_radius_mm, part.endcap_outer_radius_mm)
            )
            per_mm = part.n_layers / (high - low)
            lengths = (
                part.radiation_lengths_per_layer * per_mm,
                part.interaction_lengths_per_layer * per_mm,
            )
            rows.append((low, high, *cross, part.n_layers, part.cell_size_mm, *lengths))
    return np.array(rows, np.float64)


def part_of_volume(calorimeter: CalorimeterConfig, volume: int) -> SamplingConfig:
    """Return the configuration of a volume's calorimeter."""
    return (
        calorimeter.ecal
        if volume in (HitCollection.ECAL_BARREL, HitCollection.ECAL_ENDCAP)
        else calorimeter.hcal
    )


@dataclass(frozen=True)
class Rays:
    """Straight paths through the volumes.

    ``[n, 4]`` arrays hold the volumes in the order of crossing, unused ones are empty.

    ``start`` and ``length`` in mm along the ray; ``x0`` and ``interaction`` are radiation and
    interaction lengths per mm there. ``side_u`` and ``side_v`` complete the direction to an
    orthonormal frame.
    """

    origin: Floats  # [n, 3]
    direction: Floats
    side_u: Floats
    side_v: Floats
    volume: Integers
    start: Floats
    length: Floats
    x0: Floats
    interaction: Floats


def trace_rays(volumes: Floats, origin: Floats, direction: Floats) -> Rays:
    """Return where rays, which move outwards, cross the volumes at s >= 0.

    Rays are ``origin + s direction`` (``[n, 3]``, mm).
    """
    n = len(origin)
    start, stop = np.full((n, N_VOLUMES), _FAR), np.full((n, N_VOLUMES), _FAR)
    for index, row in enumerate(volumes):
        barrel = index % 2 == 0
        if barrel:
            enter = _reach_radius(origin, direction, row[DEPTH_MIN])
            leave = _reach_radius(origin, direction, row[DEPTH_MAX])
            leave = np.minimum(leave, _reach_z(origin, direction, row[CROSS_MAX]))
        else:
            enter = _reach_z(origin, direction, row[DEPTH_MIN])
            leave = _reach_z(origin, direction, row[DEPTH_MAX])
            enter = np.maximum(enter, _reach_radius(origin, direction, row[CROSS_MIN]))
            leave = np.minimum(leave, _reach_radius(origin, direction, row[CROSS_MAX]))
        enter = np.maximum(enter, 0.0)
        crossed = leave > enter
        start[crossed, index], stop[crossed, index] = enter[crossed], leave[crossed]
    order = np.argsort(start, axis=1, kind="stable")
    start, stop = np.take_along_axis(start, order, 1), np.take_along_axis(stop, order, 1)
    helper = np.where(np.abs(direction[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    side_u = np.cross(direction, helper)
    side_u /= np.linalg.norm(side_u, axis=1, keepdims=True)
    return Rays(
        origin=origin,
        direction=direction,
        side_u=side_u,
        side_v=np.cross(direction, side_u),
        volume=order,
        start=start,
        length=stop - start,
        x0=volumes[:, X0_PER_MM][order],
        interaction=volumes[:, LAMBDA_PER_MM][order],
    )


def _reach_radius(origin: Floats, direction: Floats, radius: float) -> Floats:
    """Return the distance at which rays leave the cylinder of this radius.

    0 for those outside, far for those along z.
    """
    a = direction[:, 0] ** 2 + direction[:, 1] ** 2
    b = origin[:, 0] * direction[:, 0] + origin[:, 1] * direction[:, 1]
    c = origin[:, 0] ** 2 + origin[:, 1] ** 2 - radius**2
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    distance = np.where(a > 1e-12, (root - b) / np.maximum(a, 1e-12), _FAR)
    return np.where(c >= 0, 0.0, distance)


def _reach_z(origin: Floats, direction: Floats, z: float) -> Floats:
    """Return the distance at which rays reach |z|; 0 for those beyond."""
    speed = np.abs(direction[:, 2])
    along = origin[:, 2] * np.where(direction[:, 2] < 0, -1.0, 1.0)
    return np.maximum(np.where(speed > 1e-9, (z - along) / np.maximum(speed, 1e-9), _FAR), 0.0)


@njit(cache=True)
def distance_at_depth(ray, depth, density, start, length):  # type: ignore[no-untyped-def]
    """Return, per point, the distance at which ``depth`` is reached, and the volume's slot.

    The distance is along the point's ``ray``; the slot is -1 behind all volumes.

    ``density`` is ``Rays.x0`` or ``Rays.interaction``, in the unit of ``depth`` per mm.
    """
    distance, slot = np.empty(ray.size), np.full(ray.size, -1, np.int8)
    for point in range(ray.size):
        row, left = ray[point], depth[point]
        distance[point] = 1e9
        for k in range(4):
            thickness = length[row, k] * density[row, k]
            if left < thickness:
                distance[point] = start[row, k] + left / density[row, k]
                slot[point] = k
                break
            left -= thickness
    return distance, slot


def depth_at_distance(rays: Rays, row: Integers, distance: Floats, density: Floats) -> Floats:
    """Return the lengths of material that rays ``row`` have crossed at ``distance``.

    Their unit is that of ``density`` x mm.
    """
    inside = np.clip(distance[:, None] - rays.start[row], 0.0, rays.length[row])
    return np.asarray((inside * density[row]).sum(axis=1))


@njit(cache=True)
def pack_cell(collection, side, layer, i, j):  # type: ignore[no-untyped-def]
    """Return the identifier of a cell."""
    return np.uint64(
        (collection << 58) | (side << 56) | (layer << 48) | ((i + _OFFSET) << 24) | (j + _OFFSET)
    )


@njit(cache=True)
def _cell_in(volumes, volume, x, y, z):  # type: ignore[no-untyped-def]
    """Return the cell of a volume at a point, the layer clipped to the volume's."""
    row = volumes[volume]
    radius = np.hypot(x, y)
    depth = radius if volume % 2 == 0 else abs(z)
    pitch = (row[DEPTH_MAX] - row[DEPTH_MIN]) / row[LAYERS]
    layer = min(max(int(np.floor((depth - row[DEPTH_MIN]) / pitch)), 0), int(row[LAYERS]) - 1)
    size = row[CELL]
    if volume % 2 == 0:
        n_phi = int(2 * np.pi * (row[DEPTH_MIN] + (layer + 0.5) * pitch) / size)
        i = int((np.arctan2(y, x) / (2 * np.pi) % 1.0) * n_phi) % n_phi
        return pack_cell(volume, BARREL, layer, i, int(np.floor(z / size)))
    return pack_cell(
        volume, PLUS if z > 0 else MINUS, layer, int(np.floor(x / size)), int(np.floor(y / size))
    )


@njit(cache=True)
def _inside(volumes, volume, x, y, z, check_depth):  # type: ignore[no-untyped-def]
    """Tell whether a point lies in a volume.

    If ``check_depth`` is false, only its transverse limits count.
    """
    row = volumes[volume]
    radius = np.hypot(x, y)
    depth, cross = (radius, abs(z)) if volume % 2 == 0 else (abs(z), radius)
    in_depth = row[DEPTH_MIN] <= depth < row[DEPTH_MAX] or not check_depth
    return in_depth and row[CROSS_MIN] <= cross < row[CROSS_MAX]


@njit(cache=True)
def cells_of_points(volumes, ray, distance, slot, u, v, origin, direction, side_u, side_v, volume):  # type: ignore[no-untyped-def]
    """Return the cell of each point ``distance`` mm along its ray; NO_CELL outside.

    Points are displaced sideways by ``u`` and ``v`` mm.

    A point that its displacement carries into a gap between two calorimeters stays in the volume
    that the ray is in: the gaps hold supports and electronics, and energy is accounted for in
    active volumes only.
    """
    cells = np.full(ray.size, NO_CELL, np.uint64)
    for point in range(ray.size):
        if slot[point] < 0:
            continue
        row = ray[point]
        s, a, b = distance[point], u[point], v[point]
        x = origin[row, 0] + s * direction[row, 0] + a * side_u[row, 0] + b * side_v[row, 0]
        y = origin[row, 1] + s * direction[row, 1] + a * side_u[row, 1] + b * side_v[row, 1]
        z = origin[row, 2] + s * direction[row, 2] + a * side_u[row, 2] + b * side_v[row, 2]
        own = volume[row, slot[point]]
        if _inside(volumes, own, x, y, z, True):
            cells[point] = _cell_in(volumes, own, x, y, z)
            continue
        for other in range(4):
            if _inside(volumes, other, x, y, z, True):
                cells[point] = _cell_in(volumes, other, x, y, z)
                break
        else:
            if _inside(volumes, own, x, y, z, False):
                cells[point] = _cell_in(volumes, own, x, y, z)
    return cells


def collection_of_cells(cells: NDArray[np.uint64]) -> NDArray[np.int8]:
    """Return the HitCollection of cells; an arbitrary one for NO_CELL."""
    collection = np.minimum(cells >> np.uint64(58), np.uint64(HitCollection.MUON))
    return np.asarray(collection, np.int8)


def cell_centres(
    calorimeter: CalorimeterConfig, cells: NDArray[np.uint64]
) -> tuple[Floats, Floats, Floats]:
    """Return x, y, z in mm of the centres of cells of any collection."""
    collection = collection_of_cells(cells)
    side = ((cells >> np.uint64(56)) & np.uint64(3)).astype(np.int64)
    layer = ((cells >> np.uint64(48)) & np.uint64(0xFF)).astype(np.float64)
    i = ((cells >> np.uint64(24)) & np.uint64(0xFFFFFF)).astype(np.float64) - _OFFSET
    j = (cells & np.uint64(0xFFFFFF)).astype(np.float64) - _OFFSET
    volumes, muon = volume_table(calorimeter), calorimeter.muon
    first = np.array([*volumes[:, DEPTH_MIN], 0.0])[collection]
    pitch = np.array(
        [
            *(volumes[:, DEPTH_MAX] - volumes[:, DEPTH_MIN]) / volumes[:, LAYERS],
            muon.layer_spacing_mm,
        ]
    )[collection]
    size = np.array([*volumes[:, CELL], muon.cell_size_mm])[collection]
    chamber = collection == HitCollection.MUON
    first[chamber] = np.where(side[chamber] == BARREL, muon.inner_radius_mm, muon.endcap_z_min_mm)
    # chambers are planes, layers have a thickness
    depth = first + (layer + np.where(chamber, 0.0, 0.5)) * pitch
    n_phi = np.maximum(np.floor(2 * np.pi * depth / size), 1)
    phi = (i + 0.5) / n_phi * 2 * np.pi
    barrel = side == BARREL
    x = np.where(barrel, depth * np.cos(phi), (i + 0.5) * size)
    y = np.where(barrel, depth * np.sin(phi), (j + 0.5) * size)
    z = np.where(barrel, (j + 0.5) * size, np.where(side == PLUS, depth, -depth))
    return x, y, z


def chamber_crossings(
    muon: MuonSystemConfig, rays: Rays, row: Integers
) -> tuple[Integers, NDArray[np.uint64]]:
    """Return the rays and the cells where they cross the muon system's chambers.

    Rays are numbers from ``row``; there is one entry per crossing.
    """
    origin, direction = rays.origin[row], rays.direction[row]
    found_row, found_cell = [], []
    cos_max = np.tanh(muon.abs_eta_max)
    for layer in range(muon.n_layers):
        radius, plane = (
            first + layer * muon.layer_spacing_mm
            for first in (muon.inner_radius_mm, muon.endcap_z_min_mm)
        )
        to_barrel = _reach_radius(origin, direction, radius)
        to_plane = _reach_z(origin, direction, plane)
        point = origin + np.minimum(np.minimum(to_barrel, to_plane), 1e5)[:, None] * direction
        x, y, z = point.T
        barrel = to_barrel < to_plane
        side = np.where(barrel, BARREL, np.where(z > 0, PLUS, MINUS))
        n_phi = int(2 * np.pi * radius / muon.cell_size_mm)
        i_barrel = np.floor((np.arctan2(y, x) / (2 * np.pi) % 1.0) * n_phi).astype(np.int64) % n_phi
        i = np.where(barrel, i_barrel, np.floor(x / muon.cell_size_mm).astype(np.int64))
        j = np.floor(np.where(barrel, z, y) / muon.cell_size_mm).astype(np.int64)
        inside = np.abs(z) < cos_max * np.linalg.norm(point, axis=1)
        cells = (
            (np.int64(HitCollection.MUON) << 58)
            | (side << 56)
            | (layer << 48)
            | ((i + _OFFSET) << 24)
            | (j + _OFFSET)
        )
        found_row.append(row[inside])
        found_cell.append(cells[inside].astype(np.uint64))
    return np.concatenate(found_row), np.concatenate(found_cell)
