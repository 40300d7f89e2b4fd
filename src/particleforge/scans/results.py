"""The results of a scan's trainings, and their means over repeats with errors.

All summaries use them.

Inputs -> outputs: the JSON file of each point -> ``PointResult``; ``mean_loss`` of some of them ->
value, error and counts.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from particleforge.stored import Stored, read_stored


class ScanFile(Stored):
    """What is read of the summary of a scan."""

    KIND = "scan"
    REMEDY = "delete it and gather the scan again"
    scan: str
    n_trainings: int
    n_diverged: int


class PointResult(Stored):
    """What came of one training; ``loss`` is its lowest validation loss, None if it diverged.

    ``curve`` holds [step, events, loss].
    """

    KIND = "scan_point"
    REMEDY = "delete it and run the scan again"
    MAY_LACK_KIND: ClassVar[bool] = True
    point: str
    labels: dict[str, Any]
    status: str
    loss: float | None
    last_loss: float | None
    train_loss: float | None
    steps: int
    events_seen: int
    train_events: int
    elements_per_batch: int
    learning_rate: float
    parameters: int
    curve: list[tuple[int, int, float]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``train.run_scan_training`` wrote."""
        return read_stored(path, cls)


def table_of(results: Sequence[PointResult]) -> pd.DataFrame:
    """Return one row per training: its labels, then its sizes and losses."""
    shown = [name for name in PointResult.model_fields if name not in ("labels", "curve", "point")]
    rows = [
        {"point": r.point, **r.labels, **{name: getattr(r, name) for name in shown}}
        for r in results
    ]
    labels = dict.fromkeys(label for r in results for label in r.labels)
    frame = pd.DataFrame(rows)
    whole = [
        label for label in labels if all(isinstance(r.labels.get(label, 0), int) for r in results)
    ]
    return frame.astype(dict.fromkeys(whole, "Int64"))[
        list(dict.fromkeys(["point", *labels, *shown]))
    ]


def mean_loss(results: Iterable[PointResult]) -> dict[str, Any]:
    """Return mean and standard error of the losses of a point's repeats.

    The error is None for a single one.

    If more than half of them diverged, there is no value: a mean of the rest would hide it.
    """
    found = list(results)
    losses = [r.loss for r in found if r.loss is not None]
    counts = {"n": len(losses), "n_diverged": len(found) - len(losses)}
    if len(losses) < len(found) / 2 or not losses:
        return {"value": None, "error": None, **counts}
    error = float(np.std(losses, ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else None
    return {"value": float(np.mean(losses)), "error": error, **counts}


def grouped(
    results: Iterable[PointResult], key: Callable[[PointResult], Any]
) -> dict[Any, list[PointResult]]:
    """Return the results by key, in order of their first appearance."""
    groups: dict[Any, list[PointResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups
