"""Events without tracks, without elements, without particles, and files without events, from the
simulation to reconstruction.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.config.detector import DetectorCutsConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.preprocessing import PreprocessingConfig
from particleforge.config.reconstruction import ReconstructionConfig
from particleforge.config.settings import (
    DatasetSettings,
    ReconstructSettings,
    SelectSettings,
    ShardSettings,
)
from particleforge.dataset.build import build_dataset
from particleforge.edm4hep.writer import Chunk, write_edm4hep
from particleforge.errors import UserError
from particleforge.preprocessing.shards import write_shards
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.selection.select import select_events
from particleforge.simulation import species
from particleforge.simulation.columns import Particles
from particleforge.simulation.simulate import simulate_batch
from particleforge.simulation.to_edm4hep import to_chunk, types_of
from particleforge.tables import parquet

from ..unit.simulation_fixtures import CONFIG, gun, make_settings, without_material
from ..unit.tiny_onnx import write_model

RUN, DETECTOR = load_run(CONFIG), load_detector(CONFIG, "clic")
NO_CUTS = DetectorCutsConfig()
PION, PHOTON, NEUTRINO, NOTHING = 211, 22, 12, 0
N_EVENTS = 80


def chunk_of(codes: Sequence[int], first_event: int = 0) -> Chunk:
    """Return simulated events with one particle each, or none, of 20 GeV across the beam."""
    settings = without_material(make_settings())
    numbers = first_event + np.arange(len(codes))
    batch = simulate_batch(
        particles_of(np.array(codes, np.int32)), numbers, settings, np.random.default_rng(5)
    )
    return to_chunk(batch, 0, settings.b_field_tesla, settings.collections)


def particles_of(codes: np.ndarray) -> Particles:
    event = np.flatnonzero(codes).astype(np.int32)
    pdg = codes[event]
    mass = species.mass_of(pdg)
    made = gun(PHOTON, 20.0, 1.5, len(event))
    return replace(
        made,
        event=event,
        pdg=pdg,
        charge=species.charge_of(pdg),
        mass=mass,
        energy=np.hypot(20.0, mass),
    )


class Stages:
    """Runs the stages on one file after the other in a folder."""

    def __init__(
        self, folder: Path, cuts: DetectorCutsConfig = NO_CUTS, empty_max: float = 0.9
    ) -> None:
        self.folder, self.cuts, self.empty_max = folder, cuts, empty_max
        folder.mkdir(exist_ok=True)
        self.model = write_model(folder / "model.onnx")

    def selected(self, name: str, chunks: Sequence[Chunk]) -> Path:
        root, dataset, selected = (
            self.folder / f"{name}.{end}" for end in ("root", "dataset.parquet", "parquet")
        )
        write_edm4hep(root, types_of(DETECTOR.collections), chunks, {"test": name})
        made_with = DatasetSettings.of(RUN, DETECTOR, sample_name="gun")
        limits = made_with.dataset.model_copy(update={"empty_events_fraction_max": self.empty_max})
        build_dataset(made_with.model_copy(update={"dataset": limits}), [root], dataset)
        settings = SelectSettings.of(RUN, DETECTOR, sample_name="gun").model_copy(
            update={"cuts": self.cuts}
        )
        select_events(
            settings, dataset=dataset, output=selected, cutflow=self.folder / f"{name}.cutflow.json"
        )
        return selected

    def shards(self, files: Sequence[Path]) -> Path:
        settings = ShardSettings.of(RUN, DETECTOR).model_copy(
            update={"preprocessing": PreprocessingConfig(events_per_shard=30)}
        )
        write_shards(settings, files, self.folder / "shards")
        return self.folder / "shards"

    def candidates(self, selected: Path) -> dict[int, list[dict[str, float]]]:
        """Return the reconstructed candidates of each event by the event's identity."""
        output = selected.with_suffix(".reco.parquet")
        settings = ReconstructSettings(
            reconstruction=ReconstructionConfig(splits=("train", "valid", "test"))
        )
        reconstruct_events(
            settings,
            events=selected,
            model=self.model,
            output=output,
            edm4hep=selected.with_suffix(".reco.root"),
        )
        found = parquet.read_table(output)
        return dict(zip(found.event_id.to_list(), found.candidates.to_list(), strict=True))


