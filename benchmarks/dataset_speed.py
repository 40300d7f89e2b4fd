"""Speed and memory of the dataset stage on events as long as those of a full simulation.

The stage leads from ROOT to Parquet.

    python benchmarks/dataset_speed.py [--detector clic] [--events 400] [--lengths 800 1600 3200]
        [--chunk-events 25 50 100] [--profile]

Makes events of about 8 000 hits, 100 clusters, 50 tracks and 2 000 particles (``full_simulation``),
as RNTuple and as TTree, and measures, in CPU time of this process, so that other load on the
machine does not count:

* the whole stage, checksums, truth and writing included;
* uproot alone reading the same branches, at once or one by one, whichever is faster;
* the peak memory of processes that build files of growing length, and in chunks of growing size; a
  line through the former gives the peak for a file of 10 GB.

Prints tables; the last line is one JSON object, with the slower of the two layouts in front.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy starts its threads

import argparse
import cProfile
import json
import pstats
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import uproot
from full_simulation import write_as_tree, write_full_simulation

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings
from particleforge.dataset.build import build_dataset
from particleforge.edm4hep.rootfile import EventFile
from particleforge.tables.parquet import read_table

CONFIG = Path(__file__).parents[1] / "config"
# particleflow 3.1.0, mlpf/data/key4hep/postprocessing.py, on events of 5 000 to 8 000 hits
INCUMBENT_S_PER_EVENT = 0.9
BIG_FILE_BYTES = 10e9
REPEATS = 3
DISTINCT = 200  # events of the files whose peaks are compared, before their content repeats


def cpu_s(function: Callable[[], Any]) -> float:
    """Return the least CPU time of ``REPEATS`` calls in seconds."""
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def settings_of(detector: str, chunk_events: int | None) -> DatasetSettings:
    """Return the stage's settings as shipped; ``chunk_events`` may be another."""
    run = load_run(CONFIG, {"dataset": {"chunk_events": chunk_events}} if chunk_events else {})
    return DatasetSettings.of(run, load_detector(CONFIG, detector), sample_name="full")


def branches_read(settings: DatasetSettings, path: Path, output: Path) -> list[str]:
    """Return the names of the leaves that a build reads."""
    names: set[str] = set()
    read = EventFile.jagged

    def noting(file: EventFile, leaf: str, *entries: int) -> Any:
        names.add(leaf)
        return read(file, leaf, *entries)

    with mock.patch.object(EventFile, "jagged", noting):
        build_dataset(settings, [path], output)
    return sorted(names)


