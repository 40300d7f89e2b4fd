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
    assert [dag.slots_of(hpo, rung) for rung in range(4)] == [27, 9, 3, 1]
    assert [dag.budget_steps(hpo, rung) for rung in range(4)] == [10, 30, 90, 270]
    assert dag.parents_of(hpo, 2, 1) == ((1, 3), (1, 4), (1, 5), (1, 6), (1, 7))
    assert dag.parents_of(hpo, 2, 2) == ((1, 6), (1, 7), (1, 8))
    assert dag.parents_of(hpo, 0, 5) == ()
    assert len(dag.all_slots(hpo)) == 40
    assert dag.schedule_steps(hpo) == 270


def test_without_scheduler_every_slot_has_the_full_budget() -> None:
    hpo = HpoConfig(scheduler="none", first_rung_slots=5, eta=3, n_rungs=3, min_steps=10)
    assert dag.all_slots(hpo) == tuple((0, slot) for slot in range(5))
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


def test_promotions_start_first_the_largest_budgets_before_others() -> None:
    hpo = HpoConfig(first_rung_slots=9, eta=3, n_rungs=3, min_steps=1)
    assert dag.starting_order(hpo) == (
        (2, 0),
        *((1, slot) for slot in range(3)),
        *((0, slot) for slot in range(9)),
    )
    assert sorted(dag.starting_order(hpo)) == sorted(dag.all_slots(hpo))


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
            {"first_rung_slots": 8},
            "hpo.first_rung_slots = 8 leaves rung 2 without a slot; need at least .* = 49",
        ),
        (
            {"scheduler": "rasda", "eta": 4, "first_rung_slots": 15},
            "hpo.first_rung_slots = 15 leaves rung 2 .* = 16",
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


SCHEDULERS = ("asha", "rasda", "none")


@st.composite
def searches(draw: st.DrawFn, **fixed: Any) -> HpoConfig:
    eta, n_rungs = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    least = eta ** (n_rungs - 1)
    shape = {
        "scheduler": draw(st.sampled_from(SCHEDULERS)),
        "eta": eta,
        "n_rungs": n_rungs,
        "first_rung_slots": draw(st.integers(least, max(12, 2 * least))),
    }
    return HpoConfig(**{**shape, "min_steps": draw(st.integers(1, 9)), **fixed})


@given(searches())
@settings(max_examples=60, deadline=None)
def test_the_graph_has_no_circle_and_every_parent_exists(hpo: HpoConfig) -> None:
    graph = {place: dag.parents_of(hpo, *place) for place in dag.all_slots(hpo)}
    assert len(graph) == len(dag.all_slots(hpo))
    tuple(TopologicalSorter(graph).static_order())  # a CycleError otherwise
    assert {parent for parents in graph.values() for parent in parents} <= set(graph)
    assert all(dag.slots_of(hpo, rung) >= 1 for rung in range(dag.n_rungs(hpo)))


@given(searches())
@settings(max_examples=60, deadline=None)
def test_every_trial_has_ended_before_the_last_slot_above_it_promotes(hpo: HpoConfig) -> None:
    """Whatever the number of slots: one that nobody waited for might end after the last promotion,
    however good it is.
    """
    for rung in range(1, dag.n_rungs(hpo)):
        waits = [dag.parents_of(hpo, rung, slot) for slot in range(dag.slots_of(hpo, rung))]
        below = {(rung - 1, slot) for slot in range(dag.slots_of(hpo, rung - 1))}
        assert {place for parents in waits for place in parents} == below
        assert all(hpo.eta <= len(parents) < 2 * hpo.eta for parents in waits)


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
        rung, slot = place
        if known is not None:
            return known
        if not rung:
            config, number = config_name(slot), None
        else:
            parent = next(iter(contenders(self.trials, rung)), None)
            if parent is None:
                return None
            self._check_promotion(parent, rung)
            config, number = parent.config, parent.number
        steps = dag.budget_steps(self.hpo, rung)
        self.trials.append(SearchTrial(len(self.trials), config, rung, slot, number, steps, {}))
        return self.trials[-1]

    def _start(self, place: dag.Slot) -> None:
        self.waiting.remove(place)
        if self._claim(place) is not None:
            self.running.append(place)
            return
        assert self.failing, "without failures there is always a contender"
        self.empty.add(place)
        self.ended.add(place)

    def _check_promotion(self, parent: SearchTrial, rung: int) -> None:
        assert parent.rung == rung - 1
        assert parent.steps * self.hpo.eta == dag.budget_steps(self.hpo, rung)
        below = succeeded(self.trials, rung - 1)
        if not self.failing:
            assert below.index(parent) < len(below) // self.hpo.eta, (
                "promoted from outside the top 1/eta"
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
    assert [t.number for t in contenders([*trials, running], 1)] == [1, 0]
