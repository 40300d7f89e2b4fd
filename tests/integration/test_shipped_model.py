"""The model in examples/models: small, of this version's features, and worth starting from."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from particleforge.config.load import load_detector
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.training.init_from import read_source, start_from

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "models" / "clic"
SIZE_MAX = 5_000_000


def test_the_folder_is_small_and_has_what_a_user_needs() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert {"best.pt", "model.onnx", "model_card.md", "metrics.json"} <= files.keys()
    assert sum(files.values()) <= SIZE_MAX


def test_its_features_are_those_of_the_detector_today() -> None:
    inputs = read_source(FOLDER / "best.pt").inputs
    detector = load_detector(ROOT / "config", "clic")
    for element_type in inputs.element_types:
        features = getattr(detector.elements, element_type)
        names = [(feature.name, feature.transform) for feature in features]
        assert names == [(f["name"], f["transform"]) for f in inputs.elements[element_type]]
    assert [c["name"] for c in inputs.classes[1:]] == [c.name for c in detector.particle_classes]


def test_fine_tuning_starts_from_all_of_its_weights() -> None:
    source = read_source(FOLDER / "best.pt")
    network = ParticleFlowNetwork(source.model, ModelInputs(**source.inputs.plain()))
    assert start_from(network, FOLDER / "best.pt").count("fresh: none") == 2
    for name, parameter in network.named_parameters():
        # columns of the first layer that no feature uses stay as they were
        if name != "encoder.project.weight":
            assert torch.equal(parameter, source.weights[name]), name


def test_it_beats_the_rules_on_events_that_no_training_saw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    physics: Any = importlib.import_module("physics")
    physics.main(["--model", str(FOLDER), "--events", "150", "--processes", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["jet_resolution"] < 0.85 * found["baseline"]
    assert found["visible_energy_ratio"] < 1
    assert found["charged_pt_ratio"] < 1.1


def test_pages_say_the_stored_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    tables: Any = importlib.import_module("result_tables")
    tables.main(["--check"])
    assert all("begin -->" in (ROOT / page).read_text() for page in tables.PAGES)
