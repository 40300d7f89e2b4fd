"""Cost of a network, Pareto front, and the rules that choose among the trials of a search."""

import json
from pathlib import Path
from typing import Any

import pytest

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.hpo.objectives import (
    INFERENCE_GFLOP,
    Contender,
    inference_gflop,
    pareto_front,
    preferred,
    top_contenders,
    with_costs,
)
from particleforge.hpo.trials import SearchTrial
from particleforge.model.surroundings import N_SURROUNDINGS

from .hpo_fixtures import make_settings
from .synthetic_shards import N_FEATURES, write_synthetic

BOTH = ("valid_loss", "inference_gflop")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"), train=(30,), valid=2, test=2)


def trial(number: int, value: float | None, rung: int = 2, **params: Any) -> SearchTrial:
    status = "failed" if value is None else "complete"
    return SearchTrial(number, f"c{number:05d}", rung, number, None, 20, params, status, value)


def contender(number: int, loss: float, gflop: float | None = None, failures: int = 0) -> Contender:
    return Contender(trial(number, loss), gflop, failures=failures)


def numbers(contenders: list[Contender]) -> list[int]:
    return [c.trial.number for c in contenders]


def by_hand(model: ModelConfig, n: int, n_classes: int) -> float:
    """Multiplications and additions of all matrix products over one event of ``n`` elements,
    written out.
    """
    w, hidden = model.width, round(model.feedforward_factor * model.width)
    encoder = 2 * (N_FEATURES + 1 + N_SURROUNDINGS) * w
    surroundings = 3 * n * 2  # sums of two energies at three scales
    # query, key, value; output; feed-forward; scores and their use
    layer = w * 3 * w + w * w + 2 * w * hidden + 2 * n * w
    # query and key of 32; sink; pair terms of cluster and host; scores; four-vectors received
    shares = w * (32 + 32 + 1 + 6 + 6) + 32 * n + n * 4
    # what hosts received; two heads; mixtures of track and calorimeter
    heads = 3 * w + 2 * w * w + w * (1 + n_classes + 3) + w * 4 + 2 * w
    return 2 * n * (encoder + surroundings + model.n_layers * layer + shares + heads) / 1e9


@pytest.mark.parametrize(("width", "n_layers", "factor"), [(16, 1, 2.0), (32, 3, 4.0)])
def test_the_cost_is_that_of_all_matrix_products(
    manifest: Path, width: int, n_layers: int, factor: float
) -> None:
    model = ModelConfig(
        width=width, n_layers=n_layers, n_heads=4, feedforward_factor=factor, local_attention=False
    )
    train = json.loads(manifest.read_text())["splits"]["train"]
    n = round(train["n_elements"] / train["n_events"])
    assert inference_gflop(model, manifest) == pytest.approx(
        by_hand(model, n, n_classes=3), rel=1e-12
    )


@pytest.mark.parametrize("backbone", ["attention", "windowed_attention", "gnn_lsh"])
def test_every_backbone_has_a_cost_that_grows_with_it_and_repeats(
    manifest: Path, backbone: Any
) -> None:
    small, large = (
        ModelConfig(backbone=backbone, width=16, n_layers=n, bin_elements=16) for n in (1, 2)
    )
    assert (
        0
        < inference_gflop(small, manifest)
        < inference_gflop(large, manifest)
        == inference_gflop(large, manifest)
    )


def test_costs_are_filled_in_for_trials_made_before_cost_was_an_objective(manifest: Path) -> None:
    settings = make_settings(objectives=BOTH)
    trials = [
        trial(0, 0.3),
        trial(1, 0.2, **{"model.width": 16}),
        trial(2, None, **{"model.width": 7}),
    ]
    found = with_costs(trials, settings, manifest)
    assert (
        found[0].objectives[INFERENCE_GFLOP]
        == inference_gflop(settings.model, manifest)
        > found[1].objectives[INFERENCE_GFLOP]
    )
    assert not found[2].objectives, "its settings make no network"
    assert with_costs(trials, make_settings(), manifest) == trials
    assert [c.gflop for c in top_contenders(found)] == [
        t.objectives[INFERENCE_GFLOP] for t in (found[1], found[0])
    ]


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    contenders = [
        contender(0, 0.10, 5),
        contender(1, 0.12, 2),
        contender(2, 0.13, 3),
        contender(3, 0.2, 1),
        contender(4, 0.12, 2),
    ]
    assert numbers(pareto_front(contenders)) == [0, 1, 3]
    assert numbers(pareto_front(contenders[::-1])) == [0, 1, 3]
    assert numbers(pareto_front([contender(0, 0.2), contender(1, 0.1)])) == [1]
    assert pareto_front([]) == []
    for one in contenders:
        beaten = any(
            c.loss <= one.loss
            and c.gflop <= one.gflop
            and (c.loss, c.gflop) != (one.loss, one.gflop)
            for c in contenders
        )
        assert beaten == (one.trial.number == 2)


def test_rules_of_choice() -> None:
    contenders = [
        contender(0, 0.1000, 5),
        contender(1, 0.1019, 2),
        contender(2, 0.1021, 1),
        contender(3, 0.1015, 3),
    ]
    assert numbers(preferred(contenders, HpoConfig())) == [0, 3, 1, 2]
    cheapest = HpoConfig(objectives=BOTH, pick="cheapest")
    assert numbers(preferred(contenders, cheapest)) == [1, 3, 0, 2], (
        "within 2 % of the lowest, by cost"
    )
    wider = HpoConfig(objectives=BOTH, pick="cheapest", pick_loss_tolerance=0.05)
    assert numbers(preferred(contenders, wider))[0] == 2
    below_zero = [contender(0, -1.0, 5), contender(1, -0.99, 1), contender(2, -0.9, 1)]
    assert numbers(preferred(below_zero, cheapest)) == [1, 0, 2]
    assert numbers(preferred([contender(0, 0.1, failures=1), contender(1, 0.2)], HpoConfig())) == [
        1,
        0,
    ], "failed from another seed"
    assert preferred([], cheapest) == []


@pytest.mark.parametrize(
    ("hpo", "expected"),
    [
        ({"pick": "cheapest"}, "add inference_gflop to hpo.objectives"),
        ({"objectives": ["inference_gflop"]}, "must hold valid_loss"),
        ({"objectives": ["valid_loss", "valid_loss"]}, "each once"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(hpo: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        HpoConfig(**hpo)
