"""The histograms of the checks and the Kolmogorov-Smirnov distance, against numpy and scipy.

How often drift is claimed wrongly.
"""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from particleforge.checks.drift import compare_with_rest, critical_distance
from particleforge.checks.histogram import Histogram, bins_of, ks_distance
from particleforge.checks.verdict import Verdict

NUMBERS = st.floats(-1e30, 1e30) | st.floats(-3, 3) | st.sampled_from([0.0, 1.0, -1.0])
VALUES = st.lists(NUMBERS, max_size=20).map(lambda numbers: np.array(numbers, np.float64))
SOME = st.lists(NUMBERS, min_size=1, max_size=20).map(lambda numbers: np.array(numbers, np.float64))


def same(one: Histogram, other: Histogram) -> bool:
    return one.plain() == other.plain()


@given(VALUES, VALUES, VALUES)
def test_adding_is_filling_at_once(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    together = Histogram.of(np.concatenate([a, b, c]))
    parts = [Histogram.of(values) for values in (a, b, c)]
    assert same(Histogram.total(parts), together)
    assert same(Histogram.total([Histogram.total(parts[:2]), parts[2]]), together)
    assert same(Histogram.total(reversed(parts)), together)
    assert same(together.without(parts[1]), Histogram.of(np.concatenate([a, c])))
    assert same(Histogram.read(together.plain()), together)
    assert together.n == len(a) + len(b) + len(c)


@given(SOME)
def test_bins_keep_the_order_of_the_values(values: np.ndarray) -> None:
    ordered = np.sort(values)
    assert np.all(np.diff(bins_of(ordered)) >= 0)


@given(st.floats(1e-11, 1e37), st.sampled_from([-1, 1]))
def test_a_bin_is_three_percent_wide(value: float, sign: int) -> None:
    one, other = bins_of(sign * np.array([value, value * 1.033]))
    assert one != other
    assert np.sign(one) == sign


def test_edges_of_the_range() -> None:
    found = Histogram.of(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-13, 1e300, -1e300]))
    assert found.n == 5
    assert found.counts[found.bins == 0].tolist() == [3]
    integers = Histogram.of(np.array([0, 1, 1, 200], np.int32))
    assert integers.counts.tolist() == [1, 2, 1]


@settings(deadline=None)
@given(SOME, SOME)
@example(np.array([1.0, 2.0]), np.array([1.0, 2.0, 2.0]))
def test_the_distance_is_never_larger_than_that_of_the_values(a: np.ndarray, b: np.ndarray) -> None:
    distance = ks_distance(Histogram.of(a), Histogram.of(b))
    with np.errstate(divide="ignore"):  # its p-value, which is not asked for
        of_values, of_bins = (
            ks_2samp(*pair, method="asymp").statistic for pair in ((a, b), (bins_of(a), bins_of(b)))
        )
    assert distance <= of_values + 1e-12
    assert distance == pytest.approx(of_bins)  # and exactly that of the bins
    assert distance == ks_distance(Histogram.of(b), Histogram.of(a))
    assert ks_distance(Histogram.of(a), Histogram.of(a)) == 0


def test_nothing_is_said_without_entries() -> None:
    assert ks_distance(Histogram.of(np.zeros(0)), Histogram.of(np.ones(3))) == 0


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 200), st.floats(0, 1), st.sampled_from([1e-2, 1e-3, 1e-5])
)
def test_what_counts_as_significant_is_improbable(
    n: int, m: int, share: float, probability: float
) -> None:
    """Exact p-value of the smallest distance that is claimed: of two samples, the lowest of one
    below all of the other.
    """
    critical = critical_distance(n, m, probability)
    below = min(n, int(np.ceil(critical * n * (1 + share))))
    a = np.r_[np.full(below, -1.0), np.linspace(0, 1, n - below)]
    found = ks_2samp(a, np.linspace(0.001, 1.001, m), method="exact")
    if found.statistic > critical:
        assert found.pvalue <= probability


