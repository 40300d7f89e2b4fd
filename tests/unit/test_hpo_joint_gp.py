"""The joint model of configurations and budgets: exact, not misled by low rungs, fair to failures,
quick.
"""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from particleforge.config.hpo import HpoConfig
from particleforge.config.space import ParameterConfig
from particleforge.hpo.joint_gp import most_promising, sample_joint_gp, standardised
from particleforge.hpo.promotion import promote
from particleforge.hpo.proposals import Request
from particleforge.hpo.surrogate import JointGP, _loss, _Prior, _same, expected_improvement
from particleforge.hpo.trials import SearchTrial

SPACE = {
    "speed": {"type": "float", "low": 0.0, "high": 1.0},
    "other": {"type": "float", "low": 0.0, "high": 1.0},
}
CENTRE = {"speed": 0.5, "other": 0.5}
SHARES = (1 / 9, 1 / 3, 1.0)


def settings(**changes: Any) -> HpoConfig:
    shape = {
        "scheduler": "asha",
        "first_rung_slots": 27,
        "n_rungs": 3,
        "min_steps": 10,
        "include_default": False,
    }
    return HpoConfig(**{**shape, **changes}).model_copy(
        update={"space": {name: ParameterConfig(**p) for name, p in SPACE.items()}}
    )


def crossing(speed: float, share: float) -> float:
    """Fast learners are ahead until a third of the budget and end worse."""
    return 0.2 + 0.3 * speed + (1 - speed) * 0.4 * (share**-0.7 - 1)


def trials_of(
    points: list[tuple[float, float]], promoted: int, failing_above: float = 2.0
) -> list[SearchTrial]:
    """Return a first rung of these points, of which the first few have gone on to the top."""
    found: list[SearchTrial] = []
    for slot, (speed, other) in enumerate(points):
        parent = None
        for rung in range(3 if slot < promoted else 1):
            ok = speed < failing_above
            status = "complete" if ok else "diverged"
            value = crossing(speed, SHARES[rung]) if ok else None
            params = {"speed": speed, "other": other}
            number = len(found)
            found.append(
                SearchTrial(
                    number,
                    f"0-{slot:05d}",
                    rung,
                    slot,
                    parent,
                    10 * 3**rung,
                    params,
                    status=status,
                    value=value,
                )  # type: ignore[arg-type]
            )
            parent = number
            if not ok:
                break
    return found


def points(n: int, seed: int = 1) -> list[tuple[float, float]]:
    return [tuple(row) for row in np.random.default_rng(seed).random((n, 2))]


def test_the_gradient_of_the_density_is_exact() -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.random((20, 3))] * 2)[:30]
    budget, y, same = rng.choice(SHARES, 30), rng.standard_normal(30), _same(x, x)
    assert same.sum() == 30 + 2 * 10
    prior = _Prior.of(3)
    hyper = prior.mean + 0.3 * rng.standard_normal(prior.mean.size)
    numeric = approx_fprime(hyper, lambda at: _loss(at, x, budget, y, same, prior)[0], 1e-6)
    assert _loss(hyper, x, budget, y, same, prior)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_what_was_seen_at_the_full_budget_is_predicted_and_what_is_far_is_uncertain() -> None:
    x = np.random.default_rng(0).random((25, 2))
    model = JointGP.fit(x, np.ones(25), np.sin(5 * x[:, 0]), np.random.default_rng(0))
    mean, deviation = model.predict(x)
    assert mean == pytest.approx(np.sin(5 * x[:, 0]), abs=0.1)
    far = model.predict(np.array([[3.0, 3.0]]))[1]
    assert far > 5 * deviation.max()


def test_what_a_training_showed_counts_for_itself_where_neighbours_tell_nothing() -> None:
    rng = np.random.default_rng(4)
    x, ends = rng.random((40, 5)), rng.standard_normal(40)
    low, top = np.full(40, SHARES[0]), np.ones(12)
    y = np.concatenate([ends + 1, ends[:12]]) + 0.1 * rng.standard_normal(52)
    model = JointGP.fit(np.concatenate([x, x[:12]]), np.concatenate([low, top]), y, rng)
    seen, deviation = model.predict(x[12:])
    assert np.corrcoef(seen, ends[12:])[0, 1] > 0.9
    new, doubt = model.predict(rng.random((28, 5)))
    assert new.std() < 0.5 * seen.std()
    assert doubt.min() > 1.5 * deviation.max()


