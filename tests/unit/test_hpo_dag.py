"""The static graph of every scheduler, and promotions on it under random orders of starts, ends,
failures and kills.
"""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from particleforge.config.hpo import HpoConfig
from particleforge.hpo import dag
from particleforge.hpo.trials import (
    SearchTrial,
    config_name,
    contenders,
    failed_fraction,
    succeeded,
)


def test_budgets_and_slots_of_a_usual_search() -> None:
    hpo = HpoConfig(scheduler="asha", first_rung_slots=27, eta=3, n_rungs=4, min_steps=10)
    assert [dag.slots_of(hpo, 0, rung) for rung in range(4)] == [27, 9, 3, 1]
    assert [dag.budget_steps(hpo, rung) for rung in range(4)] == [10, 30, 90, 270]
    assert dag.parents_of(hpo, 0, 2, 1) == ((0, 1, 3), (0, 1, 4), (0, 1, 5), (0, 1, 6), (0, 1, 7))
    assert dag.parents_of(hpo, 0, 2, 2) == ((0, 1, 6), (0, 1, 7), (0, 1, 8))
    assert dag.parents_of(hpo, 0, 0, 5) == ()
    assert len(dag.all_slots(hpo)) == 40
    assert dag.schedule_steps(hpo) == 270


def test_without_scheduler_every_slot_has_the_full_budget() -> None:
    hpo = HpoConfig(scheduler="none", first_rung_slots=5, eta=3, n_rungs=3, min_steps=10)
    assert dag.all_slots(hpo) == tuple((0, 0, slot) for slot in range(5))
    assert dag.budget_steps(hpo, 0) == 90 == dag.schedule_steps(hpo)