def read_shards(folder: Path) -> ak.Array:
    splits = json.loads((folder / "manifest.json").read_text())["splits"].values()
    return ak.concatenate(
        [
            parquet.read_table(folder / shard["file"])
            for split in splits
            for shard in split["shards"]
        ]
    )


@pytest.mark.fault("event without tracks")
@pytest.mark.fault("empty event")
def test_empty_and_trackless_events_survive_among_others(tmp_path: Path) -> None:
    codes = [PION, PHOTON, NEUTRINO, NOTHING] * (N_EVENTS // 4)
    stages = Stages(tmp_path)
    selected = stages.selected(
        "mixed", [chunk_of(codes[:50]), chunk_of(codes[50:], first_event=50)]
    )
    events = parquet.read_table(selected)
    assert events.event_number.to_list() == list(range(N_EVENTS))
    n_tracks, n_clusters = (
        ak.to_numpy(ak.num(events[name])).reshape(-1, 4) for name in ("tracks", "clusters")
    )
    assert n_tracks[:, 0].sum() > 0.8 * N_EVENTS / 4
    assert not np.any(n_tracks[:, 1:])
    assert np.all(n_clusters[:, :2] > 0)
    assert not np.any(n_clusters[:, 2:])
    stored = read_shards(stages.shards([selected]))
    assert sorted(stored.event_id.to_list()) == sorted(events.event_id.to_list())
    assert ak.sum(stored.n_elements == 0) == N_EVENTS // 2
    candidates = stages.candidates(selected)
    assert list(candidates) == events.event_id.to_list()
    found = np.array([len(event) for event in candidates.values()]).reshape(-1, 4)
    assert np.all(found[:, :2] > 0)
    assert not np.any(found[:, 2:])


@pytest.mark.fault("event without tracks")
@pytest.mark.parametrize(
    "codes",
    [[PHOTON] * 40, [PHOTON] * 39 + [NOTHING]],
    ids=["no track anywhere", "the last event is empty"],
)
def test_a_sample_without_any_track(tmp_path: Path, codes: list[int]) -> None:
    folder = Stages(tmp_path).shards([Stages(tmp_path).selected("photons", [chunk_of(codes)])])
    normalisation = json.loads((folder / "normalisation.json").read_text())
    assert set(normalisation["track"]["mean"]) == {0.0}
    assert set(normalisation["track"]["std"]) == {1.0}
    assert np.all(np.isfinite(normalisation["cluster"]["mean"]))


@pytest.mark.fault("empty event")
@pytest.mark.parametrize("code", [NEUTRINO, NOTHING])
def test_a_sample_of_nothing_but_empty_events(tmp_path: Path, code: int) -> None:
    with pytest.raises(UserError, match="20 of 20 events have neither a track nor a cluster"):
        Stages(tmp_path).selected("refused", [chunk_of([code] * 20)])
    stages = Stages(tmp_path, empty_max=1)
    selected = stages.selected("empty", [chunk_of([code] * 20)])
    assert list(stages.candidates(selected).values()) == [[]] * 20
    with pytest.raises(UserError, match="split 'train' is empty: none of 0 selected events"):
        stages = Stages(tmp_path, DETECTOR.cuts, empty_max=1)
        stages.shards([stages.selected("cut", [chunk_of([code] * 20)])])


@pytest.mark.fault("file without events")
def test_a_file_without_events_changes_nothing(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    some = stages.selected("some", [chunk_of([PION] * 40)])
    none = stages.selected("none", [chunk_of([])])
    assert stages.candidates(none) == {}
    assert (
        json.loads((tmp_path / "none.cutflow.json").read_text())["cutflow"]["events"][0]["number"]
        == 0
    )
    alone = read_shards(stages.shards([some])).to_list()
    assert read_shards(stages.shards([none, some])).to_list() == alone
