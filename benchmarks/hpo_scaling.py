"""How a search scales with workers: its graph of jobs, simulated over measured overheads.

The simulation is one of discrete events.

    python benchmarks/hpo_scaling.py [--slots 243 972] [--workers 1 2 4 8 16 24 48 96 1000]

First it measures, in this process: what a slot's access to the study costs at several sizes of the
study (a real study on a journal file in a temporary folder, filled by claims and results as slots
do it), and reading a checkpoint of the default network with its optimiser. The start of a job is an
option; its default is what docs/scaling.md states. Then it plays the graph of
``particleforge.hpo.dag`` for each scheduler: jobs wait for their parents, then in one queue for
workers, then for the claim's lock, load the promoted trial's checkpoint and train. Trainings take a
time proportional to budget, times a factor of the configuration (log-normal, ``--spread``), divided
by workers times ``--efficiency`` per doubling (docs/performance.md: 0.87 measured on two ranks)
where ``rasda`` gives a training several.

Columns: hours to the result; training's share of the worker time that jobs hold (what a batch
system accounts); the share of all workers' time that was training, until the last new configuration
has started and until the end; checkpoints loaded.

Figures are means over ``--seeds`` searches. Prints tables; the last line is one JSON object.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hpo_costs import Costs, checkpoint_seconds, lines_through, study_costs
from hpo_workers import ETA, RUNGS, Search

from particleforge.config.hpo import HpoConfig

SCHEDULERS = ("asha", "rasda")


def searches(options: argparse.Namespace, costs: Costs) -> Iterator[dict[str, Any]]:
    """Play every search with several seeds and yield the means of its figures."""
    for slots in options.slots:
        for name in SCHEDULERS:
            hpo = HpoConfig(
                scheduler=name, first_rung_slots=slots, eta=ETA, n_rungs=RUNGS, min_events=1000
            )
            for workers in options.workers:
                played = []
                for seed in range(options.seeds):
                    one = Search(hpo, costs, options, workers, seed).run()
                    played.append({"jobs": len(one.trainings), **one.summary()})
                means = {
                    key: (
                        None if played[0][key] is None else float(np.mean([p[key] for p in played]))
                    )
                    for key in played[0]
                }
                yield {"slots": slots, "scheduler": name, "workers": workers, **means}


# ---- output


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """Print one table per size of the search."""
    for slots in dict.fromkeys(row["slots"] for row in rows):
        print(f"\n{slots} slots in the first rung:\n")
        print(
            "| scheduler | workers | jobs | hours | training's share of held time | busy before the"
            " tail | busy | checkpoints loaded |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for row in (row for row in rows if row["slots"] == slots):
            shares = " | ".join(
                "-" if row[name] is None else f"{100 * row[name]:.1f} %"
                for name in ("of_held", "busy_before_tail", "busy")
            )
            print(
                f"| {row['scheduler']} | {row['workers']} | {row['jobs']:.0f} | {row['hours']:.1f}"
                f" | {shares} | {row['loads']:.0f} |"
            )


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[243, 972])
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 24, 48, 96, 1000]
    )
    parser.add_argument(
        "--first-rung-s",
        type=float,
        default=600.0,
        help="mean training time of a first-rung slot on one worker",
    )
    parser.add_argument(
        "--spread",
        type=float,
        default=0.5,
        help="width of the logarithm of a configuration's factor in time",
    )
    parser.add_argument(
        "--start-s",
        type=float,
        default=4.8,
        help="from a job's start to that of its stage, docs/scaling.md",
    )
    parser.add_argument(
        "--reaction-s",
        type=float,
        default=20.0,
        help="longest time until the workflow sees a job's end (profiles/slurm)",
    )
    parser.add_argument(
        "--efficiency",
        type=float,
        default=0.87,
        help="of a training on twice the workers, docs/performance.md",
    )
    parser.add_argument(
        "--order", choices=["fifo", "deepest"], default="fifo", help="of jobs in the queue"
    )
    parser.add_argument(
        "--samplers",
        nargs="+",
        default=[HpoConfig().sampler],
        help="measured; the first one is simulated",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="searches over which figures are averaged"
    )
    return parser.parse_args()


def print_costs(measured: Sequence[dict[str, Any]]) -> None:
    """Print what a slot's access to the study costs."""
    print("Seconds of a slot's access to the study:\n")
    print(
        "| sampler | trials in the study | open | claim | finish | records, each synced | of a sync"
        " |\n|---|---|---|---|---|---|---|"
    )
    for row in measured:
        parts = " | ".join(f"{row[part]:.3f}" for part in ("open", "claim", "finish"))
        print(
            f"| {row['sampler']} | {row['n']} | {parts} | {row['records']:.0f} |"
            f" {row['sync']:.4f} |"
        )


def main() -> None:
    """Measure, simulate, print."""
    options = arguments()
    measured = study_costs(options.samplers)
    load, size_mb = checkpoint_seconds()
    costs = Costs(
        start=options.start_s,
        load=load,
        **lines_through([m for m in measured if m["sampler"] == options.samplers[0]]),
    )
    print_costs(measured)
    print(
        f"\nA checkpoint of {size_mb:.1f} MB is read in {load:.3f} s; a job's stage starts"
        f" {options.start_s:g} s after the job."
    )
    rows = list(searches(options, costs))
    print_tables(rows)
    asha = [row for row in rows if row["scheduler"] == "asha" and row["workers"] <= 96]
    result = {
        "asha_min_busy_before_tail_to_96": min(
            (row["busy_before_tail"] for row in asha if row["busy_before_tail"] is not None),
            default=None,
        ),
        "asha_min_busy_to_96": min(row["busy"] for row in asha),
        "asha_min_of_held_to_96": min(row["of_held"] for row in asha),
        "checkpoint_load_s": load,
        "study": measured,
        "searches": rows,
    }
    print(json.dumps(result, default=float))


if __name__ == "__main__":
    main()
