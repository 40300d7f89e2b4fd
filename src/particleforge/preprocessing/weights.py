"""Event weights of the training shards: what is refused, and the mean that trainings divide by.

Inputs -> outputs: the weights of a selected file -> UserError if a training cannot take them;
weights of the shards -> their mean over the train split, for the manifest.

Why a mean: weights may be cross sections of 1e-10, or counts of 1e10, and a training sums in single
precision. Divided by the mean they are around 1. The loss does not depend on it, but for rounding.
It is taken here, in the order of the shards, so that it is one number for every rank, choice of
events and later training. The shards keep the weights as they are.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from particleforge.errors import UserError


def refuse_unusable(path: Path, n_unusable: int, n_events: int) -> None:
    """Raise a UserError if events of a selected file have weights that ``unusable`` counts."""
    if n_unusable:
        raise UserError(
            f"{path}: weight is negative or not finite in {n_unusable} of {n_events} events, which"
            " a training cannot take; select them away (cuts.events, expression 'weight >= 0'), or"
            " build the dataset of files with absolute values"
        )


def unusable(weights: NDArray[np.float64]) -> int:
    """Return how many weights are negative or not finite."""
    return int(np.sum(~((weights >= 0) & (weights < np.inf))))


class WeightStatistics:
    """What the weights of the shards are, added shard by shard."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self._events: dict[str, int] = {}
        self._lowest, self._highest = math.inf, -math.inf

    def add(self, split: str, weights: NDArray[np.float64]) -> None:
        """Add the weights of a shard, or of a part of one."""
        if not len(weights):
            return
        self._sums.setdefault(split, []).append(float(weights.sum()))
        self._events[split] = self._events.get(split, 0) + len(weights)
        self._lowest = min(self._lowest, float(weights.min()))
        self._highest = max(self._highest, float(weights.max()))

    def mean(self) -> float | None:
        """Return the mean over the train split, None where all events of all splits weigh the same.

        A split without any weight is a UserError.
        """
        if self._lowest >= self._highest:
            return None
        for split, sums in self._sums.items():
            if not any(sums):
                raise UserError(
                    f"split '{split}': weight is 0 in all of its {self._events[split]} events; give"
                    " it more events, or check the weights (collections.event_weight_entry)"
                )
        return math.fsum(self._sums["train"]) / self._events["train"]
