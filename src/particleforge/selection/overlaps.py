"""Remove objects that lie within a distance of a preferred object of their own kind.

An example is a track that was found twice.

Objects of a block of events, one number of preference for each, and those that are left so far ->
those that are left, and for each other the one that stands in for it. Within an event, objects are
visited from the most preferred one on; each stays unless it overlaps with one that stayed before
it: its stand-in, of several the most preferred. So of three in a row, of which only neighbours
overlap, the outer ones can both stay. Objects that were removed before do not count.
"""

import awkward as ak
import numpy as np
from numba import njit
from numpy.typing import NDArray

from particleforge.config.cuts import MOMENTUM, OverlapConfig


def without_overlaps(
    objects: ak.Array,
    overlap: OverlapConfig,
    preference: ak.Array,
    keep: ak.Array,
    stand_in: ak.Array,
) -> tuple[ak.Array, ak.Array]:
    """Return which of the kept objects are left, and stand-ins, each [n_events, n_objects].

    Without preference (NaN) comes last. ``stand_in`` is the index in the event of each object's
    stand-in so far, -1 for none.
    """
    counts = ak.to_numpy(ak.num(objects)).astype(np.int64)
    event = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((np.arange(len(event)), -_doubles(preference), event))
    same = np.zeros((len(event), len(overlap.same)))
    for column, member in enumerate(overlap.same):
        same[:, column] = _doubles(objects[member])
    left = _doubles(keep).astype(np.bool_)
    stands_in = _doubles(stand_in).astype(np.int64)
    _remove(
        np.concatenate([[0], np.cumsum(counts)]),
        order,
        left,
        stands_in,
        _doubles(objects.eta),
        _doubles(objects.phi),
        _doubles(objects[MOMENTUM[overlap.collection]]),
        same,
        overlap.delta_r_max,
        np.inf if overlap.relative_difference_max is None else overlap.relative_difference_max,
    )
    return ak.unflatten(left, counts), ak.unflatten(stands_in, counts)


def _doubles(values: ak.Array) -> NDArray[np.float64]:
    found: NDArray[np.float64] = ak.to_numpy(ak.flatten(values)).astype(np.float64)
    return found


@njit(cache=True)
def _remove(
    starts: NDArray[np.int64],  # [n_events + 1]
    order: NDArray[np.int64],  # [n_objects] by event, then preference
    keep: NDArray[np.bool_],  # [n_objects], changed in place
    stand_in: NDArray[np.int64],  # [n_objects], changed in place
    eta: NDArray[np.float64],  # [n_objects], as the two that follow
    phi: NDArray[np.float64],
    momentum: NDArray[np.float64],
    same: NDArray[np.float64],  # [n_objects, n_members]
    delta_r_max: float,
    relative_difference_max: float,
) -> None:
    for event in range(len(starts) - 1):
        for i in range(starts[event], starts[event + 1]):
            mine = order[i]
            for j in range(starts[event], i):
                other = order[j]
                if not keep[mine]:
                    break
                if not keep[other] or np.any(same[mine] != same[other]):
                    continue
                delta_phi = abs(phi[mine] - phi[other]) % (2 * np.pi)
                delta_phi = min(delta_phi, 2 * np.pi - delta_phi)
                if (eta[mine] - eta[other]) ** 2 + delta_phi**2 > delta_r_max**2:
                    continue
                difference = abs(momentum[mine] - momentum[other])
                if difference <= relative_difference_max * max(momentum[mine], momentum[other]):
                    keep[mine] = False
                    stand_in[mine] = other - starts[event]
                    for earlier in range(starts[event], starts[event + 1]):
                        if stand_in[earlier] == mine - starts[event]:
                            stand_in[earlier] = other - starts[event]
