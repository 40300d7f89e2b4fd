"""Histograms without a range, which add up exactly and give the Kolmogorov-Smirnov distance.

Bins are those of the floating-point numbers themselves: sign, exponent and the first five bits of
the mantissa, so each octave has 32 bins, 2 to 3 % wide, and the order of the bins is that of the
numbers (the log-linear bins of Tene's HdrHistogram). Only bins with entries are kept. What lies
nearer to zero than 2^-40 is zero.

Invariants: adding histograms is the same as filling one with all values, in any order and to the
last count; the distance is never larger than that of the values themselves, since binning only
merges steps of the distribution functions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_DROPPED_BITS = 18  # of the 23 of a float32's mantissa
_ZERO = int(np.array(2.0**-40, np.float32).view(np.int32)) >> _DROPPED_BITS


def bins_of(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the bin of each finite value: integers in the order of the values, 0 for zero."""
    magnitude = (
        np.minimum(np.abs(values), np.finfo(np.float32).max)
        .astype(np.float32)
        .view(np.int32)
        .astype(np.int64)
    )
    place = np.maximum((magnitude >> _DROPPED_BITS) - _ZERO + 1, 0)
    signed: NDArray[np.int64] = np.where(np.asarray(values) < 0, -place, place)
    return signed


@dataclass(frozen=True)
class Histogram:
    """Counts per bin: bins ascending, counts > 0."""

    bins: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Self:
        """Fill a histogram; values that are not finite are left out."""
        bins, counts = np.unique(bins_of(values[np.isfinite(values)]), return_counts=True)
        return cls(bins, counts.astype(np.int64))

    @classmethod
    def total(cls, histograms: Iterable[Self]) -> Self:
        """Return the sum of histograms."""
        parts = list(histograms)
        bins, place = np.unique(
            np.concatenate([np.zeros(0, np.int64), *(part.bins for part in parts)]),
            return_inverse=True,
        )
        counts = np.zeros(len(bins), np.int64)
        np.add.at(
            counts, place, np.concatenate([np.zeros(0, np.int64), *(part.counts for part in parts)])
        )
        return cls(bins, counts)

    @property
    def n(self) -> int:
        """Number of entries."""
        return int(self.counts.sum())

    def without(self, part: Self) -> Self:
        """Return what is left after taking out a part that was added before."""
        counts = self.counts.copy()
        counts[np.searchsorted(self.bins, part.bins)] -= part.counts
        return type(self)(self.bins[counts > 0], counts[counts > 0])

    def plain(self) -> dict[str, list[int]]:
        """Return the histogram as plain values."""
        return {"bins": self.bins.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def read(cls, plain: dict[str, list[int]]) -> Self:
        """Return the histogram that ``plain`` gave."""
        return cls(np.array(plain["bins"], np.int64), np.array(plain["counts"], np.int64))


def ks_distance(one: Histogram, other: Histogram) -> float:
    """Return the largest difference of the two distribution functions.

    0 where one of them has no entries.
    """
    if not one.n or not other.n:
        return 0.0
    edges = np.union1d(one.bins, other.bins)
    return float(np.max(np.abs(_cumulative(one, edges) - _cumulative(other, edges))))


def _cumulative(histogram: Histogram, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    found: NDArray[np.float64] = (
        below[np.searchsorted(histogram.bins, edges, side="right")] / histogram.n
    )
    return found
