"""The search against the configured settings and random search, on real trainings, at equal hours.

Inputs -> outputs: the configuration of a preset and its training shards -> the final validation
losses of both searches and of the configured settings, by seed, with their spread; last line: one
JSON object.

For every seed the preset's search runs as it would in the workflow, ``--workers`` slots at a time,
each on one thread. Then random search trains configurations drawn at random from the same space at
the full budget, until it has spent the same core hours, the training that crosses the line
included, so with somewhat more. ``random_at_equal_hours`` is what it reaches on average with
exactly the search's: the random trainings of all seeds in random orders, the one that crosses the
line counting with the share of it that fits. The configured settings are the search's own first
configuration, trained to the full budget from the same seed. All losses are those after the full
budget, on the same validation events.
"""

import argparse
import json
import math
import os
import statistics
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import HpoSettings
from particleforge.hpo import dag
from particleforge.hpo.against_random import lowest_in_hours
from particleforge.hpo.slot import run_hpo_slot
from particleforge.hpo.study import open_study
from particleforge.hpo.trials import SearchTrial


def run_slots(
    settings: HpoSettings, manifest: Path, work: Path, workers: int, seconds_max: float
) -> list[SearchTrial]:
    """Run the slots of a search in the workflow's order.

    No new ones once ``seconds_max`` core seconds are spent.
    """
    hpo = settings.hpo
    waiting = list(dag.starting_order(hpo))
    running: dict[Future[None], dag.Slot] = {}
    ended: set[dag.Slot] = set()
    study = open_study(settings, manifest, work)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        while waiting or running:
            ready = [slot for slot in waiting if ended.issuperset(dag.parents_of(hpo, *slot))]
            if spent(study.trials()) >= seconds_max:
                ready = waiting = []
            for slot in ready[: workers - len(running)]:
                waiting.remove(slot)
                output = work / "slots" / f"{'-'.join(map(str, slot))}.json"
                output.parent.mkdir(parents=True, exist_ok=True)
                future = pool.submit(
                    run_hpo_slot, settings, slot, manifest=manifest, work_dir=work, output=output
                )
                running[future] = slot
            if running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    ended.add(running.pop(future))
    return study.trials()


def spent(trials: list[SearchTrial]) -> float:
    """Return the core seconds of the trials that have ended, each on one core."""
    return sum(t.seconds or 0.0 for t in trials)


def best(trials: list[SearchTrial]) -> SearchTrial:
    """Return the winner."""
    return min((t for t in trials if t.status == "complete"), key=lambda t: (-t.rung, t.order_key))


def at_equal_hours(trainings: list[SearchTrial], seconds: float) -> float:
    """Return the mean lowest loss of random search in so many core seconds."""
    return lowest_in_hours(
        np.array([t.seconds or 0.0 for t in trainings]),
        np.array([math.nan if t.value is None else t.value for t in trainings]),
        seconds,
    )


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, help="manifest.json of the preset's training shards")
    parser.add_argument(
        "work",
        type=Path,
        help="folder for studies and checkpoints; run again, what is there is used",
    )
    parser.add_argument("--config", type=Path, default=Path("config"))
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--hpo", type=json.loads, default={}, help="changes of the preset's block hpo, as JSON"
    )
    return parser.parse_args()


def compared(
    settings: HpoSettings, options: argparse.Namespace
) -> tuple[dict[str, Any], list[SearchTrial]]:
    """Search with one seed; return the row of figures and the trainings of random search."""
    none = {
        "scheduler": "none",
        "sampler": "random",
        "first_rung_slots": 1000,
        "include_default": False,
    }

    def trained(name: str, changes: dict[str, Any], seconds_max: float) -> list[SearchTrial]:
        return run_slots(
            settings.model_copy(update={"hpo": settings.hpo.model_copy(update=changes)}),
            options.manifest,
            options.work / f"{settings.seed}-{name}",
            options.workers,
            seconds_max,
        )

    found = trained("search", {}, float("inf"))
    default = trained(
        "default", {**none, "first_rung_slots": 1, "include_default": True}, float("inf")
    )
    random = trained("random", none, spent(found))
    row = {
        "seed": settings.seed,
        "default": best(default).loss,
        "search": best(found).loss,
        "random": best(random).loss,
        "search_core_h": spent(found) / 3600,
        "random_core_h": spent(random) / 3600,
        "search_trials": len(found),
        "random_trials": len(random),
        "winner": dict(best(found).params),
    }
    return row, random


def main() -> None:
    """Compare."""
    options = arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run = load_run(options.config, {"preset": options.preset, "hpo": {"ranks": 1, **options.hpo}})
    shipped = HpoSettings.of(run, load_detector(options.config, options.detector))
    rows: list[dict[str, Any]] = []
    all_random: list[SearchTrial] = []
    for seed in range(1, options.seeds + 1):
        row, random = compared(shipped.model_copy(update={"seed": seed}), options)
        all_random += [trial for trial in random if trial.finished]
        rows.append(row)
        print(json.dumps(row), flush=True)
    summary: dict[str, Any] = {}
    for name in ("default", "search", "random"):
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else None
        summary[name] = {"mean": statistics.mean(values), "standard_deviation": spread}
    lower = {
        name: 1 - summary["search"]["mean"] / summary[name]["mean"]
        for name in ("default", "random")
    }
    pooled = at_equal_hours(
        all_random, statistics.mean(3600 * row["search_core_h"] for row in rows)
    )
    print(
        json.dumps(
            {
                "seeds": len(rows),
                "losses": summary,
                "search_lower_by": lower,
                "random_at_equal_hours": pooled,
            }
        )
    )


if __name__ == "__main__":
    main()
