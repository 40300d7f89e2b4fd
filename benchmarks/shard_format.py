"""Size and speed of training shards and dataset files against how Parquet encodes them.

All on one core.

    python benchmarks/shard_format.py [--detector clic] [--sample ttbar] [--events 1000]

Simulates events once and runs them through dataset, selection and preprocessing, so that values
have the digits, zeros and repetitions of real ones. Then the same table is written in each
encoding: compression and its level, dictionaries for all columns or none, row groups,
byte-stream-split of floating-point columns (which leaves dictionaries to the others). Measured are
bytes and, in turns, the writing, the read of all columns by pyarrow, and for shards an epoch of
batches. Times are CPU times of this process on one thread, so that other load counts little; files
come from the page cache; the best of the rounds counts. Prints tables; the last line is one JSON
object of figures.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy, torch and pyarrow start their threads

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from loader_speed import batches_of_epoch, cpu_seconds, load, make_loader

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import (
    SelectSettings,
    ShardSettings,
    dataset_settings,
    simulate_settings,
)
from particleforge.dataset.build import build_dataset
from particleforge.preprocessing.shards import write_shards
from particleforge.selection.select import select_events
from particleforge.simulation.simulate import simulate_events
from particleforge.tables.parquet import column_types, write_table

CONFIG = Path(__file__).parents[1] / "config"
SPLIT = {"train_fraction": 0.9, "valid_fraction": 0.05, "test_fraction": 0.05}
BUDGET = 8192
Encoding = dict[str, Any]


def prepared(folder: Path, detector_name: str, sample: str, n_events: int) -> tuple[Path, Path]:
    """Run the data stages and return the dataset file and the manifest of the shards."""
    sizes = {"events_per_shard": n_events, "events_per_sample": n_events}
    run = load_run(
        CONFIG,
        {"simulation": sizes, "selection": SPLIT, "preprocessing": {"events_per_shard": n_events}},
    )
    detector = load_detector(CONFIG, detector_name)
    simulated = folder / "simulated.root"
    dataset = folder / "dataset.parquet"
    selected = folder / "selected.parquet"
    simulate_events(simulate_settings(run, detector, sample), "00000", simulated)
    build_dataset(dataset_settings(run, detector, sample), [simulated], dataset)
    select_events(
        SelectSettings.of(run, detector, sample_name=sample),
        dataset=dataset,
        output=selected,
        cutflow=folder / "cutflow.json",
    )
    write_shards(ShardSettings.of(run, detector), [selected], folder / "shards")
    return dataset, folder / "shards/manifest.json"


def encodings(types: pa.Schema, default: Encoding) -> dict[str, Encoding]:
    """Return the package's encoding and its variations by what is varied."""
    compressions: dict[str, Encoding] = {
        name: {"compression": name} for name in ("none", "snappy", "lz4")
    }
    compressions |= {
        f"zstd, level {level}": {"compression": "zstd", "compression_level": level}
        for level in (1, 3, 9)
    }
    split = {
        "use_byte_stream_split": [
            path for path, kind in column_types(types).items() if pa.types.is_floating(kind)
        ]
    }
    return {
        "as the package writes it": default,
        **{f"compression: {name}": {**default, **found} for name, found in compressions.items()},
        "no dictionaries": {**default, "use_dictionary": False},
        "dictionaries of all columns": {**default, "use_dictionary": True},
        **{
            f"byte-stream-split, {name}": {**default, **found, **split}
            for name, found in compressions.items()
        },
        **{f"row groups of {n}": {**default, "row_group_size": n} for n in (100, 250, 1000)},
    }


def measure(
    folder: Path, table: pa.Table, default: Encoding, rounds: int, manifest: Path | None = None
) -> dict[str, dict[str, float]]:
    """Return bytes and microseconds per event of each encoding of a table.

    Batches are timed, too, where it is the shard of a manifest.
    """
    found = {}
    for name, encoding in encodings(table.schema, default).items():
        path = folder / name.replace(" ", "_") / "train/00000.parquet"
        if manifest:
            described = json.loads(manifest.read_text(encoding="utf-8"))
            described["splits"]["train"]["shards"] = [
                {"file": "train/00000.parquet", "n_events": table.num_rows}
            ]
            path.parent.mkdir(parents=True)
            path.parents[1].joinpath("manifest.json").write_text(
                json.dumps(described), encoding="utf-8"
            )
            shutil.copy(manifest.with_name("normalisation.json"), path.parents[1])
        found[name] = (path, encoding)
    best: dict[str, dict[str, float]] = {name: {} for name in found}

    def take(name: str, what: str, seconds: float) -> None:
        best[name][what] = min(best[name].get(what, float("inf")), 1e6 * seconds / table.num_rows)

    for _ in range(rounds):
        for name, (path, encoding) in found.items():
            take(
                name,
                "write",
                cpu_seconds(
                    lambda path=path, encoding=encoding: write_table(
                        path, [table], table.schema, {}, **encoding
                    )
                ),
            )
            best[name]["bytes"] = path.stat().st_size / table.num_rows
            take(name, "read", cpu_seconds(lambda path=path: pq.read_table(path)))
            if manifest:
                loader = make_loader(path.parents[1] / "manifest.json", BUDGET)
                take(
                    name,
                    "batches",
                    cpu_seconds(load, loader.stream(0, 0), batches_of_epoch(loader, 0)),
                )
    return best


def show(title: str, measured: dict[str, dict[str, float]]) -> None:
    """Print a table of figures per event."""
    columns = list(next(iter(measured.values())))
    columns = ["bytes", *(name for name in columns if name != "bytes")]
    print(
        f"\n{title:36}"
        + "".join(f"{'bytes' if name == 'bytes' else f'{name}, us':>14}" for name in columns)
    )
    for name, figures in measured.items():
        print(
            f"{name:36}"
            + "".join(
                f"{figures[column]:>14,.{0 if column == 'bytes' else 1}f}" for column in columns
            )
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--sample", default="ttbar")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset, manifest = prepared(folder, options.detector, options.sample, options.events)
        shard = pq.read_table(manifest.parent / "train/00000.parquet").replace_schema_metadata()
        events = pq.read_table(dataset).replace_schema_metadata()
        shards = measure(
            folder / "of_shards", shard, {"compression": "lz4"}, options.rounds, manifest
        )
        files = measure(folder / "of_dataset", events, {}, options.rounds)
    print(
        f"{events.num_rows} events of {options.sample}, {shard.num_rows} of them in the shard; per"
        " event:"
    )
    show("training shard (lz4)", shards)
    show("dataset (zstd)", files)
    figures = {
        kind: {
            name: {key: round(value, 1) for key, value in found.items()}
            for name, found in measured.items()
        }
        for kind, measured in (("shards", shards), ("dataset", files))
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
