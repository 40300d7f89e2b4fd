"""How a search scales with workers: its graph of jobs, simulated over measured overheads.

The simulation is one of discrete events.

    python benchmarks/hpo_scaling.py [--slots 243 972] [--workers 1 2 4 8 16 24 48 96 1000]
        [--figure docs/figures/hpo_scaling.png]

First it measures, in this process: what a slot's access to the study costs at several sizes of the
study (a real study on a journal file in a temporary folder, filled by claims and results as slots
do it), and reading a checkpoint of the default network with its optimiser. The start of a job is an
option; its default is what docs/scaling.md states. Then it plays the graph of
``particleforge.hpo.dag`` for each scheduler: jobs wait for their parents, then in one queue for
workers, then for the claim's lock, load the promoted trial's checkpoint and train. Trainings take a
time proportional to budget, times a factor of the configuration (log-normal, ``--spread``), divided
by workers times ``--efficiency`` per doubling (docs/performance.md: 0.87 measured on two ranks)
where ``rasda`` gives a training several.

``pool`` is ASHA as published (Li et al., arXiv:1810.05934, Algorithm 2), as a comparison: workers
that live as long as the search and take the next training themselves, which may be the one they
have just ended and then needs no checkpoint.

Columns: hours to the result; training's share of the worker time that jobs hold (what a batch
system accounts); the share of all workers' time that was training, until the last new configuration
has started and until the end; checkpoints loaded.

Figures are means over ``--seeds`` searches. Prints tables; the last line is one JSON object.
"""

import argparse
import bisect
import heapq
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hpo_costs import Costs, checkpoint_seconds, lines_through, study_costs

from particleforge.config.hpo import HpoConfig
from particleforge.hpo import dag

SCHEDULERS = ("asha", "sha", "hyperband", "rasda")
RUNGS, ETA = 4, 3
# ---- the simulation


@dataclass(order=True)
class Event:
    """Something that happens at a time; ties in order of creation."""

    at: float
    number: int
    what: Callable[[], None] = field(compare=False)


class Clock:
    """The loop of events."""

    def __init__(self) -> None:
        self.now, self._number = 0.0, 0
        self._events: list[Event] = []

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something later."""
        self._number += 1
        heapq.heappush(self._events, Event(self.now + seconds, self._number, what))

    def run(self) -> None:
        """Let everything happen."""
        while self._events:
            event = heapq.heappop(self._events)
            self.now = event.at
            event.what()


@dataclass
class Record:
    """What a search did."""

    workers: int
    trainings: list[tuple[float, float, int]] = field(default_factory=list)  # start, end, workers
    held: float = 0.0
    loads: int = 0
    last_new: float = 0.0
    end: float = 0.0

    def busy(self, until: float) -> float:
        """Return the share of the workers' time that was training."""
        trained = sum(
            max(0.0, min(end, until) - min(start, until)) * n for start, end, n in self.trainings
        )
        return trained / (self.workers * until)

    def summary(self) -> dict[str, float | None]:
        """Return the figures of the tables.

        There is nothing before the tail where every new configuration starts at once.
        """
        trained = sum((end - start) * n for start, end, n in self.trainings)
        return {
            "hours": self.end / 3600,
            "of_held": trained / self.held,
            "busy_before_tail": (
                self.busy(self.last_new) if self.last_new > self.trainings[0][0] else None
            ),
            "busy": self.busy(self.end),
            "loads": self.loads,
        }


