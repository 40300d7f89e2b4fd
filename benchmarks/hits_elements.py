"""Speed and size of the data stages with clusters and with hits as elements, on one core.

    python benchmarks/hits_elements.py [--detector clic] [--sample ttbar] [--events 100]
        [--thresholds-mev 0 10 30]

Simulates the events once, then builds the dataset, selects, and writes shards for clusters and for
hits above each threshold. Times are CPU times of this process, so that other load on the machine
does not count; 20 other events run through each stage before. Prints a table; the last line is one
JSON object of figures.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy starts its threads

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import (
    DatasetSettings,
    SelectSettings,
    ShardSettings,
    simulate_settings,
)
from particleforge.dataset.build import build_dataset
from particleforge.preprocessing.shards import write_shards
from particleforge.selection.select import select_events
from particleforge.simulation.simulate import simulate_events
from particleforge.tables.parquet import read_metadata

CONFIG = Path(__file__).parents[1] / "config"
SPLIT = {"train_fraction": 0.5, "valid_fraction": 0.25, "test_fraction": 0.25}
STAGES = ("dataset", "select", "shards")


def cpu_s(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the CPU time of a call in seconds."""
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def measure(
    simulated: Path, folder: Path, detector: DetectorConfig, sample: str, elements: dict[str, Any]
) -> dict[str, Any]:
    """Run the data stages on a simulated file and return their figures."""
    folder.mkdir()
    run = load_run(CONFIG, {"dataset": elements, "selection": SPLIT})
    dataset = folder / "dataset.parquet"
    selected = folder / "selected.parquet"
    shards = folder / "shards"
    seconds = {
        "dataset": cpu_s(
            build_dataset,
            DatasetSettings.of(run, detector, sample_name=sample),
            [simulated],
            dataset,
        ),
        "select": cpu_s(
            select_events,
            SelectSettings.of(run, detector, sample_name=sample),
            dataset,
            selected,
            folder / "cutflow.json",
        ),
        "shards": cpu_s(write_shards, ShardSettings.of(run, detector), [selected], shards),
    }
    described = json.loads((shards / "manifest.json").read_text(encoding="utf-8"))[
        "splits"
    ].values()
    found = read_metadata(dataset)
    n_events, balance = found["counts"]["events"], found["energy_balance_gev"]
    sizes = {
        "dataset": dataset.stat().st_size,
        "select": selected.stat().st_size,
        "shards": sum(path.stat().st_size for path in shards.rglob("*.parquet")),
    }
    return {
        "elements_per_event": round(
            sum(split["n_elements"] for split in described)
            / sum(split["n_events"] for split in described),
            1,
        ),
        "events_per_s": {name: round(n_events / seconds[name], 1) for name in STAGES},
        "kb_per_event": {name: round(sizes[name] / 1000 / n_events, 1) for name in STAGES},
        "merged_share": round(balance["merged"] / balance["visible"], 5),
        "dropped_share": round(balance["dropped"] / balance["visible"], 5),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--sample", default="ttbar")
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--thresholds-mev", type=float, nargs="*", default=[0.0, 10.0, 30.0])
    options = parser.parse_args()
    detector = load_detector(CONFIG, options.detector)
    choices = {"clusters": {"calorimeter_elements": "clusters"}} | {
        f"hits >= {least:g} MeV": {"calorimeter_elements": "hits", "hit_energy_min_mev": least}
        for least in options.thresholds_mev
    }
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shard, n_events in enumerate((20, options.events)):
            simulated = folder / f"{shard}.root"
            run = load_run(CONFIG, {"simulation": {"events_per_shard": n_events}})
            simulate_events(
                simulate_settings(run, detector, options.sample), f"{shard:05d}", simulated
            )
        measure(
            folder / "0.root",
            folder / "warm",
            detector,
            options.sample,
            next(iter(choices.values())),
        )
        for number, (label, elements) in enumerate(choices.items()):
            figures[label] = measure(
                folder / "1.root", folder / str(number), detector, options.sample, elements
            )
    print(f"{options.detector} {options.sample}, {options.events} events, CPU time of one core")
    print(
        f"  {'elements':<18}{'per event':>10}{'merged':>9}{'dropped':>9}"
        + "".join(f"{f'{s} ev/s':>14}{'kB/ev':>8}" for s in STAGES)
    )
    for label, found in figures.items():
        rates = "".join(
            f"{found['events_per_s'][name]:14.1f}{found['kb_per_event'][name]:8.1f}"
            for name in STAGES
        )
        print(
            f"  {label:<18}{found['elements_per_event']:10.1f}{found['merged_share']:9.2%}"
            f"{found['dropped_share']:9.2%}{rates}"
        )
    print(
        json.dumps(
            {
                "detector": options.detector,
                "sample": options.sample,
                "events": options.events,
                "choices": figures,
            }
        )
    )


if __name__ == "__main__":
    main()
