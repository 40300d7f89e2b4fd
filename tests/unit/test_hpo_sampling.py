"""Samplers in memory: valid and new points from every space, and models that go where losses are
low and nobody is yet.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.space import grid_points
from particleforge.config.training import TrainingConfig
from particleforge.errors import UserError
from particleforge.hpo.proposals import budget_to_model, generations, scores
from particleforge.hpo.sampling import SAMPLERS, propose
from particleforge.hpo.space import configured, encode
from particleforge.hpo.trials import SearchTrial, config_name

MIXED = {
    "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "training.beta2": {"type": "float", "low": 0.5, "high": 0.999},
    "training.loss.huber_delta": {"type": "float", "low": 0.1, "high": 1.3, "step": 0.3},
    "training.warmup_steps": {"type": "int", "low": 1, "high": 1000, "log": True},
    "model.n_layers": {"type": "int", "low": 1, "high": 5, "step": 2},
    "model.backbone": {
        "type": "categorical",
        "choices": ["attention", "windowed_attention", "gnn_lsh"],
    },
    "model.momentum_uncertainty": {"type": "categorical", "choices": [True, False]},
    "model.window_elements": {
        "type": "int",
        "low": 16,
        "high": 128,
        "step": 16,
        "when": {"model.backbone": ["windowed_attention"]},
    },
    "model.hash_directions": {
        "type": "int",
        "low": 2,
        "high": 9,
        "when": {"model.backbone": ["gnn_lsh"]},
    },
}
# 3 + 3 * 2 points
SMALL = {
    "model.n_layers": {"type": "int", "low": 1, "high": 3},
    "model.backbone": {"type": "categorical", "choices": ["attention", "windowed_attention"]},
    "model.window_elements": {
        "type": "categorical",
        "choices": [32, 64],
        "when": {"model.backbone": ["windowed_attention"]},
    },
}
PLANE = {
    "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "training.beta2": {"type": "float", "low": 0.5, "high": 0.98},
    "training.weight_decay": {"type": "float", "low": 0.0, "high": 1.0},
}
# Optuna's imports torch
ALL = [
    pytest.param(name, marks=pytest.mark.integration) if name == "gp" else name for name in SAMPLERS
]
LEARNERS = [name for name in ALL if name not in ("random", "qmc", "grid")]


def search(sampler: str, space: dict[str, Any], **hpo: Any) -> HpoConfig:
    return HpoConfig(
        **{"sampler": sampler, "first_rung_slots": 30, "n_rungs": 1, "space": space, **hpo}
    )


def defaults_of(hpo: HpoConfig) -> dict[str, Any]:
    return configured(hpo.space, ModelConfig(), TrainingConfig())


def trial(
    number: int,
    params: dict[str, Any],
    value: float | None = None,
    status: str = "complete",
    **more: Any,
) -> SearchTrial:
    own = {
        "config": config_name(number),
        "rung": 0,
        "slot": number,
        "parent": None,
        "steps": 10,
        **more,
    }
    return SearchTrial(number=number, params=params, value=value, status=status, **own)


def run(
    hpo: HpoConfig, n: int, loss: Callable[[dict[str, Any]], float | None], seed: int = 1
) -> list[SearchTrial]:
    """Propose and end n configurations, one after another."""
    trials: list[SearchTrial] = []
    for slot in range(n):
        params = propose(hpo, seed, slot, defaults_of(hpo), trials)
        value = loss(params)
        trials.append(trial(slot, params, value, "complete" if value is not None else "diverged"))
    return trials


def some_loss(params: dict[str, Any]) -> float | None:
    """Any function of a point; one trial in eight fails."""
    h = hash_of(params)
    return None if h < 0.125 else h


def hash_of(params: dict[str, Any]) -> float:
    return float(np.random.default_rng([ord(c) for c in repr(sorted(params.items()))]).random())


def test_registry_and_configuration_name_the_same_samplers() -> None:
    assert set(SAMPLERS) == set(HpoConfig.model_fields["sampler"].annotation.__args__)


@pytest.mark.parametrize("sampler", ALL)
def test_points_of_a_mixed_space_with_conditions_are_valid_new_and_the_same_again(
    sampler: str,
) -> None:
    left_out = {"training.warmup_steps", "training.beta2"} if sampler == "grid" else set()
    hpo = search(
        sampler, {name: p for name, p in MIXED.items() if name not in left_out}, grid_points=2
    )
    trials = run(hpo, 15, some_loss)
    for t in trials:
        backbone = t.params["model.backbone"]
        assert ("model.window_elements" in t.params) == (backbone == "windowed_attention")
        assert ("model.hash_directions" in t.params) == (backbone == "gnn_lsh")
        assert all(hpo.space[name].contains(value) for name, value in t.params.items() if t.slot), (
            t.params
        )
    assert len({tuple(t.params.items()) for t in trials}) == 15
    again = propose(hpo, 1, 14, defaults_of(hpo), trials[:14])
    assert again == trials[14].params
    assert {type(value) for t in trials for value in t.params.values()} <= {int, float, str, bool}


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "pending"])
@pytest.mark.parametrize("sampler", ALL)
def test_every_point_of_a_small_space_is_proposed_once_before_any_is_twice(
    sampler: str, ended: bool
) -> None:
    """Whether the trials have ended or all still run."""
    hpo = search(sampler, SMALL)
    defaults, trials = defaults_of(hpo), []
    for slot in range(9):
        params = propose(hpo, 3, slot, defaults, trials)
        trials.append(
            trial(slot, params, hash_of(params)) if ended else trial(slot, params, status="running")
        )
    points = {tuple(t.params.items()) for t in trials}
    assert points == {tuple(point.items()) for point in grid_points(hpo.space, 1)}
    if sampler == "grid":
        with pytest.raises(
            UserError, match=r"all 9 points of the grid are taken.*hpo\.first_rung_slots"
        ):
            propose(hpo, 3, 9, defaults, trials)
    else:
        assert tuple(propose(hpo, 3, 9, defaults, trials).items()) in points


def distance(hpo: HpoConfig, params: list[dict[str, Any]], centre: float = 0.7) -> np.ndarray:
    """Largest distance of points, by coordinate, from one on the unit cube's diagonal."""
    return np.abs(encode(hpo.space, params) - centre).max(axis=1)


