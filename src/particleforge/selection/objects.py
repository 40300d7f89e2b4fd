"""Remove tracks, clusters and candidates from events and keep every index between the tables consistent.

Events in the layout of ``schema.DATASET`` and one keep-mask per collection -> events without the other objects. Elements are
the tracks, then the clusters, of an event; targets go with their element, links with their track or cluster; every
``element``, ``track`` and ``cluster`` index is renumbered. A particle whose element is gone becomes DROPPED with element -1, a
kept candidate its four-momentum with element -1, so that visible energy = target energy + dropped energy still holds.
All steps are NumPy operations over the flat content of a block of events.
"""

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from particleforge import schema
from particleforge.config.cuts import DetectorCutsConfig, OverlapConfig
from particleforge.schema import Fate
from particleforge.selection.expressions import object_values, passing_objects
from particleforge.selection.overlaps import without_overlaps

NO_ELEMENT = -1


def object_masks(events: ak.Array, cuts: DetectorCutsConfig) -> dict[str, list[ak.Array]]:
    """Return which objects are left before any cut and after each cut or removal of overlaps, boolean per event and object.

    Keys are those of ``cuts.of_objects``. Each expression sees all objects of the events, whatever the other cuts remove.
    """
    calorimeter_elements = f"{schema.calorimeter_type(ak.fields(events.clusters))}s"
    masks = {}
    for kind, removals in cuts.of_objects(calorimeter_elements).items():
        objects = events["clusters" if kind == "hits" else kind]
        masks[kind] = [ak.ones_like(objects[ak.fields(objects)[0]], dtype=np.bool_)]
        for removal in removals:
            left = masks[kind][-1]
            if isinstance(removal, OverlapConfig):
                left = without_overlaps(objects, removal, object_values(removal.prefer, kind, events), left)
            else:
                left = left & passing_objects(removal.expression, kind, events)
            masks[kind].append(left)
    return masks


def remove_objects(events: ak.Array, keep_tracks: ak.Array, keep_clusters: ak.Array, keep_candidates: ak.Array) -> ak.Array:
    """Return events with only the tracks, clusters and candidates that are kept, boolean per event and object."""
    keep_elements = ak.concatenate([keep_tracks, keep_clusters], axis=1)
    kept = dict(zip(ak.fields(events), ak.unzip(events), strict=True))
    kept["tracks"] = events.tracks[keep_tracks]
    kept["clusters"] = events.clusters[keep_clusters]
    kept["targets"] = events.targets[keep_elements]
    kept["track_links"] = _renumbered_links(events.track_links, "track", keep_tracks)
    kept["cluster_links"] = _renumbered_links(events.cluster_links, "cluster", keep_clusters)
    candidates = events.candidates[keep_candidates]
    kept["candidates"] = ak.with_field(candidates, renumber(candidates.element, keep_elements), "element")
    kept["particles"] = _renumbered_particles(events.particles, keep_elements)
    return ak.zip(kept, depth_limit=1)


def renumber(index: ak.Array, keep: ak.Array) -> ak.Array:
    """Return indices into the kept objects in place of indices into all; what is not kept, or was -1, is -1."""
    flat_keep = ak.to_numpy(ak.flatten(keep)).astype(np.bool_)
    n_objects, n_indices = ak.to_numpy(ak.num(keep)), ak.to_numpy(ak.num(index))
    before = np.concatenate([[0], np.cumsum(flat_keep)])  # kept objects before each object of the block
    first = np.cumsum(n_objects) - n_objects
    local = ak.to_numpy(ak.flatten(index)).astype(np.int64)
    _check_range(local, np.repeat(n_objects, n_indices))
    position = np.repeat(first, n_indices) + local
    valid = local >= 0
    survives = np.zeros(len(local), dtype=np.bool_)
    survives[valid] = flat_keep[position[valid]]
    renumbered = np.full(len(local), NO_ELEMENT, dtype=np.int64)
    renumbered[survives] = (before[position] - np.repeat(before[first], n_indices))[survives]
    return ak.unflatten(renumbered, n_indices)


def _check_range(local: NDArray[np.int64], n_objects: NDArray[np.int64]) -> None:
    if np.any((local < NO_ELEMENT) | (local >= n_objects)):
        raise ValueError("an index points outside its event")


def _renumbered_links(links: ak.Array, member: str, keep: ak.Array) -> ak.Array:
    renumbered = ak.with_field(links, renumber(links[member], keep), member)
    return renumbered[renumbered[member] >= 0]


def _renumbered_particles(particles: ak.Array, keep_elements: ak.Array) -> ak.Array:
    element = renumber(particles.element, keep_elements)
    lost = (particles.element >= 0) & (element < 0)
    fate = ak.where(lost, int(Fate.DROPPED), particles.fate)
    return ak.with_field(ak.with_field(particles, element, "element"), fate, "fate")