class Search:
    """One search by jobs of a graph on so many workers."""

    def __init__(
        self, hpo: HpoConfig, costs: Costs, options: argparse.Namespace, workers: int, seed: int
    ) -> None:
        self.hpo, self.costs, self.options, self.workers = hpo, costs, options, workers
        self.clock, self.record = Clock(), Record(workers)
        self.dice = np.random.default_rng(seed)
        slots = dag.all_slots(hpo)
        self.waits = {slot: set(dag.parents_of(hpo, *slot)) for slot in slots}
        self.children: dict[dag.Slot, list[dag.Slot]] = {slot: [] for slot in slots}
        for slot, parents in self.waits.items():
            for parent in parents:
                self.children[parent].append(slot)
        self.ended: dict[
            tuple[int, int], list[tuple[float, float]]
        ] = {}  # (bracket, rung) -> heap of (loss, factor) not yet promoted
        self.queue: list[tuple[tuple[float, ...], dag.Slot]] = []
        self.free, self.lock_free_at, self.n_trials, self.submitted = workers, 0.0, 0, 0

    def run(self) -> Record:
        """Play the search to its end."""
        for slot, parents in self.waits.items():
            if not parents:
                self.submit(slot)
        self.start_jobs()
        self.clock.run()
        assert len(self.record.trainings) == len(self.waits), "a slot was never run"
        self.record.end = self.clock.now
        return self.record

    def submit(self, slot: dag.Slot) -> None:
        """Put a job into the queue: in order of submission, or the most often promoted first."""
        self.submitted += 1
        order = (
            (slot[0] - slot[1], self.submitted)
            if self.options.order == "deepest"
            else (self.submitted,)
        )
        heapq.heappush(self.queue, (order, slot))

    def ranks(self, rung: int) -> int:
        """Return the workers of a training; no more than there are."""
        return min(dag.ranks(self.hpo, rung), self.workers)

    def start_jobs(self) -> None:
        """Start jobs while the first in the queue finds enough free workers."""
        while self.queue and self.free >= self.ranks(self.queue[0][1][1]):
            _, slot = heapq.heappop(self.queue)
            self.free -= self.ranks(slot[1])
            if not dag.parents_of(self.hpo, *slot):
                self.record.last_new = self.clock.now
            started = self.clock.now
            self.clock.after(
                self.costs.start + self.costs.at("open", self.n_trials),
                partial(self.claim, slot, started),
            )

    def claim(self, slot: dag.Slot, started: float) -> None:
        """Wait for the claim's lock, hold it, choose, load."""
        self.lock_free_at = max(self.lock_free_at, self.clock.now) + self.costs.at(
            "claim", self.n_trials
        )
        self.n_trials += 1
        self.clock.after(self.lock_free_at - self.clock.now, lambda: self.train(slot, started))

    def train(self, slot: dag.Slot, started: float) -> None:
        """Train a new configuration or go on with a promoted one."""
        bracket, rung, _ = slot
        new = not dag.parents_of(self.hpo, *slot)
        if new:
            loss, factor, load, trained = (
                self.dice.random(),
                spread_factor(self.dice, self.options.spread),
                0.0,
                0.0,
            )
        else:
            loss, factor = heapq.heappop(self.ended[bracket, rung - 1])
            load, trained = self.costs.load, dag.budget(self.hpo, rung - 1)
            self.record.loads += 1
        ranks = self.ranks(rung)
        budget = (dag.budget(self.hpo, rung) - trained) / dag.budget(self.hpo, 0)
        seconds = (
            budget
            * self.options.first_rung_s
            * factor
            / (ranks * self.options.efficiency ** math.log2(ranks))
        )
        begin = self.clock.now + load
        self.record.trainings.append((begin, begin + seconds, ranks))
        self.clock.after(
            load + seconds + self.costs.at("finish", self.n_trials),
            lambda: self.end(slot, started, (loss, factor)),
        )

    def end(self, slot: dag.Slot, started: float, outcome: tuple[float, float]) -> None:
        """Free the workers.

        The workflow sees the job's end some time later and submits what has waited for it.
        """
        ranks = self.ranks(slot[1])
        self.free += ranks
        self.record.held += (self.clock.now - started) * ranks
        heapq.heappush(self.ended.setdefault(slot[:2], []), outcome)
        self.start_jobs()
        if self.children[slot]:
            self.clock.after(self.dice.uniform(0, self.options.reaction_s), lambda: self.seen(slot))

    def seen(self, slot: dag.Slot) -> None:
        """Submit the jobs that have waited for nothing else."""
        for child in self.children[slot]:
            self.waits[child].discard(slot)
            if not self.waits[child]:
                self.submit(child)
        self.start_jobs()