def test_nothing_heavy_is_imported_for_the_graph() -> None:
    code = (
        "import sys, particleforge.hpo.dag; print(sorted({'optuna', 'torch', 'numpy', 'pandas',"
        " 'matplotlib'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "[]"


def test_brackets_of_hyperband_have_the_slots_of_the_paper_and_like_costs() -> None:
    """Table 1 of arXiv:1603.06560: eta = 3, 81 units at most.

    The paper's first bracket is ours, too.
    """
    hpo = HpoConfig(scheduler="hyperband", first_rung_slots=81, eta=3, n_rungs=5, min_steps=1)
    found = [
        [(dag.slots_of(hpo, s, r), dag.budget_steps(hpo, r)) for r in dag.rungs_of(hpo, s)]
        for s in range(dag.n_brackets(hpo))
    ]
    assert found == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    costs = [sum(slots * steps for slots, steps in bracket) for bracket in found]
    assert max(costs) < 1.5 * min(costs)
    assert dag.parents_of(hpo, 1, 2, 10) == ((1, 1, 30), (1, 1, 31), (1, 1, 32), (1, 1, 33))
    assert dag.parents_of(hpo, 2, 4, 0) == tuple((2, 3, slot) for slot in range(5))
    assert dag.parents_of(hpo, 1, 1, 3) == ()
    assert dag.n_brackets(hpo.model_copy(update={"n_brackets": 2})) == 2


def test_promotions_start_first_and_new_configurations_from_small_budgets_on() -> None:
    hpo = HpoConfig(
        scheduler="hyperband", first_rung_slots=9, eta=3, n_rungs=3, min_steps=1, n_brackets=2
    )
    assert [(b, r) for b, r, slot in dag.starting_order(hpo) if slot == 0] == [
        (0, 2),
        (0, 1),
        (1, 2),
        (0, 0),
        (1, 1),
    ]
    assert [place for place in dag.starting_order(hpo) if place[:2] == (0, 0)] == [
        (0, 0, slot) for slot in range(9)
    ]
    assert sorted(dag.starting_order(hpo)) == sorted(dag.all_slots(hpo))


def test_successive_halving_waits_for_the_whole_rung_below() -> None:
    hpo = HpoConfig(scheduler="sha", first_rung_slots=10, eta=3, n_rungs=3, min_steps=1)
    assert dag.parents_of(hpo, 0, 1, 2) == tuple((0, 0, slot) for slot in range(10))
    assert dag.parents_of(hpo, 0, 2, 0) == ((0, 1, 0), (0, 1, 1), (0, 1, 2))


def test_workers_and_batch_grow_with_rasda_only() -> None:
    shape = {"first_rung_slots": 8, "eta": 2, "n_rungs": 4, "min_steps": 1, "ranks": 3}
    assert [dag.ranks(HpoConfig(scheduler="rasda", **shape), rung) for rung in range(4)] == [
        3,
        6,
        12,
        24,
    ]
    assert [
        dag.ranks(HpoConfig(scheduler="rasda", ranks_factor=3, **shape), rung) for rung in range(3)
    ] == [3, 9, 27]
    assert [dag.ranks(HpoConfig(scheduler="asha", **shape), rung) for rung in range(4)] == [3] * 4


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (
            {"min_steps": 10, "min_events": 5},
            "hpo.min_steps = 10 and hpo.min_events = 5 are given; keep one of them",
        ),
        (
            {"scheduler": "hyperband", "first_rung_slots": 8},
            "hpo.first_rung_slots = 8 leaves rung 2 without a slot; need at least .* = 9",
        ),
        (
            {"scheduler": "sha", "eta": 4, "first_rung_slots": 15},
            "hpo.first_rung_slots = 15 leaves rung 2 .* = 16",
        ),
        (
            {"scheduler": "hyperband", "n_brackets": 4},
            "hpo.n_brackets = 4 leaves bracket 3 without a rung; at most n_rungs = 3",
        ),
        (
            {"min_epochs": 0.5, "schedule_steps": 50},
            "hpo.schedule_steps = 50, but budgets are in epochs; give schedule_rungs",
        ),
        ({"schedule_rungs": 2}, "hpo.schedule_rungs = 2 must be at least n_rungs = 3"),
    ],
)
def test_shapes_that_cannot_be_are_refused_with_one_line(block: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as refused:
        HpoConfig(**block)
    assert len(refused.value.errors()) == 1


def test_a_schedule_may_span_rungs_that_are_added_later() -> None:
    shape = {"first_rung_slots": 8, "eta": 2, "n_rungs": 2, "schedule_rungs": 4}
    assert dag.schedule_steps(HpoConfig(min_steps=5, **shape)) == 40
    assert dag.schedule_budget(HpoConfig(min_epochs=0.5, **shape)) == 4
    assert HpoConfig(min_events=7, **shape).budget_unit == "events"
    assert HpoConfig().min_budget == HpoConfig(**HpoConfig().model_dump()).min_steps == 100


SCHEDULERS = ("asha", "sha", "hyperband", "rasda", "none")


@st.composite
def searches(draw: st.DrawFn, **fixed: Any) -> HpoConfig:
    eta, n_rungs = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    least = eta ** (n_rungs - 1)
    shape = {
        "scheduler": draw(st.sampled_from(SCHEDULERS)),
        "eta": eta,
        "n_rungs": n_rungs,
        "first_rung_slots": draw(st.integers(least, max(12, 2 * least))),
        "n_brackets": draw(st.one_of(st.none(), st.integers(1, n_rungs))),
    }
    return HpoConfig(**{**shape, "min_steps": draw(st.integers(1, 9)), **fixed})


@given(searches())
@settings(max_examples=60, deadline=None)
def test_the_graph_has_no_circle_and_every_parent_exists(hpo: HpoConfig) -> None:
    graph = {place: dag.parents_of(hpo, *place) for place in dag.all_slots(hpo)}
    assert len(graph) == len(dag.all_slots(hpo))
    tuple(TopologicalSorter(graph).static_order())  # a CycleError otherwise
    assert {parent for parents in graph.values() for parent in parents} <= set(graph)
    for bracket in range(dag.n_brackets(hpo)):
        assert all(dag.slots_of(hpo, bracket, rung) >= 1 for rung in dag.rungs_of(hpo, bracket))


@given(searches())
@settings(max_examples=60, deadline=None)
def test_every_trial_has_ended_before_the_last_slot_above_it_promotes(hpo: HpoConfig) -> None:
    """Whatever the number of slots: one that nobody waited for might end after the last promotion,
    however good it is.
    """
    for bracket in range(dag.n_brackets(hpo)):
        for rung in dag.rungs_of(hpo, bracket)[1:]:
            above = range(dag.slots_of(hpo, bracket, rung))
            awaited = {
                place for slot in above for place in dag.parents_of(hpo, bracket, rung, slot)
            }
            assert awaited == {
                (bracket, rung - 1, slot) for slot in range(dag.slots_of(hpo, bracket, rung - 1))
            }
            if hpo.scheduler != "sha":
                assert all(
                    hpo.eta <= len(dag.parents_of(hpo, bracket, rung, slot)) < 2 * hpo.eta
                    for slot in above
                )


@given(searches(), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_more_first_slots_leave_the_slots_that_there_were(hpo: HpoConfig, more: int) -> None:
    """A search grows: no slot goes, and none waits for less than before."""
    larger = hpo.model_copy(update={"first_rung_slots": hpo.first_rung_slots + more})
    assert set(dag.all_slots(hpo)) <= set(dag.all_slots(larger))
    assert all(
        set(dag.parents_of(hpo, *place)) <= set(dag.parents_of(larger, *place))
        for place in dag.all_slots(hpo)
    )


class Cluster:
    """Slots that start, end, fail and are killed in a random order.

    A slot may start once its parents have ended.

    A killed job leaves its trial running, and its slot starts again.
    """

    def __init__(self, hpo: HpoConfig, seed: int, failing: float, killing: float = 0.0) -> None:
        self.hpo, self.order = hpo, random.Random(seed)
        self.failing, self.killing = failing, killing
        self.trials: list[SearchTrial] = []
        self.empty: set[dag.Slot] = set()
        self.ended: set[dag.Slot] = set()
        self.running: list[dag.Slot] = []
        self.waiting = set(dag.all_slots(hpo))

    def run(self) -> None:
        while self.waiting or self.running:
            ready = sorted(
                place
                for place in self.waiting
                if all(p in self.ended for p in dag.parents_of(self.hpo, *place))
            )
            assert ready or self.running, "the graph is stuck"
            if ready and (not self.running or self.order.random() < 0.5):
                self._start(self.order.choice(ready))
            elif self.order.random() < self.killing:
                self._kill(self.order.choice(self.running))
            else:
                self._end(self.order.choice(self.running))

    def _claim(self, place: dag.Slot) -> SearchTrial | None:
        """Return the slot's trial as the study does: what there is, or a new one, or None."""
        known = next((t for t in self.trials if t.slot_id == place), None)
        bracket, rung, slot = place
        if known is not None:
            return known
        if rung == dag.rungs_of(self.hpo, bracket).start:
            config, number = config_name(bracket, slot), None
        else:
            parent = next(iter(contenders(self.trials, bracket, rung)), None)
            if parent is None:
                return None
            self._check_promotion(parent, bracket, rung)
            config, number = parent.config, parent.number
        steps = dag.budget_steps(self.hpo, rung)
        self.trials.append(
            SearchTrial(len(self.trials), config, rung, slot, number, steps, {}, bracket=bracket)
        )
        return self.trials[-1]

    def _start(self, place: dag.Slot) -> None:
        self.waiting.remove(place)
        if self._claim(place) is not None:
            self.running.append(place)
            return
        assert self.failing, "without failures there is always a contender"
        self.empty.add(place)
        self.ended.add(place)

    def _check_promotion(self, parent: SearchTrial, bracket: int, rung: int) -> None:
        assert (parent.bracket, parent.rung) == (bracket, rung - 1)
        assert parent.steps * self.hpo.eta == dag.budget_steps(self.hpo, rung)
        below = succeeded([t for t in self.trials if t.bracket == bracket], rung - 1)
        if not self.failing:
            assert below.index(parent) < len(below) // self.hpo.eta, (
                "promoted from outside the top 1/eta"
            )
        if not self.failing and self.hpo.scheduler == "sha":
            assert len(below) == dag.slots_of(self.hpo, bracket, rung - 1), (
                "promoted before the rung below had ended"
            )

    def _kill(self, place: dag.Slot) -> None:
        self.running.remove(place)
        self.waiting.add(place)

    def _end(self, place: dag.Slot) -> None:
        trial = self._claim(place)
        assert trial is not None
        self.running.remove(place)
        failed = self.order.random() < self.failing
        value = None if failed else round(self.order.random(), 2)  # ties happen
        self.trials[trial.number] = replace(
            trial, status="failed" if failed else "complete", value=value
        )
        self.ended.add(place)


@given(
    searches(),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.15, 0.6]),
    st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=60, deadline=None)
