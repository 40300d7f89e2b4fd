"""Masses of two jets, from bosons made by hand."""

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest

from particleforge.validation.dijets import dijet_masses, fill_dijets
from particleforge.validation.events import RECONSTRUCTIONS, TRUTH, EventBatch
from particleforge.validation.histograms import Hists, book
from particleforge.validation.metrics import compute_metrics

from .validation_inputs import validate_settings

MASS = 80.4
NAMES = ("px", "py", "pz", "energy")


def boson_pairs(n: int, seed: int, mass: float = MASS, momentum: float = 160.0) -> np.ndarray:
    """Return two bosons, back to back, that decay to two massless particles each: [n, 4, 4]."""
    rng = np.random.default_rng(seed)

    def directions(size: int) -> np.ndarray:
        found = rng.standard_normal((size, 3))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    flight = directions(n)
    energy = np.hypot(mass, momentum)
    products = []
    for sign in (1, -1):
        axis, decay = sign * flight, directions(n)
        for side in (1, -1):
            p = side * decay * mass / 2
            along = (p * axis).sum(axis=1)
            boosted = energy / mass * along + momentum / mass * mass / 2
            lab = p + (boosted - along)[:, None] * axis
            products.append(np.concatenate([lab, np.linalg.norm(lab, axis=1)[:, None]], axis=1))
    return np.stack(products, axis=1)


def view(p4: np.ndarray) -> ak.Array:
    """Return particles of events, [n, particles, 4], as lists of records."""
    counts = np.full(len(p4), p4.shape[1])
    return ak.unflatten(ak.zip({name: p4[..., i].ravel() for i, name in enumerate(NAMES)}), counts)


def batch_of(views: dict[str, np.ndarray], sample: str = "ww") -> EventBatch:
    n = len(views[TRUTH])
    weighted = {name: view(p4) for name, p4 in views.items()}
    return EventBatch(sample, n, {}, weighted, {}, ak.Array([]), ak.Array([]), np.ones(n))


def filled(*batches: EventBatch) -> Hists:
    settings = validate_settings()
    hists = book(settings)
    for batch in batches:
        fill_dijets(hists, batch, settings.plots.dijet_mass)
    return hists


def test_masses_are_those_of_the_bosons() -> None:
    p4 = boson_pairs(50, 1)
    shuffled = np.random.default_rng(2).permuted(np.tile(np.arange(4), (50, 1)), axis=1)
    p4 = np.take_along_axis(p4, shuffled[..., None], axis=1)
    np.testing.assert_allclose(dijet_masses(view(p4), MASS), MASS, rtol=1e-6)
    soft = np.concatenate([p4, p4[:, :1] * 1e-3], axis=1)  # a fifth particle joins a jet
    masses = dijet_masses(view(soft), MASS)
    assert np.median(masses) == pytest.approx(MASS, rel=2e-3)
    assert not np.allclose(masses, MASS, rtol=1e-6)


def test_too_few_particles_have_no_mass() -> None:
    p4 = boson_pairs(2, 3)
    mixed = ak.concatenate([view(p4[:1]), view(p4[1:, :3])])
    masses = dijet_masses(mixed, MASS)
    assert np.isfinite(masses).tolist() == [[True, True], [False, False]]
    assert np.isnan(dijet_masses(view(p4[:, :3]), MASS)).all()
    assert dijet_masses(view(p4)[:0], MASS).shape == (0, 2)


def test_every_view_has_its_own_masses_of_the_same_events() -> None:
    # no pairing of the others reaches the window: their energies are too small
    bosons, others = boson_pairs(40, 4), 0.2 * boson_pairs(15, 5)
    truth = np.concatenate([bosons, others])
    scales = dict(zip(RECONSTRUCTIONS, (1.0, 1.02, 0.95, 0.9), strict=True))
    views = {TRUTH: truth, **{name: scale * truth for name, scale in scales.items()}}
    figures = compute_metrics(filled(batch_of(views)), validate_settings())
    masses = figures["dijet_mass"]
    assert {of_one["n"] for of_one in masses.values()} == {80}
    for name, scale in {TRUTH: 1.0, **scales}.items():
        assert masses[name]["median"]["value"] == pytest.approx(scale * MASS, rel=1e-3), name
        assert masses[name]["resolution"]["value"] < 2e-3
    by_sample = figures["by_sample"]
    assert by_sample["ww"]["dijet_mass"][TRUTH]["n"] == 80
    assert "dijet_mass" not in by_sample["ttbar"]


def test_only_named_samples_have_masses() -> None:
    p4 = boson_pairs(12, 6)
    views = dict.fromkeys((TRUTH, *RECONSTRUCTIONS), p4)
    hists = filled(batch_of(views, sample="qq"))
    assert hists["dijet_mass"].sum(flow=True).value == 0
    unnamed = validate_settings("cms_like")
    assert "dijet_mass" not in book(unnamed)
    fill_dijets(hists, batch_of(views), unnamed.plots.dijet_mass)
    assert hists["dijet_mass"].sum(flow=True).value == 0
    ww = replace(batch_of(views), weights=np.full(12, 0.5))
    assert filled(ww)["dijet_mass"].sum(flow=True).value == 5 * 12


def test_samples_that_a_run_lacks_are_passed_over() -> None:
    settings = validate_settings()
    left = {name: one for name, one in settings.samples.items() if name != "ww"}
    hists = book(settings.model_copy(update={"samples": left}))
    assert "dijet_mass" in book(settings) and "dijet_mass" not in hists