def reads_with_uproot(path: Path, names: list[str]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return two ways in which uproot reads these leaves of all events: at once, and one by one.

    Opening the file is included.
    """
    wanted = set(names)

    def at_once() -> None:
        with uproot.open(path) as file:
            file["events"].arrays(filter_name=lambda name: name in wanted)

    def one_by_one() -> None:
        with uproot.open(path) as file:
            tree = file["events"]
            branches = dict(
                tree.items(recursive=True, full_paths=False)
                if isinstance(tree, uproot.TTree)
                else tree.items(recursive=True)
            )
            for name in names:
                branches[name].array()

    return at_once, one_by_one


def own_peak_mb() -> float:
    """Return the peak memory of this process (Linux).

    ``getrusage`` would include that of the process which started this one.
    """
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert peak, "the system does not say how much memory was used"
    return int(peak[1]) / 1024


def peak_mb(path: Path, detector: str, chunk_events: int | None = None) -> float:
    """Return the peak memory of a process of its own that builds the dataset of a file."""
    command = [sys.executable, __file__, "--detector", detector, "--build", str(path)]
    command += ["--chunk-events", str(chunk_events)] if chunk_events else []
    return float(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def content(path: Path) -> dict[str, float]:
    """Return what an event of a dataset holds on average."""
    table = read_table(path, ["tracks", "clusters", "particles"])
    hits = np.asarray(table["clusters"].n_hits.layout.content.data)
    return {
        "hits_in_clusters": float(hits.sum() / len(table)),
        **{
            name: float(len(table[name].layout.content) / len(table))
            for name in ("clusters", "tracks")
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--events", type=int, default=400)
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="*",
        default=[800, 1600, 3200],
        help="events of the files whose peaks are compared",
    )
    parser.add_argument(
        "--chunk-events",
        type=int,
        nargs="*",
        default=[25, 50, 100],
        help="sizes of chunks whose peaks are compared",
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument(
        "--build",
        type=Path,
        help=(
            "only build this file, in the first of --chunk-events, and print the peak memory in MB"
        ),
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.build:
            chunk = options.chunk_events[0] if "--chunk-events" in sys.argv else None
            build_dataset(
                settings_of(options.detector, chunk), [options.build], folder / "out.parquet"
            )
            print(own_peak_mb())
            return
        measure(options, folder)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Make the files, measure all, print."""
    run, detector = load_run(CONFIG), load_detector(CONFIG, options.detector)
    files = {"rntuple": folder / "events.root", "ttree": folder / "tree.root"}
    write_full_simulation(files["rntuple"], run, detector, options.events)
    write_as_tree(files["rntuple"], files["ttree"])
    settings, output = settings_of(options.detector, None), folder / "out.parquet"
    found = {}
    for layout, path in files.items():
        names = branches_read(settings, path, output)  # compiles, too
        build = cpu_s(lambda path=path: build_dataset(settings, [path], output))  # type: ignore[misc]
        read = min(map(cpu_s, reads_with_uproot(path, names)))
        found[layout] = {
            "ms_per_event": 1000 * build / options.events,
            "raw_read_ms": 1000 * read / options.events,
            "branches": len(names),
        }
        if options.profile:
            profile = cProfile.Profile(time.process_time)
            profile.runcall(build_dataset, settings, [path], output)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    average = content(output)
    print(
        f"{options.detector}, {options.events} events of "
        + ", ".join(f"{value:.0f} {name}" for name, value in average.items())
    )
    print(f"  {'layout':<9}{'ms/event':>10}{'raw read':>10}{'ratio':>7}{'events/s':>10}")
    for layout, one in found.items():
        build, read = one["ms_per_event"], one["raw_read_ms"]
        print(f"  {layout:<9}{build:10.2f}{read:10.2f}{build / read:7.2f}{1000 / build:10.0f}")
    slowest = max(one["ms_per_event"] for one in found.values())
    figures = {
        "events_per_s_per_core": round(1000 / slowest, 1),
        "ratio_to_raw_read": round(
            max(one["ms_per_event"] / one["raw_read_ms"] for one in found.values()), 3
        ),
        "speedup_vs_incumbent": round(1000 * INCUMBENT_S_PER_EVENT / slowest, 1),
    }
    layouts = {
        layout: {key: round(value, 3) for key, value in one.items()}
        for layout, one in found.items()
    }
    rest = {
        "layouts": layouts,
        "per_event": {key: round(value, 1) for key, value in average.items()},
    }
    print(json.dumps(figures | memory(options, run, detector, folder) | rest))


def memory(options: argparse.Namespace, run: Any, detector: Any, folder: Path) -> dict[str, Any]:
    """Return peak memory by length of the file and by size of the chunks, and that for 10 GB.

    The latter is what a file of 10 GB would take.
    """
    if not options.lengths:
        return {}
    peaks, bytes_per_event = {}, 0.0
    for n_events in sorted(options.lengths):
        path = folder / f"{n_events}.root"
        write_full_simulation(path, run, detector, n_events, distinct=DISTINCT)
        bytes_per_event = path.stat().st_size / n_events
        peaks[n_events] = peak_mb(path, options.detector)
    print(
        "  peak memory / MB by events of the file: "
        + ", ".join(f"{n}: {peak:.0f}" for n, peak in peaks.items())
    )
    by_chunk = {n: peak_mb(path, options.detector, n) for n in options.chunk_events}
    print(
        "  by events of a chunk: " + ", ".join(f"{n}: {peak:.0f}" for n, peak in by_chunk.items())
    )
    slope, start = (
        np.polyfit(list(peaks), list(peaks.values()), 1)
        if len(peaks) > 1
        else (0.0, next(iter(peaks.values())))
    )
    n_big = BIG_FILE_BYTES / bytes_per_event
    big = max(start + max(slope, 0.0) * n_big, max(peaks.values()))
    print(
        f"  {1000 * slope:.1f} kB more per event: a file of 10 GB ({n_big:.0f} events) takes"
        f" {big:.0f} MB"
    )
    rounded = {"peak_mb": peaks[max(peaks)], "peak_mb_10_gb": big, "kb_per_event": 1000 * slope}
    return {key: round(float(value), 1) for key, value in rounded.items()} | {
        "peak_mb_by_events": {n: round(value) for n, value in peaks.items()},
        "peak_mb_by_chunk": {n: round(value) for n, value in by_chunk.items()},
    }


if __name__ == "__main__":
    main()
