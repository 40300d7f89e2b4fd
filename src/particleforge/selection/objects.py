"""Remove tracks, clusters and candidates from events and keep all indices consistent.

Events with the columns of ``schema.DATASET`` and one keep-mask per collection -> events without the
other objects. Elements are the tracks, then the clusters, of an event; targets go with their
element, links with their track or cluster; every ``element``, ``track`` and ``cluster`` index is
renumbered. An object that overlaps first hands its target over to the one that stays in its place,
if this has none. A particle whose element is gone becomes DROPPED with element -1, a kept candidate
its four-momentum with element -1, so that visible energy = target energy + dropped energy still
holds. All steps are NumPy operations over the flat content of a block of events.
"""

from typing import NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from particleforge.config.cuts import DetectorCutsConfig, OverlapConfig
from particleforge.selection.expressions import object_values, passing_objects
from particleforge.selection.overlaps import without_overlaps
from particleforge.tables import schema
from particleforge.tables.schema import Fate

NO_ELEMENT = -1


class Left(NamedTuple):
    """What the object cuts leave of one kind of object."""

    # what is left before any cut and after each cut or removal of overlaps, boolean
    # [n_events, n_objects]
    masks: list[ak.Array]
    # index of the object that stays in place of an overlapping one, else -1, [n_events, n_objects]
    stand_in: ak.Array


def cut_objects(events: ak.Array, cuts: DetectorCutsConfig) -> dict[str, Left]:
    """Return what is left of each kind of object, by the keys of ``cuts.of_objects``.

    Each expression sees all objects of the events, whatever the other cuts remove.
    """
    calorimeter_elements = f"{schema.calorimeter_type(ak.fields(events.clusters))}s"
    found = {}
    for kind, removals in cuts.of_objects(calorimeter_elements).items():
        objects = events["clusters" if kind == "hits" else kind]
        masks = [ak.ones_like(objects[ak.fields(objects)[0]], dtype=np.bool_)]
        stand_in = ak.full_like(masks[0], NO_ELEMENT, dtype=np.int64)
        for removal in removals:
            if isinstance(removal, OverlapConfig):
                preference = object_values(removal.prefer, kind, events)
                left, stand_in = without_overlaps(objects, removal, preference, masks[-1], stand_in)
            else:
                left = masks[-1] & passing_objects(removal.expression, kind, events)
            masks.append(left)
        found[kind] = Left(masks, stand_in)
    return found


def hand_over(events: ak.Array, tracks: ak.Array, clusters: ak.Array) -> ak.Array:
    """Return events in which targets of overlapping objects are handed to their stand-ins.

    A stand-in with a target of its own keeps that.

    ``tracks`` and ``clusters`` are the stand-ins' indices, -1 for none. Of several the first in the
    file hands over. Particles follow the target, candidates the stand-in in any case.
    """
    counts = ak.to_numpy(ak.num(events.targets))
    moved_clusters = ak.where(clusters >= 0, clusters + ak.num(events.tracks), NO_ELEMENT)
    stand_in = ak.to_numpy(ak.flatten(ak.concatenate([tracks, moved_clusters], axis=1))).astype(
        np.int64
    )
    if np.all(stand_in < 0):
        return events
    targets = ak.flatten(events.targets)
    owned = ak.to_numpy(targets.class_id) != schema.NONE_CLASS
    position = np.repeat(np.cumsum(counts) - counts, counts) + stand_in
    giving = np.flatnonzero((stand_in >= 0) & owned & ~owned[np.where(stand_in >= 0, position, 0)])
    taking, first = np.unique(position[giving], return_index=True)
    giving = giving[first]
    source = np.arange(len(owned))
    source[taking] = giving
    of_particles = np.full(len(owned), NO_ELEMENT)
    of_particles[giving] = stand_in[giving]
    handed = dict(zip(ak.fields(events), ak.unzip(events), strict=True))
    handed["targets"] = ak.unflatten(targets[source], counts)
    for name, moves in (("particles", of_particles), ("candidates", stand_in)):
        handed[name] = ak.with_field(
            events[name], _moved(events[name].element, moves, counts), "element"
        )
    return ak.zip(handed, depth_limit=1)