def parts_of(
    rng: np.random.Generator, sizes: list[int], shift: float = 0.0
) -> dict[str, dict[str, Histogram]]:
    """Shards of one distribution, of which the last is shifted."""
    values = {name: [rng.normal(10, 3, n) for n in sizes] for name in ("a", "b", "c")} | {
        "n": [rng.poisson(4, n) for n in sizes]
    }
    values["a"][-1] = values["a"][-1] + shift
    return {
        f"{i}": {name: Histogram.of(of[i]) for name, of in values.items()}
        for i in range(len(sizes))
    }


@pytest.mark.parametrize("sizes", [[1, 1], [1, 500], [2, 3, 5], [30] * 10, [7, 200, 40], [300] * 4])
def test_false_alarms_are_as_rare_as_asked(sizes: list[int]) -> None:
    rng, asked, tries = np.random.default_rng(1), 0.05, 400
    alarms = sum(
        any(
            drift.distance > drift.allowed
            for drift in compare_with_rest(parts_of(rng, sizes), asked, 0.0)
        )
        for _ in range(tries)
    )
    assert alarms <= asked * tries + 3 * np.sqrt(asked * tries)


@pytest.mark.parametrize(("n", "shift"), [(60, 6.0), (300, 2.5), (3000, 1.0)])
def test_drift_is_found(n: int, shift: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        found = compare_with_rest(parts_of(rng, [n] * 5, shift), 1e-3, 0.05)
        worst = max(found, key=lambda drift: drift.distance - drift.allowed)
        assert worst.distance > worst.allowed
        assert (worst.part, worst.quantity) == ("4", "a")


def test_a_small_difference_of_large_samples_is_harmless() -> None:
    parts = parts_of(np.random.default_rng(3), [200_000] * 2, 0.2)
    assert any(drift.distance > drift.allowed for drift in compare_with_rest(parts, 1e-3, 0.0))
    assert not any(drift.distance > drift.allowed for drift in compare_with_rest(parts, 1e-3, 0.05))


def test_parts_that_lack_a_quantity_are_not_compared_in_it() -> None:
    one, other = Histogram.of(np.ones(5)), Histogram.of(np.full(7, 2.0))
    found = compare_with_rest({"x": {"a": one}, "y": {"a": other, "b": other}, "z": {}}, 1e-3, 0.05)
    assert [(drift.part, drift.quantity, drift.distance) for drift in found] == [
        ("x", "a", 1.0),
        ("y", "a", 1.0),
    ]
    assert all(drift.allowed <= 1 for drift in found)


def test_a_verdict_keeps_the_value_nearest_to_its_limit() -> None:
    verdict = Verdict()
    assert verdict.at_most("share", "s0", "a", 0.2, 0.5, "")
    assert verdict.at_most("share", "s1", "b", 0.4, 0.5, "")
    assert verdict.within("range", "s0", "a", -1, 20, -10, 100, "")
    assert verdict.within("range", "s1", "a", -9, 10, -10, 100, "")
    assert verdict.within("range", "s1", "c", 0, 10, 0, np.inf, "")
    assert verdict.passed
    assert (
        verdict.checks["share"].compared,
        verdict.checks["share"].value,
        verdict.checks["share"].column,
    ) == (2, 0.4, "b")
    assert (
        verdict.checks["range"].value,
        verdict.checks["range"].shard,
        verdict.checks["range"].allowed,
    ) == (-9, "s1", "-10 to 100")
    assert not verdict.at_most("share", "s2", "c", float("nan"), 0.5, "do this")
    assert not verdict.within("range", "s2", "c", -11, 500, -10, 100, "do that")
    assert not verdict.passed
    assert [failure.line() for failure in verdict.failures] == [
        "s2: c: share nan, allowed at most 0.5; do this",
        "s2: c: range -11, allowed -10 to 100; do that",
    ]
    assert (verdict.checks["range"].value, verdict.checks["range"].failed) == (-11, 1)
