"""What results cost, from the records of all that they were made from."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from particleforge.artefacts import write_text
from particleforge.provenance.record import Provenance, record_of
from particleforge.report.usage import Usage, gather_usage
from particleforge.training.metrics import metrics_table

BUSY = """
import subprocess, sys, time
from pathlib import Path
from particleforge.provenance.record import Provenance
burn = "import time; a = bytearray(200_000_000); t = time.process_time()\\n"
burn += "while time.process_time() < t + 1.0: pass"
subprocess.run([sys.executable, "-c", burn], check=True)
Path("made.txt").write_text("made")
Provenance.of("train_model", {}).record("made.txt")
"""


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    rows = [
        {"step": step, "epoch": 0, "split": "train", "values": values}
        for step, values in enumerate(
            ({"gpu_utilisation": 0.5, "gpu_memory_gb": 1.0}, {"gpu_utilisation": 0.9})
        )
    ]
    path = tmp_path / "metrics.parquet"
    pq.write_table(metrics_table(rows), path)
    return path


def write_made(path: Path, stage: str, inputs: list[Path], **told: Any) -> Path:
    """Write a file with its record, made by a process of its own as ``told``."""
    write_text(path, path.name)
    Provenance.of(stage, {}, inputs).record(path)
    content = json.loads(record_of(path).read_text())
    content["circumstances"] |= told
    for name in [name for name, value in told.items() if value is None]:
        del content["circumstances"][name]
    record_of(path).write_text(json.dumps(content))
    return path


def rows_of(usage: Usage) -> dict[str, tuple[str, ...]]:
    return {row[0]: tuple(row[1:]) for row in usage.rows.rows}


def test_every_process_behind_the_results_counts_once(tmp_path: Path, metrics: Path) -> None:
    simulated = [
        write_made(
            tmp_path / f"sim/{number}.root",
            "simulate_events",
            [],
            pid=number,
            wall_time_s=3600 * number,
            cpu_time_s=1800.0 * number,
            memory_peak_gb=float(number),
        )
        for number in (1, 2)
    ]
    one = {"pid": 9, "cpu_time_s": 720.0, "memory_peak_gb": 0.5}
    shards = [
        write_made(tmp_path / name, "write_shards", simulated, wall_time_s=seconds, **one)
        for name, seconds in (("shards.json", 360), ("normalisation.json", 300))
    ]
    simulated[0].unlink()  # as a file that the workflow deletes
    usage = gather_usage([*shards, tmp_path / "without-record"], metrics)
    nothing = ("-", "-")
    assert rows_of(usage) == {
        "simulate events": ("2", "3.000", "1.500", "0.50", "2.00", *nothing),
        "write shards": ("1", "0.100", "0.200", "2.00", "0.50", *nothing),
        "all": ("3", "3.100", "1.700", "0.55", "2.00", *nothing),
    }
    assert usage.text == (
        "The results took 1.70 core hours in 3 jobs of 3.10 hours together, and at most 2.00 GB"
        " of memory in one process."
    )


def test_records_that_do_not_tell_are_not_zero(tmp_path: Path, metrics: Path) -> None:
    old = write_made(tmp_path / "old", "train_model", [], wall_time_s=36, cpu_time_s=None)
    usage = gather_usage([old], metrics)
    assert rows_of(usage) == {"train model": ("1", "0.010", "-", "-", "-", "70%", "1.00")}
    assert usage.text == "The records of this run do not tell."
    assert gather_usage([], metrics).text == usage.text
    told = {"pid": 3, "wall_time_s": 3600, "cpu_time_s": 1800.0, "memory_peak_gb": 1.5}
    new = write_made(tmp_path / "new", "export_onnx", [old], **told)
    usage = gather_usage([new], metrics)
    assert usage.text.startswith(
        "The results took 0.50 core hours in 1 jobs of 2, as others do not"
    )
    assert rows_of(usage)["all"] == ("2", "1.010", "-", "-", "-", "-", "-")


@pytest.mark.parametrize("damage", ["", '{"circumstances": {}}', None])
def test_a_damaged_record_far_back_is_told_and_no_more(
    tmp_path: Path, metrics: Path, damage: str | None
) -> None:
    far = write_made(tmp_path / "far", "simulate_events", [])
    near = write_made(tmp_path / "near", "build_dataset", [far])
    told = json.loads(record_of(far).read_text())
    told["circumstances"]["wall_time_s"] = "x"
    record_of(far).write_text(json.dumps(told) if damage is None else damage)
    usage = gather_usage([near], metrics)
    assert usage.text.startswith(f"The records do not tell: {record_of(far)}: ")
    assert not usage.rows.rows


def test_children_that_have_ended_are_counted(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BUSY], cwd=tmp_path, check=True)
    told = json.loads(record_of(tmp_path / "made.txt").read_text())["circumstances"]
    assert 1.0 < told["cpu_time_s"] < 30
    assert 0.2 < told["memory_peak_gb"] < 2
