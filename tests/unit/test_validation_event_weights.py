"""Weights of events count in every figure of the validation."""

import json
from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.config.settings import ValidateSettings
from particleforge.errors import UserError
from particleforge.validation import validate
from particleforge.validation.events import read_pair
from particleforge.validation.histograms import to_json
from particleforge.validation.metrics import compute_metrics

from .validation_inputs import many_events, smeared, validate_settings, visible, write_pair

N_EVENTS = 40
COUNTED = ("n", "passed", "total", "sum_of_weights")  # sums of weights
ERRORS = ("error", "low", "high", "effective")


def figures_of(folder: Path, events: ak.Array) -> dict:
    """Return the metrics of all of the events, and the plotted histograms."""
    folder.mkdir()
    # copies have the number of their event, plus 1000
    model = smeared(numbered(N_EVENTS), 1, width=0.1, efficiency=0.9)
    model = model[ak.to_numpy(events.event_number) % 1000]
    pair = write_pair(folder, events, model, splits=("train", "test"))
    stage: ValidateSettings = validate_settings()
    few = stage.validation.model_copy(update={"n_bootstrap": 10})
    stage = stage.model_copy(
        update={"validation": few, "samples": {"ttbar": stage.samples["ttbar"]}}
    )
    hists = validate.fill_histograms(stage, [pair[0]], [pair[1]])
    found = compute_metrics(hists, stage)
    json.dumps([found, to_json(hists)], allow_nan=False)
    return {"metrics": found, "histograms": to_json(hists)}


def numbered(n: int) -> ak.Array:
    """Return events whose number is their position."""
    events = many_events(n, seed=21, mean_particles=20)
    return ak.with_field(events, np.arange(n, dtype=np.uint64), "event_number")


def weighing(events: ak.Array, weights: np.ndarray) -> ak.Array:
    return ak.with_field(events, np.asarray(weights, np.float64), "weight")


def leaves(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield every number of nested values with where it stands."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, tree


@pytest.fixture(scope="module")
def unweighted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return figures_of(tmp_path_factory.mktemp("ones") / "pair", numbered(N_EVENTS))


def test_a_common_weight_changes_no_ratio(unweighted: dict, tmp_path: Path) -> None:
    weight = 0.25  # a power of two: no rounding, so the same random numbers
    events = weighing(numbered(N_EVENTS), np.full(N_EVENTS, weight))
    found = figures_of(tmp_path / "pair", events)
    before = dict(leaves(unweighted["metrics"]))
    after = dict(leaves(found["metrics"]))
    assert before.keys() == after.keys()
    assert sum(value is not None for value in before.values()) > 200
    for path, value in before.items():
        scale = weight if path[-1] in COUNTED or ("confusion" in path and path[-1].isdigit()) else 1
        expected = value if value is None or isinstance(value, str) else value * scale
        assert after[path] == pytest.approx(expected, rel=1e-6, abs=1e-9), path
    for name, histogram in found["histograms"].items():
        known = unweighted["histograms"][name]
        scale = 1 if name == "events" else weight
        for key, factor in (("values", scale), ("variances", scale**2)):
            np.testing.assert_allclose(histogram[key], np.multiply(known[key], factor), rtol=1e-9)


def test_an_event_of_twice_the_weight_is_the_event_twice(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    weights = rng.uniform(-0.2, 2, N_EVENTS)
    heavy = rng.random(N_EVENTS) < 0.3
    events = weighing(numbered(N_EVENTS), weights)
    copies = events[heavy]
    copies = ak.with_field(copies, ~copies.event_id, "event_id")
    copies = ak.with_field(copies, copies.event_number + 1000, "event_number")
    twice = ak.concatenate([events, copies])
    doubled = weighing(events, np.where(heavy, 2 * weights, weights))
    one = dict(leaves(figures_of(tmp_path / "doubled", doubled)["metrics"]))
    other = dict(leaves(figures_of(tmp_path / "twice", twice)["metrics"]))
    n_values = 0
    for path, value in one.items():
        # too few entries depends on how many there are
        if path in other and path[-1] not in ERRORS and path[-1] != "n_events":
            same = other[path]
            if value is not None and same is not None:
                n_values += path[-1] == "value"
                assert same == pytest.approx(value, rel=1e-6, abs=1e-6), path
    assert n_values > 50


def test_a_file_that_weighs_nothing_is_unweighted(unweighted: dict, tmp_path: Path) -> None:
    events = weighing(numbered(N_EVENTS), np.zeros(N_EVENTS))
    assert figures_of(tmp_path / "pair", events) == unweighted


def test_a_weight_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    events = many_events(6, seed=13, mean_particles=3)
    weights = np.array([1, np.nan, 1, np.inf, 1, 1])
    pair = write_pair(tmp_path, weighing(events, weights), visible(events))
    with pytest.raises(UserError, match=r"selected.parquet: weight: 2 values are not finite; cut"):
        list(read_pair(*pair))
