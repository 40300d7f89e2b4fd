"""benchmarks/response_calibration.py: what its fits find, and from which events."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from particleforge.tables import parquet
from particleforge.validation.events import EventBatch, read_pair

from .validation_inputs import many_events, rewrite, visible, write_pair

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLASSES = {2: "neutral_hadron", 3: "photon"}
SCALES = {1: 1.0, 2: 0.9, 3: 1.2, 4: 1.0, 5: 1.0}
BOTH = ("mlpf", "baseline")


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("response_calibration")


def wrong(particles: ak.Array, scales: dict[int, float]) -> ak.Array:
    """Return candidates whose four-momenta are off by a factor per class."""
    class_id = ak.flatten(particles.class_id)
    factor = np.array([0.0, *scales.values()])[ak.to_numpy(class_id)]
    factor = ak.unflatten(factor, ak.num(particles))
    for name in ("px", "py", "pz", "energy"):
        particles = ak.with_field(particles, particles[name] * factor, name)
    return particles


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[EventBatch]:
    """Events of which a third is valid, and whose test events are off by other factors."""
    events = many_events(180, seed=4)
    truth = visible(events)
    valid = np.arange(len(events)) % 3 == 0
    other = {number: scale**-2 for number, scale in SCALES.items()}
    found = ak.where(valid, wrong(truth, SCALES), wrong(truth, other))
    pair = write_pair(
        tmp_path_factory.mktemp("pair"), events, found, found, splits=("train", "test")
    )
    selected = parquet.read_table(pair[0])
    split = ak.Array(list(np.where(ak.to_numpy(selected.split == "train"), "valid", "test")))
    rewrite(pair[0], ak.with_field(selected, split, "split"))
    return list(read_pair(*pair, also=("split", "tracks")))


@pytest.mark.parametrize("fit", ["fit_to_pairs", "fit_to_sums"])
def test_a_wrong_scale_is_found_in_valid_events_alone(
    calibration: Any, batches: list[EventBatch], fit: str
) -> None:
    valid = [calibration.events_of(batch, "valid") for batch in batches]
    curves = {reco: getattr(calibration, fit)(valid, reco, CLASSES) for reco in BOTH}
    for reco in BOTH:
        assert set(curves[reco]) == set(CLASSES)
        for number, curve in curves[reco].items():
            assert curve.factor == pytest.approx(1 / SCALES[number], rel=1e-3)
    for batch in valid:
        mended = calibration.corrected(batch, curves)
        for reco in BOTH:
            assert ak.sum(mended.weighted[reco].energy) == pytest.approx(
                ak.sum(batch.views["truth"].energy), rel=1e-3
            )


def test_too_few_pairs_leave_a_class_alone(
    calibration: Any, batches: list[EventBatch], capsys: pytest.CaptureFixture[str]
) -> None:
    valid = calibration.events_of(batches[0], "valid")
    few = replace(valid, views={name: view[:1] for name, view in valid.views.items()})
    assert calibration.fit_to_pairs([few], "mlpf", CLASSES) == {}
    assert "mlpf: photon is left alone: " in capsys.readouterr().out
