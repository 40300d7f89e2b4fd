"""Searches on public learning curves: TaskSet's tables of real trainings, at equal epochs.

    python benchmarks/hpo_public.py --data DIR [--seeds 24] [--slow-seeds 6] [--work FILE]
        [--store benchmarks/data/hpo_public.json]

Inputs -> outputs: Parquet tables with a training per row, its eight Adam hyperparameters and its
losses at 51 points (Metz et al., arXiv:2002.11887) -> per search and task the regret: by how much
the loss of the training that a search chose lies above the table's lowest, on the validation events
that it chose by and on the test events that it never saw; last line: one JSON object, of the test
events.

The package's own graph of slots, samplers and promotions play (:func:`play`), on eight workers. A
proposal is answered by the nearest row that no proposal has had yet, and the search is told that
row's hyperparameters: nothing is interpolated. A search of size 1 spends about what nine full
trainings do: with eta 3 in rungs of 2, 6, 17 and all 50 points, with eta 7 of 1, 7 and 50. Rivals
get the same number of points: random search times 1 to 20, the best three of many after their first
point trained to the end (Egele et al., arXiv:2307.15422), and Optuna's samplers with its own
pruners (``hpo_rivals``).

A ratio is that of mean regrets over the seeds that both rows have, its interval the central 95 % of
4,000 resamplings of these seeds. ``tasks_at_random_x5`` counts the tasks on which the default's
mean regret is at most that of random search with five times the points. Rows whose sampler thinks
for long have ``--slow-seeds`` seeds, and only the smallest size. ``--work`` keeps all regrets; run
again, what is there is not played again.
"""

import argparse
import heapq
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from particleforge.config.hpo import HpoConfig
from particleforge.config.space import ParameterConfig
from particleforge.hpo import dag
from particleforge.hpo.sampling import propose
from particleforge.hpo.space import FloatArray, encode
from particleforge.hpo.trials import SearchTrial, config_name, contenders

# the ranges that TaskSet drew from, all on a logarithmic scale; of betas their distance from 1
RANGES = {
    "learning_rate": (1e-8, 10.0),
    "beta1": (1e-4, 1.0),
    "beta2": (1e-6, 1.0),
    "epsilon": (1e-10, 1e3),
    "l1": (1e-8, 10.0),
    "l2": (1e-8, 10.0),
    "linear_decay": (1e-7, 1e-4),
    "exponential_decay": (1e-6, 1e-3),
}
SPACE = {
    name: ParameterConfig(type="float", low=low, high=high, log=True)
    for name, (low, high) in RANGES.items()
}
SHAPES = {3: (81, 4), 7: (180, 3)}  # eta: first slots of about nine full trainings, rungs
MULTIPLES = 1, 2, 5, 10, 20
WORKERS = 8
REFERENCE = "asha/random eta 3"
DEFAULT = f"{HpoConfig().scheduler}/{HpoConfig().sampler} eta {HpoConfig().eta}"
RESAMPLINGS = 4000
_TINY = 1e-4  # added to mean regrets: the best of a table may be found every time
Params = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Trainings: points of the unit cube (n, d), their parameters, and losses (n, points)."""

    name: str
    unit: FloatArray
    params: Sequence[Params]
    valid: FloatArray
    test: FloatArray

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read one of TaskSet's tables."""
        columns = pq.read_table(path).to_pydict()
        for name in ("beta1", "beta2"):
            columns[name] = [1 - value for value in columns[name]]
        params = [
            dict(zip(SPACE, row, strict=True))
            for row in zip(*(columns[name] for name in SPACE), strict=True)
        ]
        return cls(
            path.stem,
            encode(SPACE, params),
            params,
            np.array(columns["valid"], dtype=float),
            np.array(columns["test"], dtype=float),
        )

    @property
    def n_points(self) -> int:
        """Points of a full training, the one before its first step not counted."""
        return int(self.valid.shape[1]) - 1

    def points_at(self, hpo: HpoConfig, rung: int) -> int:
        """Return how many points a training has when it leaves a rung, at least one."""
        return max(1, round(self.n_points * dag.budget(hpo, rung) / dag.schedule_budget(hpo)))

    def regret(self, row: int) -> dict[str, float]:
        """Return how far a training ends above the lowest; one that diverged does not learn."""
        found = {}
        for name, curves in (("test", self.test), ("valid", self.valid)):
            ends = np.where(np.isfinite(curves[:, -1]), curves[:, -1], curves[:, 0])
            found[name] = float(ends[row] - ends.min())
        return found


