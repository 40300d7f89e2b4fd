"""Weights of the model's candidates: sums multiply by them, lists take a threshold."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.errors import UserError
from particleforge.tables import parquet
from particleforge.validation import validate
from particleforge.validation.events import read_pair
from particleforge.validation.metrics import compute_metrics

from .validation_inputs import (
    PRESENCE_THRESHOLD,
    many_events,
    validate_settings,
    visible,
    write_pair,
)


def _doubled(events: ak.Array, weights: tuple[float, float]) -> ak.Array:
    """Return every visible particle twice, with these weights."""
    found = visible(events)
    copies = [
        ak.with_field(found, ak.full_like(found.weight, weight), "weight") for weight in weights
    ]
    return ak.concatenate(copies, axis=1)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Every particle as two candidates, one above and one below the threshold, 1.0 in all."""
    events = many_events(150, seed=11)
    pair = write_pair(tmp_path_factory.mktemp("pair"), events, _doubled(events, (0.75, 0.25)))
    settings = validate_settings()
    return compute_metrics(validate.fill_histograms(settings, [pair[0]], [pair[1]]), settings)


def test_sums_are_weighted(figures: dict) -> None:
    jets = figures["jets"]["inclusive"]["mlpf"]["response"]
    assert jets["n"] > 50
    energy = figures["visible_energy"]["mlpf"]
    for response in (jets, energy):
        assert response["median"]["value"] == pytest.approx(1, abs=2e-5)
        assert response["resolution"]["value"] == pytest.approx(0, abs=5e-5)
    assert abs(figures["met"]["inclusive"]["mlpf"]["residual"]["iqr"]["value"]) < 1e-3


def test_lists_take_the_threshold_and_no_weight(figures: dict) -> None:
    for name, found in figures["particles"].items():
        of_model = found["mlpf"]
        assert of_model["efficiency"]["value"] == 1, name
        assert of_model["fake_rate"]["total"] == of_model["efficiency"]["total"], name
        assert of_model["fake_rate"]["value"] == 0, name
        assert of_model["energy_response"]["median"]["value"] == pytest.approx(1, abs=2e-5), name


def test_a_weight_at_the_threshold_counts(tmp_path: Path) -> None:
    events = many_events(30, seed=12)
    just_below = np.nextafter(np.float32(PRESENCE_THRESHOLD), np.float32(0))
    pair = write_pair(tmp_path, events, _doubled(events, (PRESENCE_THRESHOLD, just_below)))
    for batch in read_pair(*pair):
        assert ak.num(batch.views["mlpf"]).tolist() == ak.num(batch.views["truth"]).tolist()
        assert (
            ak.num(batch.weighted["mlpf"]).tolist() == (2 * ak.num(batch.views["truth"])).tolist()
        )
        assert batch.weighted["baseline"] is batch.views["baseline"]


def test_a_file_without_threshold_is_refused(tmp_path: Path) -> None:
    events = many_events(6, seed=13, mean_particles=3)
    selected, reconstructed = write_pair(tmp_path, events, visible(events))
    types = parquet.RECONSTRUCTED_SCHEMA
    found = parquet.to_arrow(parquet.read_table(reconstructed), types)
    parquet.write_table(reconstructed, [found], types, {"sample": "ttbar"})
    with pytest.raises(
        UserError, match=r"presence_threshold: Field required; rerun reconstruct_events"
    ):
        list(read_pair(selected, reconstructed))
