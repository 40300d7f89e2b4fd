"""Medians, IQRs and proportions with their statistical errors, from histograms.

Quantiles are linear interpolations of a fine histogram's cumulative counts. Their errors are
standard deviations over bootstrap resamplings (Efron & Tibshirani, "An Introduction to the
Bootstrap", ch. 6): the bins' counts are redrawn from the multinomial distribution of the same
total, which is resampling the entries with replacement.

*Resolution* is IQR / median = (q75 - q25) / q50 everywhere; for a Gaussian response it is 1.349
times sigma / mean.

Proportions carry the Wilson score interval of 68.3 % (Wilson, JASA 22 (1927) 209).
A figure without enough entries is null, never NaN, beside the count that says why.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
MIN_ENTRIES = 10  # quartiles of fewer entries say nothing


def quantiles(counts: npt.NDArray[Any], edges: Floats, levels: tuple[float, ...]) -> Floats:
    """Return the quantiles at ``levels`` of histograms ``counts[..., bins]``, shape [..., levels].

    Counts must not be all 0.
    """
    flat = counts.reshape(-1, counts.shape[-1])
    cumulative = np.cumsum(flat, axis=1)
    wanted = cumulative[:, -1:] * np.asarray(levels)
    # first bin whose cumulative count reaches the level; it is never empty because the level is
    # positive
    bins = (cumulative[:, None, :] < wanted[:, :, None]).sum(axis=2)
    rows = np.arange(len(flat))[:, None]
    below = cumulative[rows, bins] - flat[rows, bins]
    inside = (wanted - below) / flat[rows, bins]
    found: Floats = edges[bins] + inside * (edges[bins + 1] - edges[bins])
    return found.reshape(*counts.shape[:-1], len(levels))


def summary(
    counts: Counts,
    edges: Floats,
    *,
    relative: bool,
    n_bootstrap: int,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Return ``{"n", "median", "iqr"}`` and, if ``relative``, ``"resolution"``.

    Each ``{"value", "error"}`` or null.
    """
    n = int(counts.sum())
    names = ("median", "iqr", "resolution") if relative else ("median", "iqr")
    if n < MIN_ENTRIES:
        return {"n": n, **dict.fromkeys(names)}
    filled = np.flatnonzero(counts)
    first, last = filled[0], filled[-1] + 1
    counts, edges = counts[first:last], edges[first : last + 1]
    drawn = generator.multinomial(n, counts / n, size=n_bootstrap)
    q25, q50, q75 = quantiles(np.concatenate([counts[None], drawn]), edges, (0.25, 0.5, 0.75)).T
    figures = {"median": q50, "iqr": q75 - q25}
    if relative:
        figures["resolution"] = (q75 - q25) / q50
    return {
        "n": n,
        **{
            k: {"value": float(v[0]), "error": float(np.std(v[1:], ddof=1))}
            for k, v in figures.items()
        },
    }


def wilson(passed: npt.ArrayLike, total: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return proportion, lower and upper bound (68.3 %) of ``passed`` out of ``total``.

    NaN where total is 0.
    """
    k, n = np.asarray(passed, np.float64), np.asarray(total, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        centre = (p + 0.5 / n) / (1 + 1 / n)
        half = np.sqrt(p * (1 - p) / n + 0.25 / n**2) / (1 + 1 / n)
    return (
        p,
        np.minimum(p, np.maximum(centre - half, 0)),
        np.maximum(p, np.minimum(centre + half, 1)),
    )


def proportion(passed: float, total: float) -> dict[str, Any]:
    """Return ``{"value", "low", "high", "passed", "total"}``.

    The first three are null when total is 0.
    """
    counted = {"passed": int(passed), "total": int(total)}
    if not total:
        return {"value": None, "low": None, "high": None, **counted}
    value, low, high = wilson(passed, total)
    return {"value": float(value), "low": float(low), "high": float(high), **counted}
