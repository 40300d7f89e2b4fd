import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.validation.histograms import fine_edges
from particleforge.validation.quantiles import proportion, quantiles, summary, wilson


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges)[0]


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
        _histogram(values, edges),
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
        _histogram(np.ones(9), edges),
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
    assert proportion(0, 0) == {"value": None, "low": None, "high": None, "passed": 0, "total": 0}