def known(hpo: HpoConfig, n: int, seed: int) -> list[SearchTrial]:
    """Random configurations whose loss is their distance from the centre of the good region."""
    randomly = hpo.model_copy(update={"sampler": "random", "include_default": False})
    return run(randomly, n, lambda params: float(distance(hpo, [params])[0]), seed)


@pytest.mark.parametrize("sampler", LEARNERS)
def test_models_go_where_losses_are_low(sampler: str) -> None:
    hpo = search(sampler, PLANE)
    trials = known(hpo, 60, seed=5)
    if sampler in ("cmaes", "nsgaii"):  # populations learn from their own
        proposed = [
            t.params for t in run(hpo, 120, lambda params: float(distance(hpo, [params])[0]))[-30:]
        ]
    else:
        proposed = [propose(hpo, 1, 60 + k, defaults_of(hpo), trials) for k in range(5)]
    assert np.median(distance(hpo, proposed)) < 0.75 * np.median([t.loss for t in trials])


@pytest.mark.parametrize("sampler", LEARNERS)
def test_models_keep_away_from_what_is_pending(sampler: str) -> None:
    """The same trials without and with pending ones in the region that the model likes best."""
    hpo = search(sampler, PLANE)
    trials, defaults = known(hpo, 40, seed=6), defaults_of(hpo)
    n = 20 if sampler in ("tpe", "cmaes", "nsgaii") else 4

    def proposals(seen: list[SearchTrial], first_slot: int) -> list[dict[str, Any]]:
        return [propose(hpo, 1, first_slot + k, defaults, seen) for k in range(n)]

    liked = proposals(trials, 100)
    pending = [trial(40 + k, params, status="running") for k, params in enumerate(liked)]
    rows = encode(hpo.space, liked)

    def nearest(points: list[dict[str, Any]]) -> float:
        return float(
            np.mean(np.abs(encode(hpo.space, points)[:, None] - rows[None]).max(axis=2).min(axis=1))
        )

    again = proposals([*trials, *pending], 200)
    assert not [params for params in again if params in liked]
    assert nearest(again) > 1.05 * nearest(proposals(trials, 200))


def test_one_rung_is_modelled_and_what_is_pending_at_it() -> None:
    first = [trial(k, {}, float(k)) for k in range(4)] + [
        trial(4, {}, status="running"),
        trial(5, {}, status="failed"),
    ]
    second = [
        trial(6, {}, 0.5, rung=1, parent=0, config=config_name(0)),
        trial(7, {}, 0.6, rung=1, parent=1, config=config_name(1)),
        trial(8, {}, status="running", rung=1, parent=2, config=config_name(2)),
    ]
    assert {t.number for t in budget_to_model([*first, *second], enough=2)} == {4, 6, 7, 8}
    assert {t.number for t in budget_to_model([*first, *second], enough=3)} == {0, 1, 2, 3, 4, 5}


def test_scores_are_places_within_a_rung() -> None:
    trials = [
        trial(0, {}, 3.0),
        trial(1, {}, 1e9),
        trial(2, {}, status="failed"),
        trial(3, {}, status="running"),
        trial(4, {}, 0.1),
    ]
    other = [trial(5, {}, 77.0, rung=1)]
    places = scores([*trials, *other])
    assert places[4] < places[0] < places[1] < places[2] == places[3]
    assert places[5] == 0  # the middle, alone as it is
    assert abs(places).max() < 2


def test_populations_wait_for_half_of_their_members() -> None:
    trials = [trial(k, {}, 1.0) for k in range(6)] + [
        trial(k, {}, status="running") for k in range(6, 11)
    ]
    assert [[t.number for t, _ in group] for group in generations(trials, 4)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert generations(trials[6:], 4) == []


def test_the_sequence_and_the_grid_give_each_slot_its_own_point_in_any_order() -> None:
    for sampler in ("qmc", "grid"):
        hpo = search(sampler, SMALL)
        there = [propose(hpo, 2, slot, defaults_of(hpo), []) for slot in range(9)]
        assert len({tuple(params.items()) for params in there}) == 9


def test_a_search_without_parameters_proposes_the_configured_settings() -> None:
    for sampler in set(SAMPLERS) - {"gp"}:
        assert propose(search(sampler, {}, include_default=False), 1, 3, {}, []) == {}
