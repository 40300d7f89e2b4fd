"""Fine-tuning's start: what is copied from a network of another detector, by name, and what is
refused.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from particleforge.config.model import ModelConfig
from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.model.saved import save_model, serialise
from particleforge.training.init_from import read_source, start_from

from .synthetic_shards import random_elements, random_network, write_synthetic

MODEL = {"width": 8, "n_layers": 1, "n_heads": 2}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ModelInputs:
    return ModelInputs.from_manifest(
        write_synthetic(tmp_path_factory.mktemp("shards"), train=(4,), valid=2, test=2)
    )


def saved(path: Path, network: ParticleFlowNetwork) -> Path:
    content = {
        "weights": network.state_dict(),
        "model": network.config.model_dump(mode="json"),
        "inputs": network.inputs.plain(),
    }
    save_model(path, content)
    return path


def other_detector(inputs: ModelInputs) -> ModelInputs:
    """Return the inputs of a detector with other features, in another order, and other classes and
    normalisation.
    """
    plain: dict[str, Any] = copy.deepcopy(inputs.plain())
    track = plain["elements"]["track"]
    track.reverse()
    track.append({"name": "chi2", "transform": "log", "unit": ""})
    next(feature for feature in track if feature["name"] == "d0")["transform"] = "none"
    plain["normalisation"]["track"] = {"mean": [0.5] * len(track), "std": [2.0] * len(track)}
    none, hadron, neutral, photon = plain["classes"]
    plain["classes"] = [none, photon, {**hadron, "name": "muon", "pdg": 13}, neutral]
    return ModelInputs(**plain)


def test_same_inputs_take_all_weights(inputs: ModelInputs, tmp_path: Path) -> None:
    source = random_network(inputs, ModelConfig(**MODEL), seed=1)
    network = random_network(inputs, ModelConfig(**MODEL), seed=2)
    line = start_from(network, saved(tmp_path / "best.pt", source))
    types, features, *_ = random_elements(np.random.default_rng(3), 20)
    event = torch.from_numpy(features)[None], torch.from_numpy(types)[None]
    for ours, theirs in zip(network(*event), source(*event), strict=True):
        assert torch.equal(ours, theirs)
    assert (
        "16 features copied, fresh: none, not used: none; 3 classes copied, fresh: none, not used:"
        " none" in line
    )
    assert "\n" not in line


def test_weights_of_another_meaning_are_refused(inputs: ModelInputs, tmp_path: Path) -> None:
    network = random_network(inputs, ModelConfig(**MODEL), seed=1)
    content = {
        "weights": network.state_dict(),
        "model": network.config.model_dump(mode="json"),
        "inputs": network.inputs.plain(),
    }
    (tmp_path / "old.pt").write_bytes(serialise(content))
    with pytest.raises(UserError, match=r"old\.pt: a model of format 1, .*; train it again"):
        start_from(network, tmp_path / "old.pt")


def test_features_and_classes_are_matched_by_name(inputs: ModelInputs, tmp_path: Path) -> None:
    source = random_network(inputs, ModelConfig(**MODEL), seed=1)
    other = other_detector(inputs)
    network = random_network(other, ModelConfig(**MODEL), seed=2)
    fresh = copy.deepcopy(network.state_dict())
    line = start_from(network, saved(tmp_path / "best.pt", source))
    for what in (
        "15 features copied",
        "fresh: track.d0, track.chi2",
        "not used: track.d0",
        "2 classes copied, fresh: class.muon",
    ):
        assert what in line
    assert "not used: class.charged_hadron" in line
    projection, original = network.encoder.project.weight, source.encoder.project.weight
    new, old = (described.elements["track"] for described in (other, inputs))
    where = {feature["name"]: index for index, feature in enumerate(old)}
    for index, feature in enumerate(new):
        name = feature["name"]
        expected = (
            fresh["encoder.project.weight"][:, index]
            if name in ("d0", "chi2")
            else original[:, where[name]]
        )
        assert torch.equal(projection[:, index], expected), name
    width_new, width_old = other.n_features + 1, inputs.n_features + 1
    assert torch.equal(projection[:, width_new - 1], original[:, width_old - 1]), (
        "the bias of tracks"
    )
    assert torch.equal(projection[:, -1], original[:, -1]), "the bias of clusters"
    assert torch.equal(
        projection[:, width_new : width_new + 6], original[:, width_old : width_old + 6]
    ), "features of clusters"
    head, head_before = network.identity_head[-1].weight, source.identity_head[-1].weight
    assert torch.equal(head[[0, 1, 3, 4, 5, 6]], head_before[[0, 3, 2, 4, 5, 6]]), (
        "presence, photon, neutral hadron, charges"
    )
    assert torch.equal(
        head[2], fresh[f"identity_head.{len(network.identity_head) - 1}.weight"][2]
    ), "the new class"
    assert torch.equal(
        network.blocks[0].query_key_value.weight, source.blocks[0].query_key_value.weight
    )
    for name in ("encoder.mean", "encoder.inverse_std", "encoder.is_log", "host_columns"):
        assert torch.equal(network.state_dict()[name], fresh[name]), name


@pytest.mark.fault("weights of another architecture")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 12}, "model.width is 12 there and 8 here"),
        ({"n_layers": 2}, "model.n_layers is 2 there and 1 here"),
        (
            {"n_layers": 2, "head_layers": 3, "dropout": 0.5},
            "model.n_layers is 2 there and 1 here, model.head_layers is 3 there and 2 here",
        ),
    ],
)
def test_another_architecture_is_refused_by_the_names_of_its_settings(
    inputs: ModelInputs, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    path = saved(tmp_path / "best.pt", random_network(inputs, ModelConfig(**{**MODEL, **change})))
    with pytest.raises(UserError) as caught:
        start_from(random_network(inputs, ModelConfig(**MODEL)), path)
    assert str(caught.value).startswith(
        f"training.init_from: {path}: a network of another architecture: {named}"
    )
    assert "\n" not in str(caught.value)


def test_settings_that_change_no_shape_are_told(inputs: ModelInputs, tmp_path: Path) -> None:
    path = saved(
        tmp_path / "best.pt", random_network(inputs, ModelConfig(**{**MODEL, "dropout": 0.5}))
    )
    assert "other settings: model.dropout is 0.5 there and 0.0 here" in start_from(
        random_network(inputs, ModelConfig(**MODEL)), path
    )


@pytest.mark.fault("weights of another architecture")
def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.init_from: .*missing\.pt: no such file"):
        read_source(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(UserError, match=r"text\.pt: refused|text\.pt: no model or checkpoint"):
        read_source(tmp_path / "text.pt")
    torch.save({"weights": {}, "step": 1}, tmp_path / "foreign.pt")
    with pytest.raises(
        UserError,
        match=(
            r"foreign\.pt: no model or checkpoint of this package .*; give the best\.pt of a"
            r" training"
        ),
    ):
        read_source(tmp_path / "foreign.pt")
