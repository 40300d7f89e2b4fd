"""What provenance costs: checksums, records in time and bytes, and chains of many shards.

Checksums compare with reading the same files.

    python benchmarks/provenance.py [--events 100] [--shards 10000]

Takes minutes; the last line is one JSON object of figures. Times are CPU time, with files in the
page cache: what a file system adds is not in them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from particleforge.artefacts import sha256
from particleforge.config import settings as stage
from particleforge.config.load import load_detector, load_run
from particleforge.dataset.build import build_dataset
from particleforge.edm4hep.reader import read_chunks
from particleforge.provenance.lineage import read_lineage, verify_lineage
from particleforge.provenance.lineage_text import lineage_text
from particleforge.provenance.record import Provenance, record_of
from particleforge.simulation.simulate import simulate_events
from particleforge.tables.parquet import iter_events

ROOT = Path(__file__).parents[1]


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the CPU time of some work."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def compare_with_stages(folder: Path, events: int) -> dict[str, float]:
    """Return CPU times of simulating and building, of reading the results, and of checksums."""
    run = load_run(ROOT / "config", {"preset": "smoke", "simulation": {"events_per_shard": events}})
    detector = load_detector(ROOT / "config", "clic")
    simulate = stage.simulate_settings(run, detector, next(iter(detector.samples)))
    build = stage.DatasetSettings.of(run, detector, sample_name=simulate.sample_name)
    simulated, dataset = folder / "00000.root", folder / "00000.parquet"
    warm = folder / "warm.root"
    # numba compiles
    simulate_events(simulate.model_copy(update={"events_per_shard": 2}), "00001", warm)
    build_dataset(build, [warm], folder / "warm.parquet")
    chunk = build.dataset.chunk_events
    figures = {
        "simulate_seconds": cpu_seconds(lambda: simulate_events(simulate, "00000", simulated)),
        "build_seconds": cpu_seconds(lambda: build_dataset(build, [simulated], dataset)),
        "read_root_seconds": cpu_seconds(
            lambda: [None for _ in read_chunks(simulated, build.collections, chunk)]
        ),
        "read_parquet_seconds": cpu_seconds(lambda: [None for _ in iter_events(dataset)]),
    }
    for name, path in (("root", simulated), ("parquet", dataset)):
        figures[f"checksum_{name}_seconds"] = min(
            cpu_seconds(partial(sha256, path)) for _ in range(5)
        )
        figures[f"{name}_mb"] = path.stat().st_size / 1e6
        figures[f"{name}_record_kb"] = record_of(path).stat().st_size / 1e3
    made = Provenance.of("build_dataset", build.plain(), [simulated])
    figures["record_seconds"] = min(cpu_seconds(lambda: made.record(dataset)) for _ in range(5))
    figures["checksum_gb_per_s"] = figures["root_mb"] / 1e3 / figures["checksum_root_seconds"]
    return figures


def follow_chain(folder: Path, shards: int) -> dict[str, float]:
    """Return the CPU times of reading, checking and drawing a chain of three stages.

    Each stage has ``shards`` small files.
    """
    paths: list[Path] = []
    for name in ("sim", "dataset", "select"):
        sources, paths = paths, [folder / name / f"{number:05d}.txt" for number in range(shards)]
        (folder / name).mkdir()
        for number, path in enumerate(paths):
            path.write_text(str(path))
            Provenance.of(name, {"version": 1}, sources[number : number + 1]).record(path)
    end = folder / "manifest.json"
    end.write_text("{}")
    Provenance.of("write_shards", {"version": 1}, paths).record(end)
    lineage = read_lineage(end)
    return {
        "chain_read_seconds": cpu_seconds(lambda: read_lineage(end)),
        "chain_check_seconds": cpu_seconds(lambda: verify_lineage(lineage)),
        "chain_draw_seconds": cpu_seconds(lambda: lineage_text(lineage)),
        "manifest_record_mb": record_of(end).stat().st_size / 1e6,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--shards", type=int, default=10_000)
    asked = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        figures |= compare_with_stages(Path(folder), asked.events)
    with tempfile.TemporaryDirectory() as folder:
        figures |= follow_chain(Path(folder), asked.shards)
    for name, value in figures.items():
        print(f"{name:32s} {value:10.4f}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
