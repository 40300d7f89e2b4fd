"""Matching of two lists of objects per event: one-to-one, nearest pairs first, or the nearest.

Inputs -> outputs: (eta, phi), and with a scale pt, of a and b per event -> for each a the index of
its b within the event, or -1, and the reverse. ``nearest`` lets several have the same b.

Algorithm: all pairs with dR = sqrt(deta^2 + dphi^2) <= radius are taken in ascending distance
(ties: lower index of a, then of b) and accepted when both are still free. The distance is
sqrt(dR^2 + (scale * dlog pt)^2): without a scale dR; a small one tells objects apart that fly in
one direction, as the two electrons of a photon do. The result is the only one-to-one matching in
which no two objects prefer each other to what they got, it is symmetric in a and b, and it treats
every reconstruction alike: no use is made of class, charge or detector elements. Invariants: at
most one partner each; no free pair within the radius remains.
"""

from typing import Any

import awkward as ak
import numba
import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
_SMALLEST_GEV = 1e-9


def match(
    a: ak.Array, b: ak.Array, radius: float, log_pt_scale: float = 0.0
) -> tuple[ak.Array, ak.Array]:
    """Match records with members eta and phi (jagged, same number of events) within ``radius``.

    With a ``log_pt_scale`` they have a member pt in GeV too.

    Return for each a the local index of its partner in b or -1, and for each b the local index in
    a or -1.
    """
    counts_a, counts_b = ak.to_numpy(ak.num(a)), ak.to_numpy(ak.num(b))
    partner_a, partner_b = _match_all(
        _offsets(counts_a),
        _doubles(a.eta),
        _doubles(a.phi),
        _third(a, log_pt_scale),
        _offsets(counts_b),
        _doubles(b.eta),
        _doubles(b.phi),
        _third(b, log_pt_scale),
        radius,
    )
    return ak.unflatten(partner_a, counts_a), ak.unflatten(partner_b, counts_b)


def nearest(a: ak.Array, b: ak.Array, radius: float) -> ak.Array:
    """Return for each a the local index of the nearest b within ``radius``, or -1.

    Of equally near ones, the first.
    """
    counts_a, counts_b = ak.to_numpy(ak.num(a)), ak.to_numpy(ak.num(b))
    found = _nearest_of_all(
        _offsets(counts_a),
        _doubles(a.eta),
        _doubles(a.phi),
        _offsets(counts_b),
        _doubles(b.eta),
        _doubles(b.phi),
        radius,
    )
    return ak.unflatten(found, counts_a)


def starts(objects: ak.Array) -> Indices:
    """Return where each event's objects start in one array of all."""
    return _offsets(ak.to_numpy(ak.num(objects)))[:-1]


def _offsets(counts: Any) -> Indices:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _doubles(values: ak.Array) -> npt.NDArray[np.float64]:
    return np.ascontiguousarray(ak.to_numpy(ak.flatten(values)), dtype=np.float64)


def _third(objects: ak.Array, log_pt_scale: float) -> npt.NDArray[np.float64]:
    """Return what distances have beside angles."""
    if not log_pt_scale:
        return np.zeros(len(ak.flatten(objects.eta)))
    third: npt.NDArray[np.float64] = np.log(_doubles(objects.pt).clip(min=_SMALLEST_GEV))
    return log_pt_scale * third


def _match_kernel(
    offsets_a: Any,
    eta_a: Any,
    phi_a: Any,
    third_a: Any,
    offsets_b: Any,
    eta_b: Any,
    phi_b: Any,
    third_b: Any,
    radius: float,
) -> tuple[Indices, Indices]:  # compiled by numba
    partner_a = np.full(eta_a.size, -1, np.int64)
    partner_b = np.full(eta_b.size, -1, np.int64)
    for event in range(offsets_a.size - 1):
        first_a, last_a = offsets_a[event], offsets_a[event + 1]
        first_b, last_b = offsets_b[event], offsets_b[event + 1]
        order = np.argsort(eta_b[first_b:last_b], kind="mergesort") + first_b
        sorted_eta = eta_b[order]
        # two passes over the neighbours in eta: count, then fill
        n_pairs = 0
        for i in range(first_a, last_a):
            low = np.searchsorted(sorted_eta, eta_a[i] - radius)
            n_pairs += np.searchsorted(sorted_eta, eta_a[i] + radius, side="right") - low
        distance = np.empty(n_pairs, np.float64)
        index_a = np.empty(n_pairs, np.int64)
        index_b = np.empty(n_pairs, np.int64)
        n = 0
        for i in range(first_a, last_a):
            low = np.searchsorted(sorted_eta, eta_a[i] - radius)
            high = np.searchsorted(sorted_eta, eta_a[i] + radius, side="right")
            for j in np.sort(order[low:high]):  # ascending, for the rule on ties
                dphi = abs(phi_a[i] - phi_b[j]) % (2 * np.pi)
                dphi = min(dphi, 2 * np.pi - dphi)
                squared = (eta_a[i] - eta_b[j]) ** 2 + dphi**2
                if squared <= radius**2:
                    distance[n] = squared + (third_a[i] - third_b[j]) ** 2
                    index_a[n], index_b[n] = i, j
                    n += 1
        for pair in np.argsort(distance[:n], kind="mergesort"):
            i, j = index_a[pair], index_b[pair]
            if partner_a[i] < 0 and partner_b[j] < 0:
                partner_a[i] = j - first_b
                partner_b[j] = i - first_a
    return partner_a, partner_b


def _nearest_kernel(
    offsets_a: Any, eta_a: Any, phi_a: Any, offsets_b: Any, eta_b: Any, phi_b: Any, radius: float
) -> Indices:  # compiled by numba
    found = np.full(eta_a.size, -1, np.int64)
    for event in range(offsets_a.size - 1):
        first_b, last_b = offsets_b[event], offsets_b[event + 1]
        for i in range(offsets_a[event], offsets_a[event + 1]):
            least = radius**2
            for j in range(first_b, last_b):
                dphi = abs(phi_a[i] - phi_b[j]) % (2 * np.pi)
                dphi = min(dphi, 2 * np.pi - dphi)
                squared = (eta_a[i] - eta_b[j]) ** 2 + dphi**2
                if squared < least or (squared == least and found[i] < 0):
                    least = squared
                    found[i] = j - first_b
    return found


_nearest_of_all = numba.njit(cache=True)(_nearest_kernel)
_match_all = numba.njit(cache=True)(_match_kernel)
