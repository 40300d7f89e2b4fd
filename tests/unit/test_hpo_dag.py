"""The static graph, and the promotion rule on it under random orders of starts, ends and failures."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from particleforge.config.hpo import HpoConfig
from particleforge.hpo import dag
from particleforge.hpo.promotion import promote
from particleforge.hpo.trials import SearchTrial, config_name, failed_fraction, succeeded


def test_budgets_and_slots_of_a_usual_search() -> None:
    hpo = HpoConfig(first_rung_slots=27, eta=3, n_rungs=4, min_steps=10)
    assert [dag.slots_of(hpo, 0, rung) for rung in range(4)] == [27, 9, 3, 1]
    assert [dag.budget_steps(hpo, rung) for rung in range(4)] == [10, 30, 90, 270]
    assert dag.parents_of(hpo, 0, 2, 1) == ((0, 1, 3), (0, 1, 4), (0, 1, 5))
    assert dag.parents_of(hpo, 0, 0, 5) == ()
    assert len(dag.all_slots(hpo)) == 40
    assert dag.schedule_steps(hpo) == 270


def test_without_scheduler_every_slot_has_the_full_budget() -> None:
    hpo = HpoConfig(scheduler="none", first_rung_slots=5, eta=3, n_rungs=3, min_steps=10)
    assert dag.all_slots(hpo) == tuple((0, 0, slot) for slot in range(5))
    assert dag.budget_steps(hpo, 0) == 90 == dag.schedule_steps(hpo)


@pytest.mark.parametrize("slots", range(9, 40))
def test_every_parent_exists(slots: int) -> None:
    hpo = HpoConfig(first_rung_slots=slots, eta=3, n_rungs=3, min_steps=1)
    known = set(dag.all_slots(hpo))
    assert all(parent in known for place in known for parent in dag.parents_of(hpo, *place))


def test_nothing_heavy_is_imported_for_the_graph() -> None:
    code = "import sys, particleforge.hpo.dag; print(sorted({'optuna', 'torch', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


class Cluster:
    """Slots that start and end in a random order; a slot may start once its parents have ended."""

    def __init__(self, hpo: HpoConfig, seed: int, failing: float) -> None:
        self.hpo, self.order, self.failing = hpo, random.Random(seed), failing
        self.trials: list[SearchTrial] = []
        self.empty: set[dag.Slot] = set()
        self.ended: set[dag.Slot] = set()
        self.waiting = set(dag.all_slots(hpo))

    def run(self) -> None:
        while self.waiting or any(not t.finished for t in self.trials):
            ready = sorted(s for s in self.waiting if all(p in self.ended for p in dag.parents_of(self.hpo, *s)))
            running = [t for t in self.trials if not t.finished]
            assert ready or running, "the graph is stuck"
            if ready and (not running or self.order.random() < 0.5):
                self._start(*self.order.choice(ready))
            else:
                self._end(self.order.choice(running))

    def _start(self, bracket: int, rung: int, slot: int) -> None:
        self.waiting.remove((bracket, rung, slot))
        parent = promote(self.hpo, 0, {}, self.trials, bracket, rung) if rung else None
        if rung and parent is None:
            self._check_empty(rung)
            self.empty.add((bracket, rung, slot))
            self.ended.add((bracket, rung, slot))
            return
        if parent is not None:
            self._check_promotion(parent, rung)
        config = parent.config if parent else config_name(bracket, slot)
        number = parent.number if parent else None
        self.trials.append(SearchTrial(len(self.trials), config, rung, slot, number, dag.budget_steps(self.hpo, rung), {}))

    def _check_empty(self, rung: int) -> None:
        promoted = {t.parent for t in self.trials if t.rung == rung}
        assert {t.number for t in succeeded(self.trials, rung - 1)} <= promoted
        assert self.failing, "without failures there is always a candidate"

    def _check_promotion(self, parent: SearchTrial, rung: int) -> None:
        assert parent.rung == rung - 1
        assert parent.steps * self.hpo.eta == dag.budget_steps(self.hpo, rung)
        below = succeeded(self.trials, rung - 1)
        if not self.failing:
            assert below.index(parent) < len(below) // self.hpo.eta, "promoted from outside the top 1/eta"

    def _end(self, trial: SearchTrial) -> None:
        failed = self.order.random() < self.failing
        value = None if failed else round(self.order.random(), 2)  # ties happen
        self.trials[trial.number] = replace(trial, status="failed" if failed else "complete", value=value)
        self.ended.add(trial.place)


@pytest.mark.parametrize("failing", [0.0, 0.15, 0.6])
@pytest.mark.parametrize(("slots", "eta", "rungs"), [(9, 3, 3), (8, 2, 4), (13, 3, 2), (32, 2, 3)])
def test_promotions_hold_in_any_order(slots: int, eta: int, rungs: int, failing: float) -> None:
    hpo = HpoConfig(first_rung_slots=slots, eta=eta, n_rungs=rungs, min_steps=4)
    for seed in range(25):
        cluster = Cluster(hpo, seed, failing)
        cluster.run()
        for rung in range(rungs):
            configs = [t.config for t in cluster.trials if t.rung == rung]
            assert len(configs) == len(set(configs)), "a configuration is twice in a rung"
            assert len(configs) + sum(r == rung for _, r, _ in cluster.empty) == dag.slots_of(hpo, 0, rung)
        if not failing:
            assert not cluster.empty


def test_ties_go_by_name_and_failures_are_passed_over() -> None:
    def ended(number: int, value: float | None) -> SearchTrial:
        return SearchTrial(number, f"{9 - number:05d}", 0, number, None, 4, {}, "failed" if value is None else "complete", value)

    trials = [ended(0, 0.5), ended(1, 0.2), ended(2, 0.2), ended(3, None)]
    assert [t.number for t in succeeded(trials, 0)] == [2, 1, 0]
    assert failed_fraction(trials) == 0.25
    running = SearchTrial(4, "00007", 1, 0, 2, 8, {})
    best = promote(HpoConfig(), 0, {}, [*trials, running], 0, 1)
    assert best is not None
    assert best.number == 1
