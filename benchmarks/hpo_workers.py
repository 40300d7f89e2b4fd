"""The discrete-event simulation behind ``hpo_scaling.py``: searches played on so many workers.

Inputs -> outputs: the settings of a search, measured costs, the options of the benchmark, workers,
seed -> ``Played``.
"""

import argparse
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from hpo_costs import Costs

from particleforge.config.hpo import HpoConfig
from particleforge.hpo import dag

RUNGS, ETA = 4, 3


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
class Played:
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
        self.clock, self.played = Clock(), Played(workers)
        self.dice = np.random.default_rng(seed)
        slots = dag.all_slots(hpo)
        self.waits = {slot: set(dag.parents_of(hpo, *slot)) for slot in slots}
        self.children: dict[dag.Slot, list[dag.Slot]] = {slot: [] for slot in slots}
        for slot, parents in self.waits.items():
            for parent in parents:
                self.children[parent].append(slot)
        # rung -> heap of (loss, factor) not yet promoted
        self.ended: dict[int, list[tuple[float, float]]] = {}
        self.queue: list[tuple[tuple[float, ...], dag.Slot]] = []
        self.free, self.lock_free_at, self.n_trials, self.submitted = workers, 0.0, 0, 0

    def run(self) -> Played:
        """Play the search to its end."""
        for slot, parents in self.waits.items():
            if not parents:
                self.submit(slot)
        self.start_jobs()
        self.clock.run()
        assert len(self.played.trainings) == len(self.waits), "a slot was never run"
        self.played.end = self.clock.now
        return self.played

    def submit(self, slot: dag.Slot) -> None:
        """Put a job into the queue: in order of submission, or the most often promoted first."""
        self.submitted += 1
        order = (-slot[0], self.submitted) if self.options.order == "deepest" else (self.submitted,)
        heapq.heappush(self.queue, (order, slot))

    def ranks(self, rung: int) -> int:
        """Return the workers of a training; no more than there are."""
        return min(dag.ranks(self.hpo, rung), self.workers)

    def start_jobs(self) -> None:
        """Start jobs while the first in the queue finds enough free workers."""
        while self.queue and self.free >= self.ranks(self.queue[0][1][0]):
            _, slot = heapq.heappop(self.queue)
            self.free -= self.ranks(slot[0])
            if not dag.parents_of(self.hpo, *slot):
                self.played.last_new = self.clock.now
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
        rung, _ = slot
        new = not rung
        if new:
            loss = self.dice.random()
            factor = spread_factor(self.dice, self.options.spread)
            load = 0.0
            trained = 0.0
        else:
            loss, factor = heapq.heappop(self.ended[rung - 1])
            load, trained = self.costs.load, dag.budget(self.hpo, rung - 1)
            self.played.loads += 1
        ranks = self.ranks(rung)
        budget = (dag.budget(self.hpo, rung) - trained) / dag.budget(self.hpo, 0)
        seconds = (
            budget
            * self.options.first_rung_s
            * factor
            / (ranks * self.options.efficiency ** math.log2(ranks))
        )
        begin = self.clock.now + load
        self.played.trainings.append((begin, begin + seconds, ranks))
        self.clock.after(
            load + seconds + self.costs.at("finish", self.n_trials),
            lambda: self.end(slot, started, (loss, factor)),
        )

    def end(self, slot: dag.Slot, started: float, outcome: tuple[float, float]) -> None:
        """Free the workers.

        The workflow sees the job's end some time later and submits what has waited for it.
        """
        ranks = self.ranks(slot[0])
        self.free += ranks
        self.played.held += (self.clock.now - started) * ranks
        heapq.heappush(self.ended.setdefault(slot[0], []), outcome)
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


def spread_factor(dice: np.random.Generator, spread: float) -> float:
    """Return how much longer than on average a configuration takes; mean 1."""
    return float(np.exp(dice.normal(-(spread**2) / 2, spread)))
