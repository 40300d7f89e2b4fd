"""Mean and standard deviation of the transformed features of the training elements.

Blocks of raw features [n, n_features] with element types -> ``{"track": {"mean": [...], "std":
[...]}, "cluster": ...}`` in the space after each feature's transform, in float64. Blocks are
combined with the pairwise update of Chan, Golub and LeVeque (COMPSTAT 1982), which keeps the sum of
squared deviations accurate where mean >> std, and needs one block in memory.

The transforms here are the reference; ``model`` has the same functions for tensors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from particleforge.config.detector import ElementsConfig

LOG_FLOOR = 1e-6
# a feature that varies less is constant, up to float32 rounding; its std becomes 1
STD_FLOOR = 1e-5


def transform(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a feature transform.

    ``log`` and ``log1p`` are continued constantly below their domain.
    """
    if name == "log":
        return np.log(np.maximum(values, LOG_FLOOR))
    if name == "log1p":
        return np.log1p(np.maximum(values, 0.0))
    if name == "asinh":
        return np.arcsinh(values)
    if name == "none":
        return values
    raise ValueError(f"unknown transform {name!r}")


class FeatureStatistics:
    """Running mean and spread of each element type's transformed features."""

    def __init__(self, elements: ElementsConfig) -> None:
        self._transforms = {
            name: [f.transform for f in getattr(elements, name)] for name in elements.types
        }
        self._running = {
            name: Running(len(transforms)) for name, transforms in self._transforms.items()
        }

    def add(self, element_type: NDArray[np.int8], features: NDArray[np.float32]) -> None:
        """Add a block of elements: types [n] and raw features [n, n_features]."""
        for number, name in enumerate(self._running, start=1):
            raw = features[element_type == number].astype(np.float64)
            self._running[name].add(_transformed(raw, self._transforms[name]))

    def result(self) -> dict[str, dict[str, list[float]]]:
        """Return mean and std per type; a type without elements has mean 0 and std 1."""
        return {name: running.result() for name, running in self._running.items()}


def _transformed(raw: NDArray[np.float64], transforms: Sequence[str]) -> NDArray[np.float64]:
    return np.stack([transform(name, raw[:, i]) for i, name in enumerate(transforms)], axis=1)


class Running:
    """Count, mean and sum of squared deviations per column."""

    def __init__(self, n_columns: int) -> None:
        self.n = 0
        self.mean = np.zeros(n_columns)
        self.squares = np.zeros(n_columns)

    def add(self, block: NDArray[np.float64]) -> None:
        """Add rows, shape [n, n_columns]."""
        if not len(block):
            return
        n, mean = len(block), block.mean(axis=0)
        shift, total = mean - self.mean, self.n + n
        self.squares += ((block - mean) ** 2).sum(axis=0) + shift**2 * self.n * n / total
        self.mean += shift * n / total
        self.n = total

    def result(self) -> dict[str, Any]:
        """Return mean and standard deviation of each column; a deviation near zero counts as 1."""
        std = np.sqrt(self.squares / self.n) if self.n else np.zeros_like(self.squares)
        return {"mean": self.mean.tolist(), "std": np.where(std < STD_FLOOR, 1.0, std).tolist()}
