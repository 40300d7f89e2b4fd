"""Which part of the data is unlike the rest: shards of one sample, or samples of one detector.

Histograms of quantities per part -> for each part and quantity the Kolmogorov-Smirnov distance from
all other parts together, and how large it may be.

Quantities have one value per event, as events are independent and the objects within one are not:
only so do the number of entries and the distance make a probability. A distance is too large if it
is both

* significant: less probable, if both came from one distribution, than ``false_alarm`` divided by
  the number of comparisons (Bonferroni), so the probability to refuse data without drift is at most
  ``false_alarm`` however many shards there are. The bound P(distance > d) <= e exp(-2 d^2 n m / (n
  + m)) is that of Wei and Dudley (Stat. Probab. Lett. 82 (2012) 636) for two samples of n and m
  entries; it holds for small samples too, in which nothing can be told: no distance exceeds 1;
* large: above a distance that does no harm. In a large sample, the smallest difference is
  significant.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from particleforge.checks.histogram import Histogram, ks_distance

Quantities = Mapping[str, Histogram]


@dataclass(frozen=True)
class Drift:
    """One comparison."""

    part: str
    quantity: str
    distance: float
    allowed: float


def compare_with_rest(
    parts: Mapping[str, Quantities], false_alarm: float, harmless: float
) -> list[Drift]:
    """Compare each part with the rest, quantity by quantity.

    Nothing where there is one part only.
    """
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
            allowed = min(1.0, max(harmless, critical_distance(own.n, rest.n, tail)))
            found.append(Drift(name, quantity, ks_distance(own, rest), allowed))
    return found


def critical_distance(n: int, m: int, probability: float) -> float:
    """Return a distance that samples of one distribution exceed with this probability at most.

    The samples have n and m entries.
    """
    return math.sqrt((1 - math.log(probability)) * (n + m) / (2 * n * m))
