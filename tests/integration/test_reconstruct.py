"""Selected events -> shards -> exported network -> reconstructed files, and the same for a real
full-simulation file.
"""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import torch
import uproot

from particleforge.config.load import load_detector, load_run
from particleforge.config.model import ModelConfig
from particleforge.config.settings import (
    DatasetSettings,
    ReconstructSettings,
    SelectSettings,
    ShardSettings,
)
from particleforge.dataset.build import build_dataset
from particleforge.export.onnx_model import convert
from particleforge.model.decode import Decoder
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.preprocessing.features import element_features
from particleforge.preprocessing.shards import write_shards
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.selection.select import select_events
from particleforge.tables import parquet

from ..unit.real_files import real_file
from ..unit.synthetic import synthetic_events, write_dataset

pytestmark = pytest.mark.integration
CONFIG = Path(__file__).parents[2] / "config"
RUN = load_run(CONFIG, {"reconstruction": {"elements_per_batch": 512, "presence_min": 0.4}})
DETECTOR = load_detector(CONFIG, "cld")
SETTINGS = ReconstructSettings.of(RUN, DETECTOR)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Decoder, Path]:
    """A selected file, a network with random weights, and its ONNX export."""
    folder = tmp_path_factory.mktemp("chain")
    dataset = write_dataset(folder / "dataset.parquet", synthetic_events(300, 1), row_group_size=50)
    select_events(
        SelectSettings.of(RUN, DETECTOR, sample_name="ttbar"),
        dataset=dataset,
        output=folder / "selected.parquet",
        cutflow=folder / "cutflow.json",
    )
    write_shards(ShardSettings.of(RUN, DETECTOR), [folder / "selected.parquet"], folder / "shards")
    torch.manual_seed(1)
    network = ParticleFlowNetwork(
        ModelConfig(width=16, n_layers=1, n_heads=2),
        ModelInputs.from_manifest(folder / "shards" / "manifest.json"),
    )
    with torch.no_grad():  # an untrained network gives every element nearly the same answer
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    decoder = Decoder(network).eval()
    (folder / "model.onnx").write_bytes(convert(decoder, RUN.export.opset, 0.5, {}))
    return folder / "selected.parquet", decoder, folder / "model.onnx"


def test_reconstruction_equals_the_network_event_by_event(
    exported: tuple[Path, Decoder, Path], tmp_path: Path
) -> None:
    selected, decoder, model = exported
    reconstruct_events(
        SETTINGS,
        events=selected,
        model=model,
        output=tmp_path / "reco.parquet",
        edm4hep=tmp_path / "reco.root",
    )
    found = parquet.read_table(tmp_path / "reco.parquet")
    events = parquet.read_table(selected)
    events = events[events.split.to_numpy() == "test"]
    assert found.event_id.to_list() == events.event_id.to_list()
    assert 0 < ak.sum(ak.num(found.candidates)) < ak.sum(ak.num(events.targets))
    for i in range(len(events)):
        elements = element_features(events[i : i + 1], DETECTOR.elements)
        with torch.no_grad():
            inputs = (
                torch.from_numpy(elements.features[None]),
                torch.from_numpy(elements.element_type[None].astype(np.int64)),
            )
            scores, charge, p4, weight = decoder(*inputs)
        present = np.flatnonzero(weight[0].numpy() > RUN.reconstruction.presence_min)
        candidates = found.candidates[i]
        assert candidates.element.to_list() == present.tolist()
        assert candidates.class_id.to_list() == (1 + scores[0, present, 1:].argmax(-1)).tolist()
        assert candidates.charge.to_list() == charge[0, present].tolist()
        np.testing.assert_allclose(candidates.weight, weight[0, present], rtol=1e-4)
        for column, name in enumerate(("px", "py", "pz", "energy")):
            np.testing.assert_allclose(
                candidates[name].to_numpy(), p4[0, present, column].numpy(), rtol=1e-4, atol=1e-4
            )
    with uproot.open(tmp_path / "reco.root") as file:
        assert (
            file["events"]["MLPFCandidates.PDG"].array().to_list() == found.candidates.pdg.to_list()
        )


def test_a_real_file_is_reconstructed(exported: tuple[Path, Decoder, Path], tmp_path: Path) -> None:
    source, dataset = real_file("cld_hbb_full_rec_1ev.edm4hep.root"), tmp_path / "dataset.parquet"
    build_dataset(DatasetSettings.of(RUN, DETECTOR, sample_name="files"), [source], dataset)
    reconstruct_events(
        SETTINGS,
        events=dataset,
        model=exported[2],
        output=tmp_path / "reco.parquet",
        edm4hep=tmp_path / "reco.root",
    )
    elements = parquet.read_table(dataset)
    found = parquet.read_table(tmp_path / "reco.parquet")
    assert len(found) == 1
    assert ak.all(found.candidates.element < ak.num(elements.targets))
    with uproot.open(tmp_path / "reco.root") as file:
        energy = file["events"]["MLPFCandidates.energy"].array()
        assert ak.all(np.isfinite(energy))
        assert energy.to_list() == found.candidates.energy.to_list()