class Unused:
    """The rows of a table that answer proposals, each once."""

    def __init__(self, table: Table) -> None:
        self._table, self._left = table, np.ones(len(table.unit), dtype=bool)

    def nearest(self, point: FloatArray) -> int:
        """Take the row nearest to a point of the unit cube of those that are left."""
        away = ((self._table.unit - point) ** 2).sum(axis=1)
        row = int(np.where(self._left, away, np.inf).argmin())
        self._left[row] = False
        return row


def settings_of(search: str, size: int = 1) -> HpoConfig:
    """Return the settings of ``scheduler/sampler eta ETA`` in the tables' space.

    Its names are none of the project's settings, so it is put in unchecked.
    """
    name, _, eta = search.split(" ")
    scheduler, sampler = name.split("/")
    first_rung_slots, n_rungs = SHAPES[int(eta)]
    hpo = HpoConfig(
        scheduler=scheduler,
        sampler=sampler,
        first_rung_slots=size * first_rung_slots,
        eta=int(eta),
        n_rungs=n_rungs,
        min_steps=1,
        include_default=False,
    )
    return hpo.model_copy(update={"space": SPACE})


def points_spent(table: Table, size: int) -> int:
    """Return the points that the search spends that others are compared with."""
    hpo = settings_of(REFERENCE, size)
    ends = [0, *(table.points_at(hpo, rung) for rung in range(hpo.n_rungs))]
    return sum(ends[rung + 1] - ends[rung] for rung, _ in dag.all_slots(hpo))


def play(table: Table, hpo: HpoConfig, seed: int) -> int:
    """Play a search through the package's graph, samplers and promotions; return its row."""
    rng, unused = np.random.default_rng(seed), Unused(table)
    centre = {name: math.sqrt(low * high) for name, (low, high) in RANGES.items()}
    waiting = list(dag.starting_order(hpo))
    trials: list[SearchTrial] = []
    rows: dict[str, int] = {}
    ended: set[dag.Slot] = set()
    running: list[tuple[float, int]] = []
    now = 0.0
    while waiting or running:
        while len(running) < WORKERS and (
            slot := next((s for s in waiting if ended.issuperset(dag.parents_of(hpo, *s))), None)
        ):
            waiting.remove(slot)
            trial = _claimed(hpo, seed, centre, trials, slot)
            if trial is None:
                ended.add(slot)
                continue
            if trial.parent is None:
                rows[trial.config] = unused.nearest(encode(SPACE, [trial.params]))
                trial = replace(trial, params=table.params[rows[trial.config]])
            trials.append(trial)
            before = 0 if trial.parent is None else table.points_at(hpo, trial.rung - 1)
            takes = table.points_at(hpo, trial.rung) - before
            heapq.heappush(running, (now + takes * rng.lognormal(0, 0.1), trial.number))
        if running:
            now, done = heapq.heappop(running)
            trial = trials[done]
            value = table.valid[rows[trial.config], table.points_at(hpo, trial.rung)]
            well = bool(np.isfinite(value))
            trials[done] = replace(
                trial,
                status="complete" if well else "diverged",
                value=float(value) if well else None,
            )
            ended.add(trial.slot_id)
    best = min((t for t in trials if t.status == "complete"), key=lambda t: (-t.rung, t.order_key))
    return rows[best.config]


