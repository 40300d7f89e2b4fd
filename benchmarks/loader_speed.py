"""Speed of loading training batches from shards, against reading the same columns with pyarrow.

Both run on one core.

    python benchmarks/loader_speed.py [--detector clic] [--events 20000] [--budget 8192]

Writes shards of random events with the lengths of tt events in CLIC (mean 130 elements, RMS 54) and
the detector's features through the package's own writer; then, in turns, a later epoch of batches
(cold windows, shuffling and checks included) and ``pyarrow.parquet.read_table`` of the same
columns, each shard at a time, all in this process on one thread. Times are CPU times of the
process, so that other load counts little; files come from the page cache. The best of the rounds
counts for both.

The memory is that of a fresh process that loads one epoch, less that of the same process before it,
for the shards as they are and for four times as many. Prints tables; the last line is one JSON
object of figures.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy, torch and pyarrow start their threads

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from particleforge.artefacts import write_json
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ShardSettings
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import Batch
from particleforge.preprocessing.events import _lists
from particleforge.preprocessing.features import n_features
from particleforge.preprocessing.normalisation import FeatureStatistics
from particleforge.preprocessing.shards import _description
from particleforge.provenance.record import checksum
from particleforge.tables.parquet import SHARD_SCHEMA, write_shard
from particleforge.tables.schema import N_SHARES
from particleforge.training.loader import _COLUMNS, ShardLoader

CONFIG = Path(__file__).parents[1] / "config"
EVENTS_PER_SHARD = 1000  # preprocessing.events_per_shard
RANKS = (1, 4, 64)


def random_shard(settings: ShardSettings, n_events: int, rng: np.random.Generator) -> pa.Table:
    """Return random events; features that a type lacks are 0, as in real shards."""
    lengths = np.clip(rng.gamma(6, 22, n_events), 5, 600).astype(np.int64)
    n, width = int(lengths.sum()), n_features(settings.elements)
    element_type = np.where(rng.random(n) < 0.45, 1, 2).astype(np.int8)
    features = rng.lognormal(0, 1, (n, width)).astype(np.float32)
    for number, name in enumerate(settings.elements.types, start=1):
        features[element_type == number, len(getattr(settings.elements, name)) :] = 0
    target_class = np.where(
        rng.random(n) < 0.7, rng.integers(1, 1 + len(settings.particle_classes), n), 0
    ).astype(np.int8)
    p4 = (rng.normal(0, 5, (n, 4)) * (target_class > 0)[:, None]).astype(np.float32)
    share = rng.dirichlet(np.ones(N_SHARES + 1), n) * (element_type == 2)[:, None]
    hosts = rng.integers(0, np.repeat(lengths, lengths)[:, None], (n, N_SHARES))
    columns = {
        "event_id": pa.array(rng.integers(0, 2**63, n_events).astype(np.uint64)),
        "sample": pa.array(["random"] * n_events),
        "weight": pa.array(np.ones(n_events)),
        "n_elements": pa.array(lengths.astype(np.int32)),
        "element_type": _lists(element_type, lengths),
        "features": _lists(features, lengths),
        "target_class": _lists(target_class, lengths),
        "target_charge": _lists(rng.integers(-1, 2, n).astype(np.int8), lengths),
        "target_p4": _lists(p4, lengths),
        "share_host": _lists(hosts.astype(np.int32), lengths),
        "share": _lists(share.astype(np.float32), lengths),
    }
    return pa.table(columns).cast(SHARD_SCHEMA)


def write_shards(folder: Path, detector: str, **n_events: int) -> Path:
    """Write shards of random events, with so many events per split, and return the manifest."""
    settings = ShardSettings.of(load_run(CONFIG), load_detector(CONFIG, detector))
    rng, statistics, splits = np.random.default_rng(1), FeatureStatistics(settings.elements), {}
    for split, total in n_events.items():
        shards = []
        for number in range(-(-total // EVENTS_PER_SHARD)):
            shard = random_shard(
                settings, min(EVENTS_PER_SHARD, total - number * EVENTS_PER_SHARD), rng
            )
            name = f"{split}/{number:05d}.parquet"
            write_shard(folder / name, shard, {})
            shards.append(
                {
                    "file": name,
                    "n_events": shard.num_rows,
                    "n_elements": int(pc.sum(shard["n_elements"]).as_py()),
                    "sha256": checksum(folder / name),
                }
            )
        sums = {key: sum(one[key] for one in shards) for key in ("n_events", "n_elements")}
        splits[split] = {**sums, "shards": shards}
    features = (
        shard["features"]
        .combine_chunks()
        .flatten()
        .to_numpy()
        .reshape(-1, n_features(settings.elements))
    )
    statistics.add(shard["element_type"].combine_chunks().flatten().to_numpy(), features)
    write_json(folder / "normalisation.json", statistics.result())
    write_json(folder / "manifest.json", {**_description(settings, ["random"]), "splits": splits})
    return folder / "manifest.json"


def make_loader(
    manifest: Path, budget: int, world_size: int = 1, read_ahead: int = 0
) -> ShardLoader:
    """Return a loader as the trainer makes it."""
    inputs = ModelInputs.from_manifest(manifest)
    return ShardLoader(
        manifest,
        "train",
        inputs,
        budget=budget,
        shards_in_memory=8,
        seed=1,
        world_size=world_size,
        read_ahead=read_ahead,
    )


def load(stream: Iterator[tuple[int, int, list[Batch], int]], n_batches: int) -> dict[str, int]:
    """Take batches from a stream and return their events, elements and padded elements."""
    seen = dict.fromkeys(("events", "elements", "padded"), 0)
    for _, _, micro_batches, n_events in itertools.islice(stream, n_batches):
        seen["events"] += n_events
        seen["padded"] += sum(batch.element_type.numel() for batch in micro_batches)
        seen["elements"] += sum(
            int(torch.count_nonzero(batch.element_type)) for batch in micro_batches
        )
    return seen


def batches_of_epoch(loader: ShardLoader, epoch: int) -> int:
    """Return the number of batches, known beforehand: a stream reads on into the next epoch."""
    return sum(1 for _ in loader.plan(epoch))


def read_raw(loader: ShardLoader) -> None:
    """Read the loader's columns of its files."""
    for path in loader.paths:
        pq.read_table(path, columns=list(_COLUMNS))


