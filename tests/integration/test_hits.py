"""Hits as elements from simulation to validation, chosen by configuration alone."""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import (
    DatasetSettings,
    ExportSettings,
    ReconstructSettings,
    SelectSettings,
    ShardSettings,
    TrainSettings,
    ValidateSettings,
    simulate_settings,
)
from particleforge.dataset.build import build_dataset
from particleforge.export.onnx_model import export_onnx
from particleforge.preprocessing.shards import write_shards
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.selection.select import select_events
from particleforge.simulation.simulate import simulate_events
from particleforge.tables.parquet import read_metadata, read_table
from particleforge.tables.schema import Fate
from particleforge.training.train import train_model
from particleforge.validation.validate import validate_model

CONFIG = Path(__file__).parents[2] / "config"
CHOSEN = {
    "simulation": {"events_per_shard": 12},
    "dataset": {"calorimeter_elements": "hits", "hit_energy_min_mev": 30.0},
    "selection": {"train_fraction": 0.5, "valid_fraction": 0.25, "test_fraction": 0.25},
    "model": {"backbone": "windowed_attention", "width": 8, "n_layers": 1, "n_heads": 2},
    "training": {
        **{"events_seen": None, "max_steps": 6},
        "valid_every_steps": 3,
        "checkpoint_every_steps": 3,
        "log_every_steps": 1,
        **{"warmup_events": None, "warmup_steps": 1},
        "elements_per_batch": 8192,
        "learning_rate": 3e-3,
        "device": "cpu",
    },
    "validation": {"n_bootstrap": 10},
}
SAMPLE = "qq"


def check_elements(table, balance):
    """Look at a dataset whose calorimeter elements are hits."""
    n_tracks, n_hits = ak.num(table.tracks), ak.num(table.clusters)
    assert 300 < ak.mean(n_hits) < 5000
    assert ak.min(table.clusters.energy) >= np.float32(0.03)
    assert balance["target"] + balance["dropped"] == pytest.approx(balance["visible"], rel=1e-6)
    assert balance["dropped"] + balance["merged"] < 0.01 * balance["visible"]
    hosted = table.particles[table.particles.fate == int(Fate.HOSTED)]
    assert ak.any(hosted.element >= n_tracks)
    # the baseline's neutral candidates stand for hits, where their cluster has one above the
    # threshold
    neutral = table.candidates.element[table.candidates.charge == 0]
    on_hit = (neutral >= n_tracks) & (neutral < n_tracks + n_hits)
    assert ak.all(on_hit | (neutral == -1))
    assert ak.mean(on_hit) > 0.8
    assert all(len(set(of_event)) == len(of_event) for of_event in neutral[on_hit].to_list())


def trained(settings, manifest, folder):
    """Return a network that has learnt something."""
    best, metrics = folder / "best.pt", folder / "metrics.parquet"
    train_model(
        settings,
        manifest=manifest,
        work_dir=folder / "work",
        model=best,
        last=folder / "last.pt",
        metrics=metrics,
        tensorboard=folder / "tensorboard",
        best_settings=None,
    )
    losses = [
        row["value"]
        for row in pq.read_table(metrics).to_pylist()
        if (row["split"], row["name"]) == ("valid", "loss")
    ]
    assert losses[-1] < losses[0]
    return best


@pytest.mark.integration
def test_hits_go_through_the_whole_chain(tmp_path):
    run, detector = load_run(CONFIG, CHOSEN), load_detector(CONFIG, "clic")
    simulate_events(simulate_settings(run, detector, SAMPLE), "00000", tmp_path / "sim.root")

    build_dataset(
        DatasetSettings.of(run, detector, sample_name=SAMPLE),
        [tmp_path / "sim.root"],
        tmp_path / "dataset.parquet",
    )
    table = read_table(tmp_path / "dataset.parquet")
    balance = read_metadata(tmp_path / "dataset.parquet")["energy_balance_gev"]
    check_elements(table, balance)

    selected, cutflow = tmp_path / "selected.parquet", tmp_path / "cutflow.json"
    select_events(
        SelectSettings.of(run, detector, sample_name=SAMPLE),
        dataset=tmp_path / "dataset.parquet",
        output=selected,
        cutflow=cutflow,
    )
    write_shards(ShardSettings.of(run, detector), [selected], tmp_path / "shards")
    manifest = tmp_path / "shards/manifest.json"

    best = trained(TrainSettings.of(run, detector), manifest, tmp_path)
    model, card = tmp_path / "model.onnx", tmp_path / "model_card.md"
    export_onnx(
        ExportSettings.of(run, detector),
        detector="clic",
        checkpoint=best,
        manifest=manifest,
        onnx=model,
        parity=tmp_path / "parity.json",
        model_card=card,
    )
    assert "0 padding, 1 track, 2 hit" in card.read_text()
    reco = tmp_path / "reco.parquet"
    reconstruct_events(
        ReconstructSettings.of(run, detector),
        events=selected,
        model=model,
        output=reco,
        edm4hep=tmp_path / "reco.root",
    )
    found = read_table(reco)
    assert len(found) > 0
    assert ak.all(np.isfinite(found.candidates.energy))

    metrics = tmp_path / "validate.json"
    validate_model(
        ValidateSettings.of(run, detector),
        selected=[selected],
        reconstructed=[reco],
        metrics=metrics,
        histograms=tmp_path / "histograms.json",
        plots=tmp_path / "plots",
    )
    assert json.loads(metrics.read_text())["n_events"] == len(found)