def _claimed(
    hpo: HpoConfig,
    seed: int,
    centre: Params,
    trials: Sequence[SearchTrial],
    slot: dag.Slot,
) -> SearchTrial | None:
    """Return the trial of a slot that starts, None if nothing can be promoted."""
    rung, number = slot
    where: dict[str, Any] = {"rung": rung, "slot": number, "steps": int(dag.budget(hpo, rung))}
    if not dag.parents_of(hpo, *slot):
        params = propose(hpo, seed, number, centre, trials)
        return SearchTrial(len(trials), config_name(number), parent=None, params=params, **where)
    parent = next(iter(contenders(trials, rung)), None)
    if parent is None:
        return None
    return SearchTrial(
        len(trials), parent.config, parent=parent.number, params=parent.params, **where
    )


@cache
def drawn_at_random(path: Path, seed: int, n: int) -> list[int]:
    """Return the rows that answer random proposals, in order."""
    table = read(path)
    unused, points = Unused(table), np.random.default_rng(seed).random((n, len(SPACE)))
    return [unused.nearest(point) for point in points]


read = cache(Table.read)


def best_of(table: Table, rows: Sequence[int], point: int, n: int = 1) -> list[int]:
    """Return the ``n`` rows of the lowest validation loss at a point."""
    losses = table.valid[rows, point]
    return [rows[k] for k in np.argsort(np.where(np.isfinite(losses), losses, np.inf))[:n]]