def test_promises_hold_in_any_order(
    hpo: HpoConfig, seed: int, failing: float, killing: float
) -> None:
    cluster = Cluster(hpo, seed, failing, killing)
    cluster.run()
    assert max(Counter((t.config, t.rung) for t in cluster.trials).values()) == 1, (
        "a configuration is twice in a rung"
    )
    assert (
        max(Counter(t.parent for t in cluster.trials if t.parent is not None).values(), default=1)
        == 1
    ), "a trial is promoted twice"
    assert Counter([*(t.slot_id for t in cluster.trials), *cluster.empty]) == Counter(
        dag.all_slots(hpo)
    ), "a slot is lost or made twice"
    assert all(t.finished and t.steps == dag.budget_steps(hpo, t.rung) for t in cluster.trials)
    assert failing or not cluster.empty


@given(searches(scheduler="sha"), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_with_barriers_the_best_are_promoted_whatever_the_order(hpo: HpoConfig, seed: int) -> None:
    cluster = Cluster(hpo, seed, failing=0.0, killing=0.2)
    cluster.run()
    for rung in range(1, hpo.n_rungs):
        best = [t.config for t in succeeded(cluster.trials, rung - 1)[: dag.slots_of(hpo, 0, rung)]]
        assert sorted(t.config for t in cluster.trials if t.rung == rung) == sorted(best)


def test_ties_go_by_name_and_failures_are_passed_over() -> None:
    def ended(number: int, value: float | None) -> SearchTrial:
        return SearchTrial(
            number,
            f"{9 - number:05d}",
            0,
            number,
            None,
            4,
            {},
            "failed" if value is None else "complete",
            value,
        )

    trials = [ended(0, 0.5), ended(1, 0.2), ended(2, 0.2), ended(3, None)]
    assert [t.number for t in succeeded(trials, 0)] == [2, 1, 0]
    assert failed_fraction(trials) == 0.25
    running = SearchTrial(4, "00007", 1, 0, 2, 8, {})
    assert [t.number for t in contenders([*trials, running], 0, 1)] == [1, 0]