def _moved(index: ak.Array, moves: NDArray[np.int64], n_objects: NDArray[np.int64]) -> ak.Array:
    """Return indices within events, each replaced by ``moves`` of its object unless that is -1.

    ``moves`` has all objects.
    """
    position, local = _positions(index, n_objects)
    new = np.where(local >= 0, moves[np.where(local >= 0, position, 0)], NO_ELEMENT)
    return ak.unflatten(np.where(new >= 0, new, local), ak.num(index))


def remove_objects(
    events: ak.Array, keep_tracks: ak.Array, keep_clusters: ak.Array, keep_candidates: ak.Array
) -> ak.Array:
    """Return events with only the tracks, clusters and candidates that are kept.

    What is kept is boolean per event and object.
    """
    keep_elements = ak.concatenate([keep_tracks, keep_clusters], axis=1)
    kept = dict(zip(ak.fields(events), ak.unzip(events), strict=True))
    kept["tracks"] = events.tracks[keep_tracks]
    kept["clusters"] = events.clusters[keep_clusters]
    kept["targets"] = events.targets[keep_elements]
    kept["track_links"] = _renumbered_links(events.track_links, "track", keep_tracks)
    kept["cluster_links"] = _renumbered_links(events.cluster_links, "cluster", keep_clusters)
    candidates = events.candidates[keep_candidates]
    kept["candidates"] = ak.with_field(
        candidates, renumber(candidates.element, keep_elements), "element"
    )
    kept["particles"] = _renumbered_particles(events.particles, keep_elements)
    return ak.zip(kept, depth_limit=1)


def renumber(index: ak.Array, keep: ak.Array) -> ak.Array:
    """Return indices into the kept objects in place of indices into all.

    What is not kept, or was -1, is -1.
    """
    flat_keep = ak.to_numpy(ak.flatten(keep)).astype(np.bool_)
    n_objects, n_indices = ak.to_numpy(ak.num(keep)), ak.to_numpy(ak.num(index))
    # kept objects before each object of the block
    before = np.concatenate([[0], np.cumsum(flat_keep)])
    first = np.cumsum(n_objects) - n_objects
    position, local = _positions(index, n_objects)
    valid = local >= 0
    survives = np.zeros(len(local), dtype=np.bool_)
    survives[valid] = flat_keep[position[valid]]
    renumbered = np.full(len(local), NO_ELEMENT, dtype=np.int64)
    renumbered[survives] = (before[position] - np.repeat(before[first], n_indices))[survives]
    return ak.unflatten(renumbered, n_indices)


def _positions(
    index: ak.Array, n_objects: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return flat indices among all objects of the block, and the flattened indices.

    Where there is no index, the flat one has no meaning.
    """
    n_indices = ak.to_numpy(ak.num(index))
    local = ak.to_numpy(ak.flatten(index)).astype(np.int64)
    if np.any((local < NO_ELEMENT) | (local >= np.repeat(n_objects, n_indices))):
        raise ValueError("an index points outside its event")
    return np.repeat(np.cumsum(n_objects) - n_objects, n_indices) + local, local


def _renumbered_links(links: ak.Array, member: str, keep: ak.Array) -> ak.Array:
    renumbered = ak.with_field(links, renumber(links[member], keep), member)
    return renumbered[renumbered[member] >= 0]


def _renumbered_particles(particles: ak.Array, keep_elements: ak.Array) -> ak.Array:
    element = renumber(particles.element, keep_elements)
    lost = (particles.element >= 0) & (element < 0)
    fate = ak.where(lost, int(Fate.DROPPED), particles.fate)
    return ak.with_field(ak.with_field(particles, element, "element"), fate, "fate")
