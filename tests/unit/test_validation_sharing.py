"""Splitting, merging, and on which side of 1 the response is."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.validation import validate
from particleforge.validation.matching import match, nearest
from particleforge.validation.metrics import compute_metrics
from particleforge.validation.quantiles import above_one
from particleforge.validation.sharing import shared

from .validation_inputs import many_events, validate_settings, visible, write_pair

RADIUS = 0.1
Particle = tuple[float, float, float]  # eta, phi, energy
_DIRECTION = st.tuples(st.floats(-1, 1), st.floats(-4, 4))
_LISTS = st.lists(
    st.tuples(st.lists(_DIRECTION, max_size=6), st.lists(_DIRECTION, max_size=6)),
    min_size=1,
    max_size=4,
)


def particles(*events: list[Particle]) -> ak.Array:
    flat = np.array([p for event in events for p in event]).reshape(-1, 3)
    columns = dict(zip(("eta", "phi", "energy"), flat.T, strict=True))
    return ak.unflatten(ak.zip({**columns, "pt": flat[:, 2]}), [len(event) for event in events])


def sharing(truth: ak.Array, found: ak.Array) -> tuple[list[bool], list[bool]]:
    """Return which truth particles are split and which candidates are merged."""
    partner, reverse = match(truth, found, RADIUS, 0.01)
    return (
        shared(truth, found, partner, reverse, RADIUS).tolist(),
        shared(found, truth, reverse, partner, RADIUS).tolist(),
    )


@settings(deadline=None, max_examples=40)
@given(_LISTS)
def test_nearest_equals_slow_reference(events: list) -> None:
    wanted = []
    for a, b in events:
        row = []
        for eta, phi in a:
            turns = [(abs(phi - other) + np.pi) % (2 * np.pi) - np.pi for _, other in b]
            far = [np.hypot(eta - b[j][0], turn) for j, turn in enumerate(turns)]
            row.append(min(far, default=9))
        wanted.append(row)
    lists = [particles(*([(*d, 1.0) for d in e[side]] for e in events)) for side in (0, 1)]
    found = nearest(*lists, 0.7)
    for row, (a, b), places in zip(wanted, events, found.to_list(), strict=True):
        for far, (eta, phi), j in zip(row, a, places, strict=True):
            assert (j >= 0) == (far <= 0.7) or far == pytest.approx(0.7)
            if j >= 0:
                turn = (abs(phi - b[j][1]) + np.pi) % (2 * np.pi) - np.pi
                assert np.hypot(eta - b[j][0], turn) == pytest.approx(far)


def test_pieces_are_split_and_sums_are_merged() -> None:
    ten, six, four = (0.0, 1.0, 10.0), (0.01, 1.0, 6.0), (0.0, 1.03, 4.0)
    far = (0.5, 1.0, 10.0)
    truth = particles([far, ten], [six, four], [])
    found = particles([six, four, far], [ten], [four])
    split, merged = sharing(truth, found)
    assert split == [False, True, False, False]
    assert merged == [False, False, False, True, False]


def test_a_fake_of_its_own_and_lost_energy_are_neither() -> None:
    ten, noise, outside = (0.0, 1.0, 10.0), (0.01, 1.0, 0.4), (0.2, 1.0, 4.0)
    whole = particles([ten])
    assert sharing(whole, particles([ten, noise])) == ([False], [False, False])
    assert sharing(particles([ten, noise]), whole) == ([False, False], [False])
    # pieces beyond the radius, as of a particle that is lost elsewhere
    assert sharing(whole, particles([(0.0, 1.0, 6.0), outside])) == ([False], [False, False])
    # two of one direction, both found
    pair = particles([ten, (0.0, 1.0, 1.0)])
    assert sharing(pair, pair) == ([False, False], [False, False])
    assert sharing(particles([]), particles([])) == ([], [])


def test_perfect_entries_count_half() -> None:
    counts = np.repeat(np.array([1.0, 2.0, 4.0, 0.0, 3.0])[:, None], 2, axis=1)
    assert above_one(counts)["value"] == pytest.approx((2 + 0 + 3) / 10)
    assert above_one(np.zeros((5, 2)))["value"] is None


def pieces(candidates: ak.Array) -> ak.Array:
    """Return photons as two particles of 60 and 40 % of the energy each, others as they are."""
    photon = candidates.class_id == 3
    parts = [candidates[~photon]]
    for share in (0.6, 0.4):
        part = candidates[photon]
        for name in ("px", "py", "pz", "energy"):
            part = ak.with_field(part, np.float32(share) * part[name], name)
        parts.append(part)
    return ak.concatenate(parts, axis=1)


def figures_of(folder: Path, events: ak.Array, model: ak.Array, **more: Any) -> dict[str, Any]:
    pair = write_pair(folder, events, model, **more)
    stage = validate_settings()
    stage = stage.model_copy(
        update={
            "validation": stage.validation.model_copy(update={"n_bootstrap": 10}),
            "samples": {"ttbar": stage.samples["ttbar"]},
        }
    )
    return compute_metrics(validate.fill_histograms(stage, [pair[0]], [pair[1]]), stage)


def test_photons_in_pieces_are_counted_per_class(tmp_path: Path) -> None:
    events = many_events(90, seed=11, mean_particles=15)
    whole = visible(events)
    for truth, model, key, other in (
        (events, pieces(whole), "splitting", "merging"),
        (
            ak.with_field(events, pieces(events.particles), "particles"),
            whole,
            "merging",
            "splitting",
        ),
    ):
        found = figures_of(tmp_path, truth, model)["particles"]
        assert found["photon"]["mlpf"][key]["value"] > 0.9
        assert found["photon"]["mlpf"][key]["total"] > 100
        assert found["charged_hadron"]["mlpf"][key]["value"] < 0.05
        assert found["photon"]["mlpf"][other]["value"] < 0.05


def scaled(candidates: ak.Array, factors: np.ndarray) -> ak.Array:
    factor = ak.unflatten(np.resize(factors, ak.sum(ak.num(candidates))), ak.num(candidates))
    for name in ("px", "py", "pz", "energy"):
        candidates = ak.with_field(candidates, candidates[name] * factor, name)
    return candidates


def test_a_reconstruction_that_only_loses_energy_is_named(tmp_path: Path) -> None:
    events = many_events(90, seed=12, mean_particles=15)
    rng = np.random.default_rng(3)
    width = 0.1 * rng.standard_normal(1000)
    found = figures_of(tmp_path, events, scaled(visible(events), 1 - abs(width)))
    photon = found["particles"]["photon"]
    assert photon["mlpf"]["energy_response"]["above_one"]["value"] < 0.02
    assert photon["mlpf"]["target_energy_response"]["above_one"]["value"] < 0.02
    assert photon["mlpf"]["energy_response"]["median"]["value"] > 0.9
    kinds = ("pt_response", "energy_response", "target_pt_response", "target_energy_response")
    for name in ("photon", "charged_hadron"):
        assert {f"{name}.mlpf.{kind}" for kind in kinds} <= set(found["one_sided"])
    assert not any("baseline" in name for name in found["one_sided"])


def test_a_sound_reconstruction_straddles_one(tmp_path: Path) -> None:
    events = many_events(90, seed=13, mean_particles=15)
    width = 0.1 * np.random.default_rng(4).standard_normal(1000)
    for factors in (1 + width, 0.95 + width, np.ones(1)):
        found = figures_of(tmp_path, events, scaled(visible(events), factors))
        assert found["one_sided"] == []
    perfect = found["particles"]["photon"]["mlpf"]
    assert perfect["energy_response"]["above_one"]["value"] == pytest.approx(0.5)
    assert perfect["target_energy_response"]["n"] > 50
