"""The metrics of a training: rows on disk while it runs, TensorBoard, a Parquet table at the end.

Inputs -> outputs: named values per (step, epoch, split) -> ``metrics.jsonl`` in the work folder,
event files, and a Parquet table with one row per value: ``step``, ``epoch``, ``split`` (train or
valid), ``name``, ``value``.

Invariant: after a restart from step s they hold what was told up to s and nothing later;
TensorBoard's folder holds one run.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from particleforge.artefacts import write_text

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


class MetricsLog:
    """Appends rows; ``step`` is where the training (re)starts."""

    def __init__(self, work_dir: Path, step: int, tensorboard: Path | None) -> None:
        path = work_dir / ROWS_FILE
        kept = [row for row in read_rows(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")
        self._writer = _event_writer(tensorboard) if tensorboard else None
        for row in kept:
            self._write_event(row)

    def add(self, step: int, epoch: int, split: str, values: dict[str, float]) -> None:
        """Note values of one step of one split."""
        row = {"step": step, "epoch": epoch, "split": split, "values": values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._write_event(row)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._writer:
            self._writer.close()

    def _write_event(self, row: dict[str, Any]) -> None:
        if self._writer:
            for name, value in row["values"].items():
                self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete rows of a training's metrics, less a last line that a kill cut off."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


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
    writer = _event_writer(tensorboard)
    for row in rows:
        for name, value in row["values"].items():
            writer.add_scalar(f"{row['split']}/{name}", value, row["step"])
    writer.close()


def _event_writer(folder: Path) -> Any:
    # takes 1.5 s to import, which trials of a search do without
    from torch.utils.tensorboard import SummaryWriter

    for stale in folder.glob("events.out.tfevents.*"):
        stale.unlink()
    return SummaryWriter(str(folder))
