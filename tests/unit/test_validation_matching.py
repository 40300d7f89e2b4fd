import awkward as ak
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.validation.matching import match

_DIRECTION = st.tuples(st.floats(-3, 3), st.floats(-4, 4))
_EVENTS = st.lists(
    st.tuples(st.lists(_DIRECTION, max_size=8), st.lists(_DIRECTION, max_size=8)),
    min_size=1,
    max_size=5,
)


def _directions(events: list[list[tuple[float, float]]]) -> ak.Array:
    counts = [len(e) for e in events]
    flat = np.array([d for e in events for d in e], dtype=float).reshape(-1, 2)
    return ak.unflatten(ak.zip({"eta": flat[:, 0], "phi": flat[:, 1]}), counts)


def _slow(a: list[tuple[float, float]], b: list[tuple[float, float]], radius: float) -> list[int]:
    """Take the nearest free pair of all until none is left within the radius."""
    pairs = []
    for i, (eta_a, phi_a) in enumerate(a):
        for j, (eta_b, phi_b) in enumerate(b):
            dphi = abs(phi_a - phi_b) % (2 * np.pi)
            dphi = min(dphi, 2 * np.pi - dphi)
            squared = (eta_a - eta_b) ** 2 + dphi**2
            if abs(eta_a - eta_b) <= radius and squared <= radius**2:
                pairs.append((squared, i, j))
    found = [-1] * len(a)
    for _, i, j in sorted(pairs):
        if found[i] < 0 and j not in found:
            found[i] = j
    return found


@settings(deadline=None, max_examples=60)
@given(_EVENTS, st.floats(0.05, 2))
def test_matching_equals_slow_reference(events: list, radius: float) -> None:
    a, b = [e[0] for e in events], [e[1] for e in events]
    forward, backward = match(_directions(a), _directions(b), radius)
    assert forward.to_list() == [_slow(x, y, radius) for x, y in events]
    for to_b, to_a in zip(forward.to_list(), backward.to_list(), strict=True):
        assert all(to_a[j] == i for i, j in enumerate(to_b) if j >= 0)
        assert sum(j >= 0 for j in to_b) == sum(i >= 0 for i in to_a)


def test_matching_wraps_in_phi_and_prefers_the_nearest() -> None:
    a = _directions([[(0.0, np.pi - 0.01), (0.0, 1.0)]])
    b = _directions([[(0.0, -np.pi + 0.02), (0.0, 1.05), (0.0, 1.02)]])
    forward, backward = match(a, b, 0.1)
    assert forward.to_list() == [[0, 2]]
    assert backward.to_list() == [[0, -1, 1]]


def test_matching_without_events_or_objects() -> None:
    forward, backward = match(_directions([[(0, 0)]])[:0], _directions([[(0, 0)]])[:0], 0.1)
    assert len(forward) == len(backward) == 0
    forward, backward = match(_directions([[], [(0, 0)]]), _directions([[(0, 0)], []]), 0.1)
    assert forward.to_list() == [[], [-1]]
    assert backward.to_list() == [[-1], []]


def test_pt_tells_particles_of_one_direction_apart_and_widens_no_radius() -> None:
    a = ak.zip({"eta": [[0.0, 0.0]], "phi": [[1.0, 1.0]], "pt": [[20.0, 2.0]]})
    b = ak.zip({"eta": [[0.011, 0.01]], "phi": [[1.0, 1.0]], "pt": [[20.1, 1.9]]})
    assert match(a, b, 0.1)[0].to_list() == [[1, 0]]
    forward, backward = match(a, b, 0.1, log_pt_scale=0.01)
    assert forward.to_list() == backward.to_list() == [[0, 1]]
    far = ak.zip({"eta": [[0.0]], "phi": [[1.0]], "pt": [[0.0]]})
    assert match(far, b, 0.1, log_pt_scale=0.01)[0].to_list() == [[1]]
