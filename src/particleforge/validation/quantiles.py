"""Medians, IQRs and proportions with their statistical errors, from histograms.

Quantiles are linear interpolations of a fine histogram's cumulative counts. Their errors are
standard deviations over bootstrap resamplings (Efron & Tibshirani, "An Introduction to the
Bootstrap", ch. 6): the bins' counts are redrawn from the multinomial distribution of the same
total, which is resampling the entries with replacement.

*Resolution* is IQR / median = (q75 - q25) / q50 everywhere; for a Gaussian response it is 1.349
times sigma / mean.

Proportions carry the Wilson score interval of 68.3 % (Wilson, JASA 22 (1927) 209).
A figure without enough entries is null, never NaN, beside the count that says why.

Events have weights, so counts are pairs: the sum of the entries' weights and that of their squares
(``Sums``). Values come from the first. Errors take the effective number of entries, (sum w)^2 / sum
w^2, for the number of entries, as ROOT's TEfficiency does; without weights the two are equal.
Where negative weights make a cumulative sum fall, quantiles are where it first reaches the level.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from particleforge.validation.histograms import plain

Floats = npt.NDArray[np.float64]
Sums = npt.NDArray[np.float64]  # [..., 2], sums of weights and of their squares
MIN_ENTRIES = 10  # quartiles of fewer entries say nothing
_ROUNDING = 1e-9  # relative, of sums of weights


def effective_number(sums: Sums) -> float:
    """Return how many entries of equal weight are known as well as these, 0 for no entries."""
    total, squares = (float(one) for one in sums)
    if squares <= 0 or total <= 0:
        return 0.0
    n = total * (total / squares)
    return float(round(n)) if abs(n - round(n)) < n * _ROUNDING else n


def without_negative(sums: Floats) -> Floats:
    """Return ``sums[..., bins]`` without negative ones, of the same total, which is positive.

    Where the cumulative sum falls it stays level instead, and nowhere exceeds the total.
    """
    if (sums >= 0).all():
        return sums
    cumulative = np.maximum.accumulate(np.cumsum(sums, axis=-1), axis=-1)
    total = sums.sum(axis=-1, keepdims=True)
    found: Floats = np.diff(np.clip(cumulative, 0, total), axis=-1, prepend=0)
    return found


def quantiles(counts: npt.NDArray[Any], edges: Floats, levels: tuple[float, ...]) -> Floats:
    """Return the quantiles at ``levels`` of histograms ``counts[..., bins]``, shape [..., levels].

    Counts must not be all 0, and none negative.
    """
    flat = counts.reshape(-1, counts.shape[-1])
    cumulative = np.cumsum(flat, axis=1)
    wanted = cumulative[:, -1:] * np.asarray(levels)
    # first bin whose cumulative count reaches the level, but for rounding; it is never empty
    # because the level is positive
    bins = (cumulative[:, None, :] < (wanted * (1 - _ROUNDING))[:, :, None]).sum(axis=2)
    rows = np.arange(len(flat))[:, None]
    below = cumulative[rows, bins] - flat[rows, bins]
    inside = np.clip((wanted - below) / flat[rows, bins], 0, 1)
    found: Floats = edges[bins] + inside * (edges[bins + 1] - edges[bins])
    return found.reshape(*counts.shape[:-1], len(levels))


def summary(
    counts: Sums,
    edges: Floats,
    *,
    relative: bool,
    n_bootstrap: int,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Return ``{"n", "median", "iqr"}`` and, if ``relative``, ``"resolution"``.

    ``counts`` [bins, 2]. ``n`` is the sum of weights; the others ``{"value", "error"}`` or null.
    """
    total = counts.sum(axis=0)
    n, n_effective = plain(total[0]), effective_number(total)
    names = ("median", "iqr", "resolution") if relative else ("median", "iqr")
    if n_effective < MIN_ENTRIES:
        return {"n": n, **dict.fromkeys(names)}
    values = without_negative(counts[:, 0])
    filled = np.flatnonzero(values)
    first, last = filled[0], filled[-1] + 1
    values, edges = values[first:last], edges[first : last + 1]
    drawn = generator.multinomial(round(n_effective), values / values.sum(), size=n_bootstrap)
    q25, q50, q75 = quantiles(np.concatenate([values[None], drawn]), edges, (0.25, 0.5, 0.75)).T
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


def above_one(counts: Sums) -> dict[str, Any]:
    """Return the proportion of a response above 1, from ``counts`` [bins, 2] of a fine histogram.

    Its middle bin is centred on 1; entries in it count half, so that a perfect response has 0.5.
    """
    middle = len(counts) // 2
    return proportion(counts[middle + 1 :].sum(axis=0) + counts[middle] / 2, counts.sum(axis=0))


def wilson(passed: npt.ArrayLike, total: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return proportion, lower and upper bound (68.3 %) of ``passed`` out of ``total``.

    NaN where total is 0.
    """
    k, n = np.asarray(passed, np.float64), np.asarray(total, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        inside = np.clip(p, 0, 1)  # which negative weights may leave
        centre = (inside + 0.5 / n) / (1 + 1 / n)
        half = np.sqrt(inside * (1 - inside) / n + 0.25 / n**2) / (1 + 1 / n)
    return (
        p,
        np.minimum(p, np.maximum(centre - half, 0)),
        np.maximum(p, np.minimum(centre + half, 1)),
    )


def proportion(passed: Sums, total: Sums) -> dict[str, Any]:
    """Return ``{"value", "low", "high", "passed", "total", "effective"}`` of two pairs of sums.

    The last three are sums of weights, and the effective number of the total. The first three are
    null when that is 0.
    """
    n = effective_number(total)
    counted = {"passed": plain(passed[0]), "total": plain(total[0]), "effective": plain(n)}
    if not n:
        return {"value": None, "low": None, "high": None, **counted}
    value, low, high = wilson(passed[0] * (n / total[0]), n)
    return {"value": float(value), "low": float(low), "high": float(high), **counted}