def random_search(path: Path, size: int, seed: int, multiple: int) -> int:
    """Return the row that random search finds with a multiple of a search's points."""
    table = read(path)
    n = min(len(table.unit), multiple * points_spent(table, size) // table.n_points)
    return best_of(table, drawn_at_random(path, seed, len(table.unit))[:n], -1)[0]


def top_after_one(path: Path, size: int, seed: int) -> int:
    """Return the best of three (times size) that led all others after one point."""
    table, kept = read(path), 3 * size
    n = points_spent(table, size) - kept * (table.n_points - 1)
    drawn = drawn_at_random(path, seed, len(table.unit))[:n]
    return best_of(table, best_of(table, drawn, 1, kept), -1)[0]


Search = Callable[[Path, int, int], int]


def search_of(name: str) -> Search:
    """Return the function (table's file, size, seed) -> row of a search."""
    if name.startswith("random x"):
        multiple = int(name.removeprefix("random x"))
        return lambda path, size, seed: random_search(path, size, seed, multiple)
    if name == "top after one point":
        return top_after_one
    if name.startswith("optuna "):
        from hpo_rivals import optuna_search

        return lambda path, size, seed: optuna_search(read(path), name, size, seed)
    return lambda path, size, seed: play(read(path), settings_of(name, size), seed)


def one(task: tuple[Path, str, int, int]) -> tuple[dict[str, float], float]:
    """Return the regrets of one search, and the seconds it took."""
    path, name, size, seed = task
    started = time.process_time()
    row = search_of(name)(path, size, seed)
    return read(path).regret(row), time.process_time() - started


def interval(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of the means of paired values, and the ends of its 95 % interval."""
    a, b = np.array(values), np.array(others)
    n = min(len(a), len(b))
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLINGS, n))
    ratios = (a[drawn].mean(axis=1) + _TINY) / (b[drawn].mean(axis=1) + _TINY)
    low, high = np.quantile(ratios, [0.025, 0.975])
    ratio = (a[:n].mean() + _TINY) / (b[:n].mean() + _TINY)
    return tuple(float(f"{value:.3g}") for value in (ratio, low, high))  # type: ignore[return-value]


def worth(regrets: Sequence[float], random: Mapping[int, Sequence[float]]) -> float:
    """Return with how many times the points random search is as good, 0 if with fewer than 1."""
    means = np.minimum.accumulate([np.mean(random[m]) for m in MULTIPLES])
    if np.mean(regrets) > means[0]:
        return 0.0
    times = np.exp(np.interp(-np.mean(regrets), -means, np.log(MULTIPLES)))
    return round(float(times), 1)


def summary(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Return the figures of all searches of one size and kind of loss: row -> task -> regrets."""
    random = {m: rows[f"random x{m}"] for m in MULTIPLES}
    found = {}
    for name, by_task in rows.items():
        found[name] = {
            "seeds": min(len(regrets) for regrets in by_task.values()),
            "tasks": {
                task: {
                    "regret": float(f"{np.mean(regrets):.4g}"),
                    "to_asha_random": interval(regrets, rows[REFERENCE][task]),
                    "to_random_x5": interval(regrets, random[5][task]),
                    "random_worth": worth(regrets, {m: random[m][task] for m in MULTIPLES}),
                }
                for task, regrets in by_task.items()
            },
        }
    return found


def judged(figures: Mapping[str, Any], name: str = DEFAULT) -> dict[str, Any]:
    """Return the figures of the last line for one search."""
    tasks = figures[name]["tasks"]
    return {
        "worst_regret_ratio_to_asha_random": max(t["to_asha_random"][0] for t in tasks.values()),
        "tasks_at_random_x5": sum(t["to_random_x5"][0] <= 1 for t in tasks.values()),
        "to_asha_random": {task: t["to_asha_random"] for task, t in tasks.items()},
        "to_random_x5": {task: t["to_random_x5"] for task, t in tasks.items()},
    }


FAST = (
    *(f"random x{multiple}" for multiple in MULTIPLES),
    "top after one point",
    "asha/random eta 7",
    REFERENCE,
    "asha/qmc eta 3",
    "optuna random/halving",
)
SLOW = (
    "asha/tpe eta 7",
    *(f"asha/{sampler} eta 3" for sampler in ("tpe", "cmaes", "nsgaii", "gp")),
    *(f"optuna tpe/{pruner}" for pruner in ("halving", "hyperband", "median")),
    "optuna gp/median",
)


def played(options: argparse.Namespace) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Return size -> row -> task -> regrets by seed; play what ``--work`` lacks."""
    tables = sorted(options.data.glob("*.parquet"))
    known = json.loads(options.work.read_text()) if options.work and options.work.exists() else {}
    with get_context("spawn").Pool(options.jobs) as pool:
        for size in options.sizes:
            rows = known.setdefault(str(size), {})
            for name in (*FAST, *(SLOW if size == min(options.sizes) else ())):
                n, seconds = options.slow_seeds if name in SLOW else options.seeds, 0.0
                for path in tables:
                    regrets = rows.setdefault(name, {}).setdefault(path.stem, [])
                    tasks = [(path, name, size, seed) for seed in range(len(regrets), n)]
                    for regret, took in pool.imap(one, tasks):
                        regrets.append(regret)
                        seconds += took
                mean = " ".join(
                    f"{np.mean([regret['test'] for regret in regrets]):.4f}"
                    for regrets in rows[name].values()
                )
                print(f"size {size}  {name:24} {mean}  {seconds:.0f} s", flush=True)
                if options.work:
                    options.work.write_text(json.dumps(known))
    return known


def figures_of(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return size -> kind of loss -> row -> figures of all that was played."""
    return {
        size: {
            kind: summary(
                {
                    name: {task: [r[kind] for r in regrets] for task, regrets in by_task.items()}
                    for name, by_task in rows.items()
                }
            )
            for kind in ("test", "valid")
        }
        for size, rows in known.items()
    }


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of TaskSet's tables")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--slow-seeds", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--work", type=Path, help="JSON file of all regrets, continued if there")
    parser.add_argument("--store", type=Path, help="JSON file for the figures of all rows")
    options = parser.parse_args()
    figures = figures_of(played(options))
    if options.store:
        options.store.write_text(json.dumps(figures) + "\n")
    smallest = figures[str(min(options.sizes))]
    by_size = {size: judged(found["test"]) for size, found in figures.items()}
    print(json.dumps({"search": DEFAULT, **judged(smallest["test"]), "sizes": by_size}))


if __name__ == "__main__":
    main()
