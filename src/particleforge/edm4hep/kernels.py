"""Compiled loops over rows of relations, where NumPy would sort or pass over memory many times.

Inputs -> outputs: arrays of row numbers -> arrays of row numbers. Each is one or two passes over
its input; compiled code is kept on disk. Row numbers are not checked: what calls these has seen to
it that they lie within their tables (``reader``'s invariant).
"""

# mypy: disable-error-code="no-untyped-def"

import numba
import numpy as np


@numba.njit(cache=True)
def stable_order(keys, n_keys, before):
    """Return the order that sorts ``before`` by key, equal keys staying in turn.

    ``before`` holds row numbers of ``keys``, keys are 0 ... ``n_keys`` - 1.
    """
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
    """Return all pairs that meet in one of ``n_middle`` rows: left of the first, row of the second.

    They are in the first's order.
    """
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
    """Return each (left, right) once, sorted, with the sum of its weights.

    Weights are summed in the order of the input.
    """
    order = stable_order(left, n_left, stable_order(right, n_right, np.arange(len(right))))
    lefts = np.empty(len(left), np.int64)
    rights = np.empty(len(left), np.int64)
    sums = np.empty(len(left), np.float64)
    n_groups = 0
    for i in order:
        if n_groups == 0 or lefts[n_groups - 1] != left[i] or rights[n_groups - 1] != right[i]:
            lefts[n_groups], rights[n_groups], sums[n_groups] = left[i], right[i], 0.0
            n_groups += 1
        sums[n_groups - 1] += weight[i]
    return lefts[:n_groups], rights[:n_groups], sums[:n_groups]


@numba.njit(cache=True)
def join_and_group(
    first_left, first_right, second_left, second_right, second_weight, n_left, n_middle, n_right
):
    """Return ``group`` of what ``join`` gives, without laying out all pairs that meet.

    Weights are the second's.
    """
    first_order, _ = _by_key(first_left, n_left)
    second_order, start = _by_key(second_left, n_middle)
    n_pairs = 0
    for middle in first_right:
        n_pairs += start[middle + 1] - start[middle]
    lefts = np.empty(n_pairs, np.int64)
    rights = np.empty(n_pairs, np.int64)
    sums = np.empty(n_pairs, np.float64)
    seen = np.full(n_right, -1, np.int64)
    total = np.zeros(n_right)
    touched = np.empty(n_right, np.int64)
    n_groups, n_touched = 0, 0
    for i in range(len(first_order)):
        row = first_order[i]
        left, middle = first_left[row], first_right[row]
        for place in range(start[middle], start[middle + 1]):
            pair = second_order[place]
            right = second_right[pair]
            if seen[right] != left:
                seen[right], total[right] = left, 0.0
                touched[n_touched] = right
                n_touched += 1
            total[right] += second_weight[pair]
        if i + 1 == len(first_order) or first_left[first_order[i + 1]] != left:
            for right in np.sort(touched[:n_touched]):
                lefts[n_groups], rights[n_groups], sums[n_groups] = left, right, total[right]
                n_groups += 1
            n_touched = 0
    return lefts[:n_groups], rights[:n_groups], sums[:n_groups]


@numba.njit(cache=True)
def without_cycle(left, right, n_rows):
    """Tell whether no row leads back to itself.

    Rows that nothing leads to are taken away until none is left (Kahn, CACM 5:558).
    """
    order, start = _by_key(left, n_rows)
    n_before = np.zeros(n_rows, np.int64)
    for row in right:
        n_before[row] += 1
    free = np.empty(n_rows, np.int64)
    n_free, taken = 0, 0
    for row in range(n_rows):
        if n_before[row] == 0:
            free[n_free] = row
            n_free += 1
    while taken < n_free:
        row = free[taken]
        taken += 1
        for place in range(start[row], start[row + 1]):
            after = right[order[place]]
            n_before[after] -= 1
            if n_before[after] == 0:
                free[n_free] = after
                n_free += 1
    return taken == n_rows


@numba.njit(cache=True)
def _by_key(keys, n_keys):
    """Return the order that sorts rows by key, and where each key's rows begin in it.

    Equal keys stay in turn.
    """
    start, ordered = np.zeros(n_keys + 1, np.int64), True
    for row in range(len(keys)):
        start[keys[row] + 1] += 1
        ordered &= row == 0 or keys[row - 1] <= keys[row]
    for key in range(n_keys):
        start[key + 1] += start[key]
    rows = np.arange(len(keys))
    return (rows if ordered else stable_order(keys, n_keys, rows)), start


@numba.njit(cache=True)
def expand(begin, end, owner_offsets, member_offsets):
    """Return (owner, member) of each range ``begin`` to ``end``, which counts within the event."""
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
def resolve(index, ids, offsets, known_ids, starts, counts):
    """Return the row that each (index, ID) of the events ``offsets`` means, -1 where it means none.

    Collection ``k`` has the ID ``known_ids[k]``; its ``counts[k, e]`` rows of event ``e`` begin at
    row ``starts[k, e]``.
    """
    rows = np.full(len(index), -1, np.int64)
    for event in range(len(offsets) - 1):
        # outside, and without branches: the compiler makes vectors of it
        for k in range(len(known_ids)):
            known, start, count = known_ids[k], starts[k, event], counts[k, event]
            for i in range(offsets[event], offsets[event + 1]):
                meant = (
                    (np.int64(ids[i]) & 0xFFFFFFFF == known) & (index[i] >= 0) & (index[i] < count)
                )
                rows[i] = start + index[i] if meant else rows[i]
    return rows


@numba.njit(cache=True)
def lay(source, offsets, starts, target):
    """Copy each event's rows ``source[offsets[e]:offsets[e + 1]]`` to ``target[starts[e]:]``."""
    for event in range(len(starts)):
        first = starts[event] - offsets[event]
        for row in range(offsets[event], offsets[event + 1]):
            target[first + row] = source[row]


@numba.njit(cache=True)
def renumber(left, right, weight, new_left, new_right):
    """Return the pairs with their rows replaced, less those whose new row is -1.

    An empty map replaces nothing.
    """
    lefts = np.empty(len(left), np.int64)
    rights = np.empty(len(left), np.int64)
    weights = np.empty(len(left), np.float64)
    n_pairs = 0
    for i in range(len(left)):
        lefts[n_pairs] = new_left[left[i]] if len(new_left) else left[i]
        rights[n_pairs] = new_right[right[i]] if len(new_right) else right[i]
        weights[n_pairs] = weight[i]
        n_pairs += lefts[n_pairs] >= 0 and rights[n_pairs] >= 0
    return lefts[:n_pairs], rights[:n_pairs], weights[:n_pairs]