class Pool:
    """ASHA as published: workers as long-lived as the search."""

    def __init__(
        self, hpo: HpoConfig, costs: Costs, options: argparse.Namespace, workers: int, seed: int
    ) -> None:
        self.hpo, self.costs, self.options, self.workers = hpo, costs, options, workers
        self.clock, self.record, self.dice = Clock(), Record(workers), np.random.default_rng(seed)
        # (loss, factor) of what has ended there, best first
        self.rungs: list[list[tuple[float, float]]] = [[] for _ in range(RUNGS)]
        self.promoted: list[set[float]] = [set() for _ in range(RUNGS)]
        self.new, self.n_trials, self.lock_free_at = hpo.first_rung_slots, 0, 0.0
        self.idle: list[int] = []

    def run(self) -> Record:
        """Play the search to its end."""
        for worker in range(self.workers):
            self.clock.after(self.costs.start, partial(self.next_job, worker, None))
        self.clock.run()
        self.record.end = max(end for _, end, _ in self.record.trainings)
        self.record.held = self.workers * self.record.end
        return self.record

    def next_job(self, worker: int, just_ended: float | None) -> None:
        """Promote from the highest rung that can, else take a new configuration."""
        for rung in range(RUNGS - 2, -1, -1):
            ended = self.rungs[rung]
            chosen = next(
                (
                    entry
                    for entry in ended[: len(ended) // ETA]
                    if entry[0] not in self.promoted[rung]
                ),
                None,
            )
            if chosen is not None:
                self.promoted[rung].add(chosen[0])
                return self.train(worker, rung + 1, chosen, loads=chosen[0] != just_ended)
        if self.new:
            self.new -= 1
            self.record.last_new = self.clock.now
            return self.train(
                worker,
                0,
                (self.dice.random(), spread_factor(self.dice, self.options.spread)),
                loads=False,
            )
        self.idle.append(worker)
        return None

    def train(self, worker: int, rung: int, config: tuple[float, float], loads: bool) -> None:
        """Train a configuration to a rung's budget."""
        self.lock_free_at = max(self.lock_free_at, self.clock.now) + self.costs.at(
            "claim", self.n_trials
        )
        self.n_trials += 1
        self.record.loads += loads
        begin = self.lock_free_at + loads * self.costs.load
        budget = (
            dag.budget(self.hpo, rung) - (dag.budget(self.hpo, rung - 1) if rung else 0.0)
        ) / dag.budget(self.hpo, 0)
        end = begin + budget * self.options.first_rung_s * config[1]
        self.record.trainings.append((begin, end, 1))
        self.clock.after(
            end - self.clock.now + self.costs.at("finish", self.n_trials),
            lambda: self.end(worker, rung, config),
        )

    def end(self, worker: int, rung: int, config: tuple[float, float]) -> None:
        """Enter the result; who waits for work looks again."""
        bisect.insort(self.rungs[rung], config)
        self.next_job(worker, config[0])
        waiting, self.idle = self.idle, []
        for other in waiting:
            self.next_job(other, None)


def spread_factor(dice: np.random.Generator, spread: float) -> float:
    """Return how much longer than on average a configuration takes; mean 1."""
    return float(np.exp(dice.normal(-(spread**2) / 2, spread)))


def searches(options: argparse.Namespace, costs: Costs) -> Iterator[dict[str, Any]]:
    """Play every search with several seeds and yield the means of its figures."""
    for slots in options.slots:
        for name in (*SCHEDULERS, "pool"):
            scheduler = "asha" if name == "pool" else name
            hpo = HpoConfig(
                scheduler=scheduler, first_rung_slots=slots, eta=ETA, n_rungs=RUNGS, min_events=1000
            )
            for workers in options.workers:
                played = []
                for seed in range(options.seeds):
                    record = (Pool if name == "pool" else Search)(
                        hpo, costs, options, workers, seed
                    ).run()
                    played.append({"jobs": len(record.trainings), **record.summary()})
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


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw speed-up and busy share against workers, for the largest search."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    slots = max(row["slots"] for row in rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for name in (*SCHEDULERS, "pool"):
        own = [row for row in rows if (row["slots"], row["scheduler"]) == (slots, name)]
        workers = [row["workers"] for row in own]
        style = {
            "label": name,
            "marker": "o",
            "markersize": 3,
            "linestyle": "--" if name == "pool" else "-",
        }
        left.plot(
            workers, [own[0]["hours"] * own[0]["workers"] / row["hours"] for row in own], **style
        )
        right.plot(workers, [100 * row["busy"] for row in own], **style)
    left.plot(workers, workers, color="grey", linewidth=0.8, linestyle=":")
    left.set(xscale="log", yscale="log", xlabel="workers", ylabel=f"speed-up, {slots} slots")
    right.set(
        xscale="log", xlabel="workers", ylabel="busy workers until the result (%)", ylim=(0, 102)
    )
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, simulate, print."""
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
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()

    measured = study_costs(options.samplers)
    load, size_mb = checkpoint_seconds()
    costs = Costs(
        start=options.start_s,
        load=load,
        **lines_through([m for m in measured if m["sampler"] == options.samplers[0]]),
    )
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
    print(
        f"\nA checkpoint of {size_mb:.1f} MB is read in {load:.3f} s; a job's stage starts"
        f" {options.start_s:g} s after the job."
    )
    rows = list(searches(options, costs))
    print_tables(rows)
    if options.figure:
        draw(rows, options.figure)
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
