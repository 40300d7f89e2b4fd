"""Export of a trained network through the real exporter and onnxruntime."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from particleforge.config.model import ModelConfig
from particleforge.config.settings import ExportSettings
from particleforge.errors import UserError
from particleforge.export.onnx_model import export_onnx
from particleforge.export.threshold import GRID
from particleforge.model.decode import Decoder
from particleforge.model.inputs import ModelInputs
from particleforge.model.saved import load_model, save_model

from ..unit.synthetic_shards import N_FEATURES, random_network, write_synthetic
from ..unit.test_model import make_batch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with shards and a network."""
    folder = tmp_path_factory.mktemp("export")
    inputs = ModelInputs.from_manifest(write_synthetic(folder / "shards", longest=60))
    config = ModelConfig(width=16, n_layers=2, n_heads=2)
    network = random_network(inputs, config)
    content = {
        "weights": network.state_dict(),
        "model": config.model_dump(mode="json"),
        "inputs": inputs.plain(),
        "training": {},
    }
    made = {"settings_hash": "", "inputs": {}, "packages": {}}
    save_model(folder / "best.pt", {**content, "step": 3, "valid_loss": 0.5, "provenance": made})
    return folder


def export(folder: Path, name: str, **changes: object) -> Path:
    out = folder / name
    export_onnx(
        ExportSettings(export=changes, origin="made up"),
        detector="clic",
        checkpoint=folder / "best.pt",
        manifest=folder / "shards" / "manifest.json",
        onnx=out / "model.onnx",
        parity=out / "parity.json",
        model_card=out / "model_card.md",
    )
    return out / "model.onnx"


@pytest.mark.parametrize("opset", [20, 23])
def test_exported_model_keeps_its_contract(folder: Path, opset: int) -> None:
    model = export(folder, f"opset{opset}", opset=opset)
    report = json.loads((model.parent / "parity.json").read_text())
    assert report["score_difference"] <= 1e-5
    assert report["lengths"][0] == 0
    assert report["weight_difference"] <= 1e-5
    assert report["events_per_s_one_thread"]["onnxruntime"] > 0
    assert "# Particle-flow model" in (model.parent / "model_card.md").read_text()
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    metadata = {
        name: json.loads(value)
        for name, value in session.get_modelmeta().custom_metadata_map.items()
    }
    manifest = json.loads((folder / "shards" / "manifest.json").read_text())
    assert metadata["elements"] == manifest["elements"]
    assert metadata["classes"] == manifest["classes"]
    assert metadata["opset"] == opset
    assert metadata["presence_threshold"] == report["presence_threshold"]
    assert metadata["presence_threshold"] in GRID
    card = (model.parent / "model_card.md").read_text()
    assert f"weight of at least {report['presence_threshold']:g}, chosen" in card
    assert metadata.keys() == {
        "kind",
        "sha256",
        "elements",
        "classes",
        "units",
        "normalisation",
        "presence_threshold",
        "provenance",
        "opset",
    }
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("features", "tensor(float)"),
        ("element_type", "tensor(int64)"),
    ]
    outputs = [
        ("class_scores", "tensor(float)"),
        ("charge", "tensor(int64)"),
        ("p4", "tensor(float)"),
        ("weight", "tensor(float)"),
    ]
    assert [(o.name, o.type) for o in session.get_outputs()] == outputs
    for shape in ((1, 0), (3, 0), (1, 1), (2, 17)):
        feed = {
            "features": np.ones((*shape, N_FEATURES), np.float32),
            "element_type": np.ones(shape, np.int64),
        }
        found = session.run(None, feed)
        assert [output.shape for output in found] == [(*shape, 4), shape, (*shape, 4), shape]


def test_latents_are_one_more_output_and_equal_torch_at_any_length(folder: Path) -> None:
    model = export(folder, "latents", latents=True)
    report = json.loads((model.parent / "parity.json").read_text())
    assert 0 < report["latent_difference"] <= 1e-5
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    last = session.get_outputs()[-1]
    assert (last.name, last.type, last.shape) == (
        "latents",
        "tensor(float)",
        ["batch", "elements", 16],
    )
    assert len(session.get_outputs()) == 5
    decoder = Decoder(load_model(folder / "best.pt")[0], latents=True)
    for lengths in ([0], [1], [9, 0, 40]):
        batch = make_batch(lengths, seed=3, padding=2)
        feed = {"features": batch.features.numpy(), "element_type": batch.element_type.numpy()}
        (found,) = session.run(["latents"], feed)
        with torch.no_grad():
            for row, n in enumerate(lengths):  # each event alone and unpadded
                alone = decoder(
                    batch.features[row : row + 1, :n], batch.element_type[row : row + 1, :n]
                )
                np.testing.assert_allclose(found[row, :n], alone[-1][0], atol=1e-4)
                assert not found[row, n:].any()


def test_bytes_do_not_depend_on_folder_or_machine(folder: Path) -> None:
    one, two = export(folder, "a").read_bytes(), export(folder, "b").read_bytes()
    assert one == two
    assert b"site-packages" not in one
    assert str(Path(__file__).parents[2]).encode() not in one


def test_no_model_over_the_tolerance(folder: Path) -> None:
    with pytest.raises(UserError, match=r"momenta differ from torch by .* in .*event"):
        export(folder, "strict", momentum_tolerance=1e-12)
    assert not (folder / "strict" / "model.onnx").exists()
