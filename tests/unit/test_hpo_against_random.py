"""What a search bought against random search in as many hours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from particleforge.config.hpo import HpoConfig
from particleforge.hpo.against_random import compare_with_random, lowest_in_hours
from particleforge.hpo.trials import SearchTrial, config_name

NONE = HpoConfig(scheduler="none", n_rungs=1, first_rung_slots=4, min_steps=10)
ASHA = HpoConfig(eta=2, n_rungs=3, first_rung_slots=8, min_steps=10, include_default=False)
HOUR = 3600.0
POSITIVE = st.floats(0.1, 10)


def trial(config: int, rung: int, value: float | None, hours: float) -> SearchTrial:
    status = "complete" if value is not None else "failed"
    return SearchTrial(
        *(0, config_name(config), rung, 0, None, 10, {}, status, value), seconds=hours * HOUR
    )


def test_random_search_without_a_scheduler_is_no_estimate() -> None:
    trials = [trial(k, 0, value, 1.0) for k, value in enumerate((0.5, 0.9, 0.7, 0.8))]
    found = compare_with_random(trials, trials[0], NONE)
    assert (found.rank_hours, found.estimated) == (4.0, False)
    assert found.random_value == pytest.approx(0.7), "c00000 is as configured"
    assert found.relative_change == pytest.approx(0.5 / 0.7 - 1)


def test_what_was_stopped_early_falls_as_what_went_on() -> None:
    last = {1: 2, 2: 1, 3: 1, 4: 1, 5: 0, 6: 0, 7: 0, 8: 0}  # the last rung of each
    trials = [
        trial(c, rung, (1 + 0.1 * c) * 0.5**rung, 1.0 if rung < 2 else 2.0)
        for c, top in last.items()
        for rung in range(top + 1)
    ]
    winner = next(t for t in trials if t.rung == 2)
    found = compare_with_random(trials, winner, ASHA)
    # 4 hours for each full training, and 14 of the search: three trainings and half of a fourth
    finals = 0.25 * (1 + 0.1 * np.arange(1, 9))
    assert found.rank_hours == 14.0
    means = [lowest_in_hours(np.ones(8), finals, n) for n in (3, 4)]
    assert found.random_value == pytest.approx(np.mean(means), rel=0.01)
    assert found.estimated


def test_failures_cost_their_hours_and_find_nothing() -> None:
    trials = [trial(0, 0, 0.9, 1.0), trial(1, 0, 0.5, 1.0), trial(2, 0, None, 2.0)]
    found = compare_with_random(trials, trials[1], NONE)
    assert found.random_value == 0.5
    assert lowest_in_hours(np.array([1.0, 2.0]), np.array([0.5, np.nan]), 1.0) == 0.5
    none = compare_with_random([trial(0, 0, 0.9, 1.0), trial(1, 0, None, 1.0)], trials[0], NONE)
    assert none.reason == "the search took less time than one full training"
    alone = [trial(0, 0, 0.9, 1.0)]
    assert compare_with_random(alone, alone[0], NONE).reason == (
        "nothing but the configured settings was trained"
    )
    below = trial(1, 1, 0.5, 1.0)
    assert compare_with_random([below], below, ASHA).reason == (
        "the chosen trial was not trained to the full budget"
    )


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=6), st.floats(0.5, 3))
def test_more_hours_find_no_more_loss(trainings: list[tuple[float, float]], factor: float) -> None:
    hours, losses = np.array(trainings).T
    enough = hours.max()  # for one of them, whichever it is
    found = [lowest_in_hours(hours, losses, enough * scale) for scale in (1, 1 + factor, 100)]
    assert losses.max() + 1e-9 >= found[0] >= found[1] - 1e-9
    assert found[1] >= found[2] - 1e-9
    assert found[2] == pytest.approx(losses.min())
