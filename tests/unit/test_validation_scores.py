"""Reliability of the weights of candidates, by hand and from files."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.tables.schema import NONE_CLASS
from particleforge.validation import validate
from particleforge.validation.metrics import compute_metrics
from particleforge.validation.scores import reliability

from .validation_inputs import many_events, validate_settings, visible, write_pair


def sums(*numbers: float) -> np.ndarray:
    """Sums of weights and of their squares of so many entries of weight 1."""
    return np.repeat(np.array(numbers)[..., None], 2, -1)


def test_bins_compare_what_is_claimed_with_what_is_true() -> None:
    counts = np.stack([sums(30, 10), sums(0, 0), sums(5, 55)])
    found = reliability(counts, sums(40 * 0.2, 0, 60 * 0.95), np.array([0, 0.4, 0.8, 1.0]))
    first, empty, last = found["bins"]
    assert (first["low"], first["high"]) == (0, 0.4)
    assert first["mean_weight"] == pytest.approx(0.2)
    assert first["hosts"]["value"] == pytest.approx(0.25)
    assert empty["mean_weight"] is None
    assert empty["hosts"]["value"] is None
    assert last["hosts"]["passed"] == 55
    wanted = (40 * 0.05 + 60 * abs(0.95 - 55 / 60)) / 100
    assert found["expected_calibration_error"] == pytest.approx(wanted)


def test_no_candidate_no_error() -> None:
    found = reliability(np.zeros((2, 2, 2)), np.zeros((2, 2)), np.array([0, 0.5, 1.0]))
    assert found["expected_calibration_error"] is None


def test_candidates_of_files_count_by_their_weight(tmp_path: Path) -> None:
    events = many_events(60)
    candidates = visible(events)
    weights = ak.unflatten(
        np.tile(np.array([0.31, 0.93, 1.2], np.float32), 10_000)[: ak.sum(ak.num(candidates))],
        ak.num(candidates),
    )
    candidates = ak.with_field(candidates, weights, "weight")
    pair = write_pair(tmp_path, events, candidates, visible(events))
    settings = validate_settings()
    hists = validate.fill_histograms(settings, [pair[0]], [pair[1]])
    found = compute_metrics(hists, settings)["reliability"]["bins"]
    counted: dict[int, list[bool]] = {6: [], 18: [], 19: []}  # of twenty bins from 0 to 1
    for number, (event, own) in enumerate(zip(events, candidates, strict=True)):
        for candidate in own:
            if number % 3 and candidate.element >= 0:  # a test event, and an element
                target = event.targets[candidate.element]
                place = min(int(candidate.weight * 20), 19)
                counted[place].append(target.class_id != NONE_CLASS)
    assert all(counted.values())
    for place, row in enumerate(found):
        hosts = counted.get(place, [])
        assert (row["hosts"]["passed"], row["hosts"]["total"]) == (sum(hosts), len(hosts))
    assert found[19]["mean_weight"] == pytest.approx(1.2)
