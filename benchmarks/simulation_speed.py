"""Speed of the parametric simulation: from Pythia to the written file, on one core.

    python benchmarks/simulation_speed.py [--detector clic] [--sample ttbar] [--events 200]

Times are CPU times of this process, so that other load on the machine does not count. The first,
unmeasured shard compiles what is compiled. Prints a table by phase; the last line is one JSON
object of figures.
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

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import simulate_settings
from particleforge.simulation import (
    calorimeter,
    clustering,
    generator,
    particle_flow,
    pile_up,
    propagation,
    simulate,
    tracking,
)

CONFIG = Path(__file__).parents[1] / "config"
PHASES = (
    ("start Pythia", generator, "make_pythia"),
    ("generate", generator, "next_events"),
    ("convert record", generator, "to_particles"),
    ("pile-up", pile_up.PileUp, "overlay"),
    ("propagate", propagation, "propagate"),
    ("track", tracking, "make_tracks"),
    ("showers and hits", calorimeter, "simulate_hits"),
    ("cluster", clustering, "cluster_hits"),
    ("particle flow", particle_flow, "reconstruct"),
    ("to EDM4hep", simulate, "to_chunk"),
)


def timed(function: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Return the function with its CPU time added to ``spent[name]``."""

    def wrapper(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **options)
        finally:
            spent[name] += time.process_time() - start

    return wrapper


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--sample", default="ttbar")
    parser.add_argument("--events", type=int, default=200)
    options = parser.parse_args()
    settings = simulate_settings(
        load_run(CONFIG), load_detector(CONFIG, options.detector), options.sample
    )
    spent = {name: 0.0 for name, _, _ in PHASES}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        warm_up = settings.model_copy(update={"events_per_shard": 5})
        simulate.simulate_events(warm_up, "99999", Path(folder) / "warm.root")
        compilation = time.process_time() - start
        for name, module, function in PHASES:
            setattr(module, function, timed(getattr(module, function), name, spent))
        output = Path(folder) / "measured.root"
        start = time.process_time()
        simulate.simulate_events(
            settings.model_copy(update={"events_per_shard": options.events}), "00000", output
        )
        total = time.process_time() - start
        size = output.stat().st_size
    spent["write and rest"] = total - sum(spent.values())
    print(f"{options.detector} {options.sample}, {options.events} events, CPU time of one core")
    for name, seconds in spent.items():
        print(
            f"  {name:<18}{1000 * seconds / options.events:9.2f} ms/event"
            f" {100 * seconds / total:6.1f} %"
        )
    print(
        f"  {'total':<18}{1000 * total / options.events:9.2f} ms/event; first 5 events with"
        f" compilation {compilation:.1f} s"
    )
    figures = {
        "parametric_events_per_s_per_core": round(options.events / total, 2),
        "detector": options.detector,
        "sample": options.sample,
        "events": options.events,
        "file_kb_per_event": round(size / 1000 / options.events, 1),
        "ms_per_event": {
            name: round(1000 * seconds / options.events, 3) for name, seconds in spent.items()
        },
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
