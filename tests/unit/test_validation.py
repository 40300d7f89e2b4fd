import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.config.settings import ValidateSettings
from particleforge.errors import UserError
from particleforge.pages.figures import save_figure, styled
from particleforge.tables import parquet
from particleforge.validation import validate
from particleforge.validation.events import RECONSTRUCTIONS, read_pair
from particleforge.validation.histograms import ELEMENTS, book, count_edges, to_json
from particleforge.validation.jet_plots import jet_resolution
from particleforge.validation.jets import cluster, constituents
from particleforge.validation.metrics import compute_metrics
from particleforge.validation.particles import angle_mrad
from particleforge.validation.plot_parts import Results

from .validation_inputs import many_events, smeared, validate_settings, visible, write_pair


@pytest.fixture(scope="module")
def settings() -> ValidateSettings:
    return validate_settings()


@pytest.fixture(scope="module")
def results(settings: ValidateSettings, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Perfect candidates as the model's, the same 10 % too soft as the baseline's."""
    events = many_events(240)
    pair = write_pair(
        tmp_path_factory.mktemp("pair"), events, visible(events), visible(events, scale=0.9)
    )
    hists = validate.fill_histograms(settings, [pair[0]], [pair[1]])
    return Results(compute_metrics(hists, settings), hists, settings)


def test_perfect_reconstruction(results: Results) -> None:
    assert results.figures["n_events"] == 160  # two of three events are test events
    perfect = results.figures["jets"]["inclusive"]["mlpf"]
    assert perfect["response"]["n"] > 100
    assert perfect["response"]["median"]["value"] == pytest.approx(1, abs=2e-5)
    assert perfect["response"]["resolution"]["value"] == pytest.approx(0, abs=2e-5)
    assert perfect["efficiency"]["value"] == 1
    assert perfect["fake_rate"]["value"] == 0
    met = results.figures["met"]["inclusive"]["mlpf"]["residual"]
    assert abs(met["median"]["value"]) < 1e-4
    assert met["iqr"]["value"] < 1e-3
    for name, found in results.figures["particles"].items():
        assert found["mlpf"]["efficiency"]["value"] == 1, name
        assert found["mlpf"]["fake_rate"]["value"] == 0, name
        assert found["mlpf"]["energy_response"]["resolution"]["value"] < 2e-5
        assert found["mlpf"]["angle_mrad"]["n"] == found["mlpf"]["efficiency"]["passed"]
        assert found["mlpf"]["angle_mrad"]["median"]["value"] < 1e-3
    assert results.figures["particles"]["muon"]["mlpf"]["wrong_charge"]["value"] == 0


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.3, 500.0, 3000.0])
@pytest.mark.parametrize("eta", [-3.0, 0.0, 1.2])
def test_angles_are_those_of_a_turned_direction(angle: float, eta: float) -> None:
    """Turned in the polar angle, and about the beam at eta 0, over the seam of phi."""
    theta = 2 * np.arctan(np.exp(-eta))
    to_pole = abs(theta + angle / 1e3) < np.pi
    turned = theta + angle / 1e3 if to_pole else theta - angle / 1e3
    one = {"eta": np.array([eta, 0.0]), "phi": np.array([0.4, 3.1])}
    other = {
        "eta": np.array([-np.log(abs(np.tan(turned / 2))), 0.0]),
        "phi": np.array([0.4 if turned > 0 else 0.4 + np.pi, 3.1 + angle / 1e3]),
    }
    np.testing.assert_allclose(angle_mrad(one, other), angle, rtol=1e-6, atol=1e-9)


def test_targets_close_on_the_generator(results: Results) -> None:
    """Visible particles lose little to the generator, targets nothing to visible particles but what
    was merged or dropped.
    """
    closure = results.figures["closure"]
    for stage in ("truth", "target"):
        response = closure["inclusive"][stage]
        assert response["n"] > 100
        assert response["median"]["value"] == pytest.approx(1, abs=0.02)
        assert response["resolution"]["value"] < 0.05
        assert sum(row[stage]["n"] for row in closure["pt_bins"]) <= response["n"]
    counted = results.hists["elements"][{"process": sum}]
    assert [counted[{"kind": kind}].sum().value for kind in ELEMENTS] == [160] * len(ELEMENTS)


def test_closure_shows_what_targets_lose(settings: ValidateSettings, tmp_path: Path) -> None:
    """Targets of 80 % of the energy, and every third particle unseen: each stage counts its own
    particles and jets.
    """
    events = many_events(120)
    hidden = ak.local_index(events.particles.energy) % 3 == 0
    fate = ak.values_astype(ak.where(hidden, 0, events.particles.fate), np.int8)
    targets = events.targets
    for name in ("px", "py", "pz", "energy"):
        targets = ak.with_field(targets, 0.8 * targets[name], name)
    changed = ak.with_field(
        ak.with_field(events, ak.with_field(events.particles, fate, "fate"), "particles"),
        targets,
        "targets",
    )
    pair = write_pair(tmp_path, changed, visible(events))
    hists = validate.fill_histograms(settings, [pair[0]], [pair[1]])
    closure = compute_metrics(hists, settings)["closure"]["inclusive"]
    assert closure["target"]["median"]["value"] == pytest.approx(0.8, abs=0.02)
    assert closure["truth"]["median"]["value"] == pytest.approx(1, abs=0.02)
    spectra = {
        stage: hists["class_pt"][{"process": sum, "stage": stage}].sum(flow=True).value
        for stage in ("generator", "truth", "target")
    }
    kept = np.arange(120) % 3 != 0
    neutrinos = np.isin(
        np.abs(ak.to_numpy(ak.flatten(events.particles.pdg[kept]))), [12, 14, 16, 18]
    )
    assert spectra["generator"] == len(neutrinos) - neutrinos.sum()
    assert spectra["truth"] == ak.sum(fate[kept] != 0) < spectra["generator"]
    assert spectra["target"] == ak.sum(targets.class_id[kept] != 0)


def test_small_counts_have_a_bin_each() -> None:
    edges = count_edges(1e5)
    assert edges[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 10]
    assert edges[-1] == 1e5
    assert np.all(np.diff(edges) >= 1)
    assert np.all(edges[8:] / edges[7:-1] < 1.34)


def test_known_scale_is_recovered(results: Results) -> None:
    shifted = results.figures["jets"]["inclusive"]["baseline"]["response"]
    assert shifted["median"]["value"] == pytest.approx(0.9, abs=1e-3)
    assert shifted["resolution"]["value"] < 3e-3
    assert results.figures["visible_energy"]["baseline"]["median"]["value"] == pytest.approx(
        0.9, abs=1e-3
    )
    response = results.figures["particles"]["photon"]["baseline"]["pt_response"]
    assert response["median"]["value"] == pytest.approx(0.9, abs=1e-3)
    for row in results.figures["met"]["truth_bins"]:
        if row["baseline"]["median"] is not None:
            assert (
                -0.1 * row["high"] - 0.1
                <= row["baseline"]["median"]["value"]
                <= -0.1 * row["low"] + 0.1
            )


def test_known_loss_is_recovered(settings: ValidateSettings, tmp_path: Path) -> None:
    events = many_events(240, seed=3)
    found = visible(events)
    found = found[found.class_id != 3]  # no photon is found,
    # muons are called hadrons,
    found = ak.with_field(found, ak.where(found.class_id == 5, 1, found.class_id), "class_id")
    # electrons have the wrong charge
    found = ak.with_field(
        found, ak.where(found.class_id == 4, -found.charge, found.charge), "charge"
    )
    pair = write_pair(tmp_path, events, found)
    figures = compute_metrics(validate.fill_histograms(settings, [pair[0]], [pair[1]]), settings)
    particles = {name: by_reco["mlpf"] for name, by_reco in figures["particles"].items()}
    assert particles["photon"]["efficiency"]["value"] < 0.01
    assert particles["photon"]["fake_rate"]["value"] is None
    assert particles["muon"]["efficiency"]["value"] < 0.01
    assert particles["muon"]["found"]["value"] == 1
    assert particles["charged_hadron"]["mislabelled"]["value"] == pytest.approx(
        0.04 / 0.54, abs=0.02
    )
    assert particles["electron"]["wrong_charge"]["value"] == 1
    assert particles["charged_hadron"]["wrong_charge"]["value"] == 0
    assert (
        sum(figures["confusion"]["mlpf"][5])
        == figures["confusion"]["mlpf"][5][1]
        == particles["muon"]["found"]["total"]
    )


def test_counts_agree_across_histograms(results: Results, settings: ValidateSettings) -> None:
    plain = to_json(results.hists)
    counts = {name: np.asarray(h["values"]) for name, h in plain.items()}
    for name, histogram in plain.items():
        sizes = [
            len(a["edges"]) + 1 if "edges" in a else len(a["categories"]) for a in histogram["axes"]
        ]
        assert list(counts[name].shape) == sizes, name
    assert counts["events"].sum() == results.figures["n_events"]
    assert counts["met"].sum() == 5 * results.figures["n_events"]
    assert counts["met_component_residual"].sum() == 2 * 4 * results.figures["n_events"]
    assert counts["truth_by_pt"].sum() == counts["truth_by_eta"].sum()
    assert counts["jet_response"].sum() == counts["jet_truth"][..., 1].sum()
    confusion = counts["confusion"]
    assert confusion[:, :, 1:, :].sum() == counts["truth_by_pt"].sum()
    assert confusion[:, :, :, 1:].sum() == counts["candidates_by_pt"].sum()
    assert confusion[:, :, 0, 0].sum() == 0
    for kind in ("pt", "energy"):
        fine = results.hists[f"particle_{kind}_response_fine"]
        assert (
            fine.values(flow=True).sum()
            == counts["truth_by_pt"][..., 2].sum()
            == counts[f"particle_{kind}_response"].sum()
        )


def test_join_is_by_identity(settings: ValidateSettings, tmp_path: Path) -> None:
    events = many_events(90, seed=5)
    # the reconstructed file is in reverse order
    selected, reconstructed = write_pair(tmp_path, events, visible(events))
    for batch in read_pair(selected, reconstructed):
        assert ak.all(
            abs(batch.views["mlpf"].px - batch.views["truth"].px)
            < 1e-4 * abs(batch.views["truth"].px) + 1e-6
        )


@pytest.mark.parametrize("fault", ["stranger", "missing", "repeated", "renumbered"])
def test_mismatched_files_are_refused(tmp_path: Path, fault: str) -> None:
    events = many_events(30, seed=6, mean_particles=5)
    selected, reconstructed = write_pair(tmp_path, events, visible(events))
    found = parquet.read_table(reconstructed)
    if fault == "stranger":
        found = ak.with_field(found, found.event_id + np.uint64(1), "event_id")
    elif fault == "missing":
        found = found[1:]
    elif fault == "repeated":
        found = ak.concatenate([found, found[:1]])
    else:
        found = ak.with_field(found, found.event_number + np.uint64(1), "event_number")
    parquet.write_table(
        reconstructed,
        [parquet.to_arrow(found, parquet.RECONSTRUCTED_SCHEMA)],
        parquet.RECONSTRUCTED_SCHEMA,
        parquet.read_metadata(selected) | {"presence_threshold": 0.5},
    )
    with pytest.raises(UserError, match="rerun reconstruct_events"):
        list(read_pair(selected, reconstructed))


def test_unknown_sample_and_unpaired_files_are_refused(
    settings: ValidateSettings, tmp_path: Path
) -> None:
    events = many_events(6, seed=7, mean_particles=3)
    pair = write_pair(tmp_path, events, visible(events), sample="mystery")
    nowhere = {
        "metrics": tmp_path / "m.json",
        "histograms": tmp_path / "h.json",
        "plots": tmp_path / "plots",
    }
    with pytest.raises(UserError, match=r"mystery.*not configured"):
        validate.validate_model(settings, selected=[pair[0]], reconstructed=[pair[1]], **nowhere)
    with pytest.raises(UserError, match="1 selected but 0"):
        validate.validate_model(settings, selected=[pair[0]], reconstructed=[], **nowhere)
    assert not any(path.exists() for path in nowhere.values())


def test_zero_events_give_nulls_with_counts(settings: ValidateSettings, tmp_path: Path) -> None:
    events = many_events(10, seed=8)[:0]
    pair = write_pair(tmp_path, events, visible(events))
    hists = validate.fill_histograms(settings, [pair[0]], [pair[1]])
    figures = compute_metrics(hists, settings)
    json.dumps([figures, to_json(hists)], allow_nan=False)
    assert figures["n_events"] == 0
    assert figures["reconstructions"] == [name for name in RECONSTRUCTIONS if name != "ideal"]
    for reco in figures["reconstructions"]:
        assert figures["jets"]["inclusive"][reco]["response"] == {
            "n": 0,
            "median": None,
            "iqr": None,
            "resolution": None,
        }
        assert figures["particles"]["photon"][reco]["efficiency"]["value"] is None
    with styled():
        save_figure(jet_resolution(Results(figures, hists, settings)), tmp_path / "empty")
    assert (tmp_path / "empty.pdf").exists()


def test_events_without_visible_particles(settings: ValidateSettings, tmp_path: Path) -> None:
    events = many_events(30, seed=9)
    events = ak.with_field(events, events.particles[:, :0], "particles")
    pair = write_pair(tmp_path, events, smeared(events, 1, width=0.1, efficiency=0.9))
    figures = compute_metrics(validate.fill_histograms(settings, [pair[0]], [pair[1]]), settings)
    assert figures["jets"]["inclusive"]["mlpf"]["fake_rate"]["value"] in (None, 1.0)
    assert figures["visible_energy"]["mlpf"]["n"] == 0


def test_same_seed_same_figures_and_same_bytes(
    results: Results, settings: ValidateSettings, tmp_path: Path
) -> None:
    assert compute_metrics(results.hists, settings) == results.figures
    for name in ("a", "b"):
        with styled():
            save_figure(jet_resolution(results), tmp_path / name)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_booking_takes_every_shipped_detector() -> None:
    for detector in ("clic", "cld", "cms_like"):
        assert book(validate_settings(detector))["confusion"].sum().value == 0


def test_a_jet_is_the_sum_of_its_constituents() -> None:
    particles, settings = (
        visible(many_events(6, seed=3, mean_particles=30)),
        validate_settings().jets,
    )
    jets, members = cluster(particles, settings), constituents(particles, settings)
    assert ak.num(members).to_list() == ak.num(jets).to_list()
    assert ak.sum(ak.num(jets)) > 6
    for event in range(6):
        for jet, inside in zip(jets[event], members[event], strict=True):
            own = particles[event][inside]
            assert np.isclose(jet.energy, ak.sum(own.energy), rtol=1e-5)
            assert np.isclose(jet.pt, np.hypot(ak.sum(own.px), ak.sum(own.py)), rtol=1e-5)
