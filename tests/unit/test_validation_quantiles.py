import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.validation.histograms import fine_edges
from particleforge.validation.quantiles import (
    proportion,
    quantiles,
    summary,
    wilson,
    without_negative,
)


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges)[0]


def _unweighted(counts: np.ndarray) -> np.ndarray:
    """Return sums of weights and of their squares of entries that weigh 1."""
    return np.stack([counts, counts], axis=-1).astype(float)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.7, 1.3), st.floats(0.01, 0.4))
def test_quantiles_from_fine_bins_agree_with_sorted_values(
    seed: int, centre: float, width: float
) -> None:
    values = np.random.default_rng(seed).normal(centre, width, 400)
    edges = fine_edges(1, 1e-3, 9)
    levels = (0.25, 0.5, 0.75)
    exact = np.quantile(values, levels, method="inverted_cdf")
    found = quantiles(_histogram(values, edges), edges, levels)
    widths = np.diff(edges)[np.searchsorted(edges, exact) - 1]
    np.testing.assert_array_less(np.abs(found - exact), widths * 1.001)


def test_bootstrap_error_is_that_of_the_median() -> None:
    values = np.random.default_rng(1).normal(1, 0.1, 5000)
    edges = fine_edges(1, 1e-3, 9)
    made = summary(
        _unweighted(_histogram(values, edges)),
        edges,
        relative=True,
        n_bootstrap=400,
        generator=np.random.default_rng(2),
    )
    # asymptotic error of a median
    assert made["median"]["error"] == pytest.approx(1.2533 * 0.1 / np.sqrt(5000), rel=0.2)
    assert made["resolution"]["value"] == pytest.approx(0.1349, rel=0.05)
    assert made["n"] == 5000


def test_too_few_entries_give_null() -> None:
    edges = fine_edges(1, 1e-3, 9)
    made = summary(
        _unweighted(_histogram(np.ones(9), edges)),
        edges,
        relative=True,
        n_bootstrap=10,
        generator=np.random.default_rng(2),
    )
    assert made == {"n": 9, "median": None, "iqr": None, "resolution": None}


def test_wilson_interval() -> None:
    value, low, high = wilson([0, 5, 10], [10, 10, 10])
    np.testing.assert_allclose(value, [0, 0.5, 1])
    # solutions of |p - k/n| = sqrt(p (1 - p) / n)
    np.testing.assert_allclose(low, [0, 0.5 - 0.15076, 1 - 1 / 11], atol=1e-5)
    np.testing.assert_allclose(high, [1 / 11, 0.5 + 0.15076, 1], atol=1e-5)
    nothing = dict.fromkeys(("value", "low", "high"))
    assert proportion(*np.zeros((2, 2))) == {**nothing, "passed": 0, "total": 0, "effective": 0}
    found = proportion(*_unweighted(np.array([5, 10])))
    assert [found[name] for name in ("value", "low", "high")] == [
        one[1] for one in (value, low, high)
    ]
    assert (found["passed"], found["total"], found["effective"]) == (5, 10, 10)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=30).filter(lambda counts: sum(counts) >= 10),
    st.just(0.25) | st.floats(1e-3, 1e3),
)
def test_a_common_weight_changes_no_figure(counts: list[int], weight: float) -> None:
    edges = np.linspace(0, 2, len(counts) + 1)
    known = _unweighted(np.array(counts))
    weighted = known * (weight, weight**2)
    made = [
        summary(sums, edges, relative=True, n_bootstrap=20, generator=np.random.default_rng(3))
        for sums in (known, weighted)
    ]
    assert made[1]["n"] == pytest.approx(weight * made[0]["n"])
    for name in ("median", "iqr", "resolution"):
        assert made[1][name]["value"] == pytest.approx(made[0][name]["value"], abs=1e-9)
        if weight == 0.25:  # no rounding, so the same random numbers
            assert made[1][name] == made[0][name]
    parts = known[0], known.sum(axis=0)
    share, same = proportion(*parts), proportion(*(part * (weight, weight**2) for part in parts))
    for name in ("value", "low", "high", "effective"):
        assert same[name] == pytest.approx(share[name], abs=1e-9)


def test_unequal_weights_count_as_fewer_entries() -> None:
    """Half of the entries with weight 3, half with 1, know as much as 0.8 of them."""
    edges = fine_edges(1, 1e-3, 9)
    values = _unweighted(_histogram(np.random.default_rng(5).normal(1, 0.1, 4000), edges))
    made = []
    for weights in ((1, 1), (2, 5)):  # means of w and of its square
        generator = np.random.default_rng(2)
        made.append(
            summary(values * weights, edges, relative=True, n_bootstrap=400, generator=generator)
        )
    assert made[1]["median"]["value"] == made[0]["median"]["value"]
    ratio = made[1]["median"]["error"] / made[0]["median"]["error"]
    assert ratio == pytest.approx(0.8**-0.5, rel=0.15)


def test_negative_weights_keep_the_total_and_give_no_nan() -> None:
    sums = np.array([1.0, -2, 3, 5, -1, 4, 1, -2])
    found = without_negative(sums)
    assert found.tolist() == [1, 0, 1, 5, 0, 2, 0, 0]
    assert found.sum() == sums.sum()
    edges = np.linspace(0, 2, len(sums) + 1)
    counts = np.stack([4 * sums, np.abs(4 * sums)], axis=-1)
    made = summary(counts, edges, relative=True, n_bootstrap=50, generator=np.random.default_rng(1))
    assert made["n"] == 36
    assert made["median"]["value"] == pytest.approx(0.875)
    assert made["median"]["error"] > 0
    # more passed than there are in all
    more = proportion(np.array([12.0, 14]), np.array([10.0, 16]))
    assert (more["value"], more["high"]) == (1.2, 1.2)
    assert 0 < more["low"] < 1
    assert proportion(np.array([1.0, 1]), np.array([-1.0, 9]))["value"] is None