def cpu_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the CPU time of a call, all threads of the process together."""
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def megabytes(name: str) -> float:
    """Return a figure of this process's memory from ``/proc/self/status``."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(name + ":")
    )
    return int(line.split()[1]) / 1024


def loading_megabytes(manifest: Path, *options: int) -> float:
    """Return what loading an epoch adds to the peak memory of a fresh process.

    ``options`` are those of ``make_loader``.
    """
    command = [sys.executable, __file__, "--memory-of", str(manifest), *map(str, options)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(manifest: str, *options: str) -> None:
    """Print what loading an epoch adds to the peak memory of this process."""
    # loads what pyarrow needs
    pq.read_table(Path(manifest).with_name("train") / "00000.parquet", columns=["n_elements"])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    before = megabytes("VmRSS")
    loader = make_loader(Path(manifest), *map(int, options))
    load(loader.stream(0, 0), batches_of_epoch(loader, 0))
    print(megabytes("VmHWM") - before)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print_memory(*options.memory_of)
        return
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_shards(Path(folder) / "1x", options.detector, train=options.events)
        larger = write_shards(Path(folder) / "4x", options.detector, train=4 * options.events)
        loaders = {
            f"rank 0 of {ranks}": make_loader(manifest, options.budget, ranks) for ranks in RANKS
        }
        whole = loaders["rank 0 of 1"]
        size = sum(path.stat().st_size for path in whole.paths)
        streams = {name: loader.stream(0, 0) for name, loader in loaders.items()}
        seen = {name: load(stream, batches_of_epoch(whole, 0)) for name, stream in streams.items()}[
            "rank 0 of 1"
        ]
        seconds: dict[str, list[float]] = {name: [] for name in ("raw", *streams)}
        for epoch in range(1, options.rounds + 1):
            n_batches = batches_of_epoch(whole, epoch)
            seconds["raw"].append(cpu_seconds(read_raw, whole))
            for name, stream in streams.items():
                seconds[name].append(cpu_seconds(load, stream, n_batches))
        memory = {
            f"{name}, {ranks} rank{'s' * (ranks > 1)}, {ahead} window ahead": loading_megabytes(
                found, options.budget, ranks, ahead
            )
            for name, found in (("shards", manifest), ("4x shards", larger))
            for ranks in (1, 4)
            for ahead in (0, 1)
        }
    print_speed(seen, {name: min(values) for name, values in seconds.items()}, size, memory)


def print_speed(
    seen: dict[str, int], best: dict[str, float], size: int, memory: dict[str, float]
) -> None:
    """Print the tables and the figures of an epoch of ``size`` bytes."""
    print(
        f"{seen['events']} events, {seen['elements'] / seen['events']:.0f} elements each,"
        f" {size / seen['events']:.0f} bytes each on disk"
    )
    print(f"\n{'':28}{'us/event':>10}{'events/s/core':>16}{'MB/s':>8}")
    titles = {"raw": "pyarrow.parquet.read_table", "rank 0 of 1": "batches, the only rank"}
    for name, value in best.items():
        # events of the split: a rank of many goes through all, and copies its own
        rate = seen["events"] / value
        print(
            f"{titles.get(name, 'batches, ' + name):28}{1e6 / rate:>10.1f}{rate:>16,.0f}"
            f"{size / value / 1e6:>8.0f}"
        )
    print(f"\n{'one epoch adds to the peak memory of a rank':48}{'MB':>8}")
    for name, megabytes in memory.items():
        print(f"{name:48}{megabytes:>8.0f}")
    figures = {
        "events_per_s_per_core": round(seen["events"] / best["rank 0 of 1"]),
        "fraction_of_pyarrow": round(best["raw"] / best["rank 0 of 1"], 3),
        "peak_memory_mb": round(memory["shards, 1 rank, 1 window ahead"]),
        "peak_memory_mb_4x": round(memory["4x shards, 1 rank, 1 window ahead"]),
        "padding_efficiency": round(seen["elements"] / seen["padded"], 4),
        "bytes_per_event": round(size / seen["events"]),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