@pytest.mark.parametrize(("times", "error"), [(3.0, 0.01), (-0.5, 0.35)])
def test_losses_at_low_budgets_may_spread_more_or_the_other_way_round(
    times: float, error: float
) -> None:
    rng = np.random.default_rng(5)
    x = rng.random((40, 3))
    ends = np.sin(3 * x[:, 0]) + x[:, 1] - 1
    model = JointGP.fit(
        np.concatenate([x, x[:8]]),
        np.repeat([SHARES[0], 1.0], [40, 8]),
        np.concatenate([times * ends, ends[:8]]),
        rng,
    )
    mean, _ = model.predict(x[8:])
    assert mean == pytest.approx(ends[8:], abs=error)


def test_expected_improvement_is_that_of_a_sample() -> None:
    drawn = np.random.default_rng(0).normal(0.3, 0.5, 1_000_000)
    gain = expected_improvement(np.array([0.3]), np.array([0.5]), 0.1)
    assert gain[0] == pytest.approx(np.maximum(0.1 - drawn, 0).mean(), rel=0.01)


def test_what_is_expected_adds_no_improvement_where_it_lies() -> None:
    x = np.random.default_rng(0).random((10, 2))
    model = JointGP.fit(x, np.ones(10), x[:, 0], np.random.default_rng(0))
    pending = np.array([[0.05, 0.9]])
    before, after = model.predict(pending), model.expecting(pending).predict(pending)
    assert after[0] == pytest.approx(before[0], abs=1e-6)
    assert after[1] < 0.5 * before[1]


def test_a_slow_learner_is_promoted_where_curves_cross() -> None:
    trials = trials_of(points(18), promoted=5)
    best = max((t for t in trials if t.rung == 0), key=lambda t: -t.loss)
    assert promote(settings(promotion="measured"), 0, CENTRE, trials, 0, 1).params["speed"] > 0.7  # type: ignore[union-attr]
    assert best.params["speed"] > 0.7
    assert promote(settings(), 0, CENTRE, trials, 0, 1).params["speed"] < 0.3  # type: ignore[union-attr]


def test_proposals_go_where_curves_end_low() -> None:
    trials = trials_of(points(18), promoted=5)
    proposed = next(sample_joint_gp(Request(settings(), 0, 0, 18, CENTRE, trials)))
    assert proposed["speed"] < 0.2


def test_nothing_is_promoted_twice_and_a_lone_contender_needs_no_model() -> None:
    trials = trials_of(points(3), promoted=3)
    assert promote(settings(), 0, CENTRE, trials, 0, 1) is None
    only = trials_of(points(1), promoted=0)
    assert most_promising(settings(), CENTRE, only, only, np.random.default_rng(0)) is only[0]


def test_configurations_that_fail_are_avoided_though_their_neighbours_are_the_best() -> None:
    """The lower the other way round: losses fall with speed here, until trainings diverge."""
    trials = [
        SearchTrial(
            number,
            f"0-{number:05d}",
            0,
            number,
            None,
            10,
            {"speed": speed, "other": other},
            status="complete" if speed < 0.6 else "diverged",
            value=1 - speed if speed < 0.6 else None,
        )
        for number, (speed, other) in enumerate(points(40, seed=2))
    ]
    proposed = next(sample_joint_gp(Request(settings(n_rungs=1), 0, 0, 40, CENTRE, trials)))
    assert 0.4 < proposed["speed"] < 0.65


def test_outliers_do_not_set_the_scale() -> None:
    losses = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1e6])
    scaled = standardised(losses)
    assert np.argsort(scaled).tolist() == list(range(6))
    assert scaled[4] - scaled[0] > 0.05 * (scaled[5] - scaled[0])
    assert standardised(np.ones(4)) == pytest.approx(np.zeros(4))


def test_a_proposal_is_the_same_again_and_new_with_another_seed() -> None:
    trials = trials_of(points(14), promoted=4)
    first, again, other = (
        next(sample_joint_gp(Request(settings(), seed, 0, 14, CENTRE, trials)))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert other != first
