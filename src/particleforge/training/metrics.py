"""The metrics of a training: rows on disk while it runs, trackers, a Parquet table at the end.

Inputs -> outputs: named values per (step, epoch, split) -> ``metrics.jsonl`` in the work folder,
trackers to watch the training in (TensorBoard's event files, ``mlflow_run``), and a Parquet table
with one row per value: ``step``, ``epoch``, ``split`` (train or valid), ``name``, ``value``.

Invariant: after a restart from step s they hold what was told up to s and nothing later;
TensorBoard's folder holds one run.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from particleforge.artefacts import write_text
from particleforge.training.mlflow_run import MlflowRun
from particleforge.training.spec import Status, TrainingSpec

log = logging.getLogger(__name__)
ROWS_FILE = "metrics.jsonl"
METRICS_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


class MetricsRow(BaseModel):
    """A line of the file: the values of one step of one split."""

    step: int
    epoch: int  # -1 where it is lost
    split: str
    values: dict[str, float]


class Tracker(Protocol):
    """Where a training can be watched; it is told all rows again after a restart."""

    def add(self, row: dict[str, Any]) -> None:
        """Show the values of a row."""

    def close(self, status: Status) -> None:
        """Show how the training ended."""


class EventFiles:
    """TensorBoard's event files, in place of those that the folder holds."""

    def __init__(self, folder: Path) -> None:
        # takes 1.5 s to import, which trials of a search do without
        from torch.utils.tensorboard import SummaryWriter

        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self._writer = SummaryWriter(str(folder))

    def add(self, row: dict[str, Any]) -> None:
        """Write the values of a row as scalars."""
        for name, value in row["values"].items():
            self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def close(self, status: Status) -> None:  # noqa: ARG002
        """Flush and close the files, which hold no status."""
        self._writer.close()


def trackers_of(spec: TrainingSpec) -> list[Tracker]:
    """Return where a training is to be watched; trials and scans are not."""
    if spec.tensorboard is None:
        return []
    chosen = spec.settings.training.tracker
    return [EventFiles(spec.tensorboard), *([MlflowRun(spec)] if chosen == "mlflow" else [])]


class MetricsLog:
    """Appends rows; ``step`` is where the training (re)starts.

    ``valid_curve`` holds [step, loss] of all validations up to there, as the checkpoint knows them.
    """

    def __init__(
        self,
        work_dir: Path,
        step: int,
        trackers: Sequence[Tracker] | None,
        valid_curve: Sequence[Sequence[float]] = (),
    ) -> None:
        path = work_dir / ROWS_FILE
        kept = [row for row in read_rows(path) if row["step"] <= step]
        kept = _with_lost(kept, valid_curve, path)
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")
        self._trackers = trackers or ()
        for row in kept:
            self._track(row)

    def add(self, step: int, epoch: int, split: str, values: dict[str, float]) -> None:
        """Note values of one step of one split."""
        row = {"step": step, "epoch": epoch, "split": split, "values": values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._track(row)

    def close(self, status: Status = "complete") -> None:
        """Flush and close the files, and tell the trackers how the training ended."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close(status)

    def _track(self, row: dict[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.add(row)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete rows of a training's metrics, less a last line that a kill cut off.

    Damaged lines are left out, with a line in the log.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(MetricsRow.model_validate_json(line).model_dump())
        except ValidationError:
            log.warning("%s: line %d is damaged and left out", path, number)
    return rows


def _with_lost(
    rows: list[dict[str, Any]], valid_curve: Sequence[Sequence[float]], path: Path
) -> list[dict[str, Any]]:
    """Return the rows with those validations that they lack and the checkpoint knows."""
    there = {row["step"] for row in rows if row["split"] == "valid"}
    lost = [(int(step), loss) for step, loss in valid_curve if int(step) not in there]
    if not lost:
        return rows
    log.warning(
        "%s: rows are lost: %d validation losses up to step %d are put back from the checkpoint,"
        " what else they told is gone",
        path,
        len(lost),
        lost[-1][0],
    )
    back = [{"step": s, "epoch": -1, "split": "valid", "values": {"loss": x}} for s, x in lost]
    return sorted([*rows, *back], key=lambda row: row["step"])


def metrics_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return the rows as the table of the module's docstring."""
    flat = [
        {
            "step": row["step"],
            "epoch": row["epoch"],
            "split": row["split"],
            "name": name,
            "value": value,
        }
        for row in rows
        for name, value in row["values"].items()
    ]
    return pa.Table.from_pylist(flat, schema=METRICS_SCHEMA)


def replay(rows: list[dict[str, Any]], tensorboard: Path) -> None:
    """Write recorded rows as TensorBoard scalars, in place of event files that the folder holds."""
    files = EventFiles(tensorboard)
    for row in rows:
        files.add(row)
    files.close("complete")
