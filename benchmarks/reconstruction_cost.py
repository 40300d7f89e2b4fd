"""Time and memory of reconstruction from a ROOT file to candidates, against its parts alone.

    python benchmarks/reconstruction_cost.py [--events 500] [--threads 2] [--turns 7]
        [--sample ttbar] [--model FILE] [--elements-per-batch N]

Simulates events, and reconstructs them as ``particleforge reconstruct-events`` does: checksums,
features, candidates as Parquet and as an EDM4hep file. ``time_ratio`` is the time of all that over
the sum of three parts, each alone:

* uproot reads the same leaves, at once or one by one, whichever is faster;
* onnxruntime runs the same batches;
* uproot writes the same EDM4hep file from arrays in memory.

All take turns; the ratio is the median of the turns' ratios. Imports and the compilation of kernels
do not count.

Memory is the peak of a process that runs the command: on one file; on four such files, one after
the other; on one file of four times the events. That process tells whether it imported torch.

Prints tables; the last line is one JSON object.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy starts its threads

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from dataset_speed import CONFIG, branches_read, own_peak_mb, reads_with_uproot

from particleforge.cli import app
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ReconstructSettings, dataset_settings, simulate_settings
from particleforge.edm4hep.writer import write_edm4hep
from particleforge.paths import SHARD_FORMAT
from particleforge.reconstruction import edm4hep_output
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.reconstruction.reconstruct import reconstruct_file
from particleforge.simulation.simulate import simulate_events

MODEL = Path(__file__).parents[1] / "examples/models/clic/model.onnx"
DETECTOR = "clic"
TIMES_LONGER = 4

Call = Callable[[], Any]


def simulated(sample: str, n_events: int, path: Path) -> Path:
    """Simulate events into a file and return its path."""
    run = load_run(CONFIG, {"simulation": {"events_per_shard": n_events}})
    settings = simulate_settings(run, load_detector(CONFIG, DETECTOR), sample)
    simulate_events(settings, SHARD_FORMAT.format(0), path)
    return path


def parts_of(file: Path, model: Path, changed: dict[str, Any], folder: Path) -> dict[str, Call]:
    """Return what is timed: ``all``, and its parts as one such run has them."""
    run, detector = load_run(CONFIG, {"reconstruction": changed}), load_detector(CONFIG, DETECTOR)
    settings, dataset = ReconstructSettings.of(run, detector), dataset_settings(run, detector, "x")
    untold = dataset.model_copy(
        update={"dataset": dataset.dataset.model_copy(update={"truth": "none"})}
    )
    outputs = {"output": folder / "out.parquet", "edm4hep": folder / "out.root"}
    batches: list[Any] = []
    written: dict[str, Any] = {}
    run_batch = OnnxModel._run

    def noting(network: OnnxModel, batch: dict[str, Any]) -> Any:
        batches.append(batch)
        return run_batch(network, batch)

    def keeping(path: Path, types: Any, chunks: Any, made: Any, *, ids: Any) -> None:
        written.update(types=types, chunks=list(chunks), made=made, ids=ids)
        write_edm4hep(path, types, written["chunks"], made, ids=ids)

    def everything() -> None:
        reconstruct_file(settings, dataset, file, model=model, **outputs)

    with (
        mock.patch.object(OnnxModel, "_run", noting),
        mock.patch.object(edm4hep_output, "write_edm4hep", keeping),
    ):
        everything()
    names = branches_read(untold, file, folder / "read.parquet")
    network = OnnxModel(model, settings.reconstruction.threads)
    at_once, one_by_one = reads_with_uproot(file, names)

    def session() -> None:
        for batch in batches:
            run_batch(network, batch)

    def write() -> None:
        write_edm4hep(
            folder / "again.root",
            written["types"],
            written["chunks"],
            written["made"],
            ids=written["ids"],
        )

    return {
        "all": everything,
        "read at once": at_once,
        "read one by one": one_by_one,
        "session.run": session,
        "write": write,
    }


def compared(parts: dict[str, Call], turns: int, n_events: int) -> dict[str, Any]:
    """Print and return the median times, by the clock and of the CPUs, and the ratios."""
    found: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in parts} for clock in ("wall", "cpu")
    }
    for _ in range(turns):
        for name, call in parts.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            found["wall"][name].append(time.perf_counter() - wall)
            found["cpu"][name].append(time.process_time() - cpu)
    ratios = {}
    print(f"{'ms per event':<18}{'wall':>8}{'cpu':>8}")
    for name in parts:
        values = (1e3 * statistics.median(found[clock][name]) / n_events for clock in found)
        print(f"{name:<18}" + "".join(f"{value:8.2f}" for value in values))
    for clock, times in found.items():
        read = min(
            (times["read at once"], times["read one by one"]),
            key=lambda one: statistics.median(one),
        )
        sums = [sum(one) for one in zip(read, times["session.run"], times["write"], strict=True)]
        ratios[clock] = [one / parts for one, parts in zip(times["all"], sums, strict=True)]
    print("ratios by turn, wall:", ", ".join(f"{ratio:.2f}" for ratio in ratios["wall"]))
    return {
        "time_ratio": round(statistics.median(ratios["wall"]), 2),
        "cpu_ratio": round(statistics.median(ratios["cpu"]), 2),
        "ms_per_event": round(1e3 * statistics.median(found["wall"]["all"]) / n_events, 2),
    }


def process_of(files: list[Path], model: Path, changed: dict[str, int]) -> dict[str, Any]:
    """Return the peak memory in MB of a process that reconstructs files, and if torch is in it."""
    command = [sys.executable, __file__, "--model", str(model), "--reconstruct", *map(str, files)]
    for name, value in changed.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def reconstruct_all(
    files: list[Path], model: Path, changed: dict[str, int], folder: Path
) -> dict[str, Any]:
    """Run the command on each file in this process; return what ``process_of`` does."""
    for number, file in enumerate(files):
        command = ["reconstruct-events", "--detector", DETECTOR, "--config-dir", str(CONFIG)]
        command += ["--input", str(file), "--model", str(model)]
        for option, suffix in (("--output", "parquet"), ("--edm4hep", "root")):
            command += [option, str(folder / f"{number}.{suffix}")]
        for key, value in changed.items():
            command += ["--set", f"reconstruction.{key}={value}"]
        app(command, standalone_mode=False)
    return {"peak_mb": round(own_peak_mb()), "torch": "torch" in sys.modules}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--sample", default="ttbar")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--elements-per-batch", type=int)
    parser.add_argument("--reconstruct", nargs="+", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    changed = {"threads": options.threads}
    if options.elements_per_batch:
        changed["elements_per_batch"] = options.elements_per_batch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.reconstruct:
            told = reconstruct_all(options.reconstruct, options.model, changed, folder)
            print(json.dumps(told))
            return
        file = simulated(options.sample, options.events, folder / "events.root")
        long = simulated(options.sample, TIMES_LONGER * options.events, folder / "long.root")
        processes = {
            "peak_mb_1x": process_of([file], options.model, changed),
            "peak_mb_4x": process_of([file] * TIMES_LONGER, options.model, changed),
            "peak_mb_4x_one_file": process_of([long], options.model, changed),
        }
        found = compared(
            parts_of(file, options.model, changed, folder), options.turns, options.events
        )
    for key, one in processes.items():
        print(f"{key}: {one['peak_mb']} MB")
        found[key] = one["peak_mb"]
    found["torch_imported"] = any(one["torch"] for one in processes.values())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
