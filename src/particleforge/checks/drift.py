"""Which part of the data is unlike the rest: shards of one sample, or samples of one detector.

Histograms of quantities per part -> for each part and quantity the Kolmogorov-Smirnov distance from all other parts together, and
how large it may be.

Quantities have one value per event, as events are independent and the objects within one are not: only so do the number of entries
and the distance make a probability. A distance is too large if it is both

* significant: less probable, if both came from one distribution, than ``false_alarm`` divided by the number of comparisons
  (Bonferroni), so the probability to refuse data without drift is at most ``false_alarm`` however many shards there are. The critical
  distance is that of the exact one-sample distribution (Simard, L'Ecuyer, J. Stat. Softw. 39 (2011) 11) at n m / (n + m) entries,
  rounded down; in a small sample it is near 1, where nothing can be told;
* large: above a distance that does no harm. In a large sample, the smallest difference is significant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from scipy.stats import kstwo

from particleforge.checks.histogram import Histogram, ks_distance

Quantities = Mapping[str, Histogram]


@dataclass(frozen=True)
class Drift:
    """One comparison."""

    part: str
    quantity: str
    distance: float
    allowed: float


def compare_with_rest(parts: Mapping[str, Quantities], false_alarm: float, harmless: float) -> list[Drift]:
    """Compare each part with the rest, quantity by quantity; nothing where there is one part only."""
    quantities = list(dict.fromkeys(name for part in parts.values() for name in part))
    found = []
    tail = false_alarm / max(1, len(parts) * len(quantities))
    for quantity in quantities:
        total = Histogram.total(part[quantity] for part in parts.values() if quantity in part)
        for name, part in parts.items():
            own = part.get(quantity)
            if own is None or not own.n or own.n == total.n:
                continue
            rest = total.without(own)
            found.append(Drift(name, quantity, ks_distance(own, rest), max(harmless, critical_distance(own.n, rest.n, tail))))
    return found


def critical_distance(n: int, m: int, probability: float) -> float:
    """Return the distance of two samples of n and m entries from one distribution that is exceeded with this probability."""
    return _critical(max(1, n * m // (n + m)), probability)


@cache
def _critical(n: int, probability: float) -> float:
    return float(kstwo.isf(probability, n))
