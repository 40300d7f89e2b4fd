"""Compiled loops over rows of relations, for what NumPy can only do by sorting or in many passes over memory.

Inputs -> outputs: arrays of row numbers -> arrays of row numbers. Each is one or two passes over its input; compiled code is kept on
disk. Row numbers are not checked: what calls these has seen to it that they lie within their tables (``reader``'s invariant).
"""

# mypy: disable-error-code="no-untyped-def"

import numba
import numpy as np


@numba.njit(cache=True)
def stable_order(keys, n_keys, before):
    """Return the order that sorts ``before``, row numbers of ``keys``, by key (0 ... ``n_keys`` - 1), equal keys staying in turn."""
    place = np.zeros(n_keys + 1, np.int64)
    for key in keys:
        place[key + 1] += 1
    for key in range(n_keys):
        place[key + 1] += place[key]
    order = np.empty(len(keys), np.int64)
    for row in before:
        order[place[keys[row]]] = row
        place[keys[row]] += 1
    return order


@numba.njit(cache=True)
def join(first_left, first_right, second_left, n_middle):
    """Return for all pairs that meet in one of ``n_middle`` rows: left of the first, number of the second; in the first's order."""
    start = np.zeros(n_middle + 1, np.int64)
    for row in second_left:
        start[row + 1] += 1
    for row in range(n_middle):
        start[row + 1] += start[row]
    order = stable_order(second_left, n_middle, np.arange(len(second_left)))
    n_pairs = 0
    for middle in first_right:
        n_pairs += start[middle + 1] - start[middle]
    left, second = np.empty(n_pairs, np.int64), np.empty(n_pairs, np.int64)
    n_pairs = 0
    for i in range(len(first_left)):
        for place in range(start[first_right[i]], start[first_right[i] + 1]):
            left[n_pairs], second[n_pairs] = first_left[i], order[place]
            n_pairs += 1
    return left, second


@numba.njit(cache=True)
def group(left, right, weight, n_left, n_right):
    """Return each (left, right) that occurs once, sorted, with the sum of its weights in the order of the input."""
    order = stable_order(left, n_left, stable_order(right, n_right, np.arange(len(right))))
    lefts, rights, sums = np.empty(len(left), np.int64), np.empty(len(left), np.int64), np.empty(len(left), np.float64)
    n_groups = 0
    for i in order:
        if n_groups == 0 or lefts[n_groups - 1] != left[i] or rights[n_groups - 1] != right[i]:
            lefts[n_groups], rights[n_groups], sums[n_groups] = left[i], right[i], 0.0
            n_groups += 1
        sums[n_groups - 1] += weight[i]
    return lefts[:n_groups], rights[:n_groups], sums[:n_groups]


@numba.njit(cache=True)
def expand(begin, end, owner_offsets, member_offsets):
    """Return (owner, member) for every ``begin`` ... ``end`` of an owner, which count within the event's members."""
    n_pairs = 0
    for row in range(len(begin)):
        n_pairs += end[row] - begin[row]
    owner, member = np.empty(n_pairs, np.int64), np.empty(n_pairs, np.int64)
    n_pairs = 0
    for event in range(len(owner_offsets) - 1):
        for row in range(owner_offsets[event], owner_offsets[event + 1]):
            for place in range(begin[row], end[row]):
                owner[n_pairs], member[n_pairs] = row, member_offsets[event] + place
                n_pairs += 1
    return owner, member


@numba.njit(cache=True)
def resolve(index, ids, offsets, known_ids, firsts, member_offsets, order):
    """Return the row that each (index, ID) of the events ``offsets`` means, -1 where it means none.

    Collection ``k`` has the ID ``known_ids[k]``, its rows of event ``e`` begin at ``firsts[k] + member_offsets[k, e]``, counted one
    collection after the other; ``order`` tells where these rows are (empty: there).
    """
    rows = np.full(len(index), -1, np.int64)
    for event in range(len(offsets) - 1):
        for i in range(offsets[event], offsets[event + 1]):
            for k in range(len(known_ids)):
                n_rows = member_offsets[k, event + 1] - member_offsets[k, event]
                if np.int64(ids[i]) & 0xFFFFFFFF == known_ids[k] and 0 <= index[i] < n_rows:
                    row = firsts[k] + member_offsets[k, event] + index[i]
                    rows[i] = order[row] if len(order) else row
    return rows


@numba.njit(cache=True)
def interleave(member_offsets):
    """Return where the rows of ``member_offsets[k]``, one collection after the other, are once all are laid event by event."""
    n_members, n_edges = member_offsets.shape
    order = np.empty(member_offsets[:, -1].sum(), np.int64)
    row = 0
    for event in range(n_edges - 1):
        first = 0
        for k in range(n_members):
            for place in range(member_offsets[k, event], member_offsets[k, event + 1]):
                order[first + place] = row
                row += 1
            first += member_offsets[k, -1]
    return order
