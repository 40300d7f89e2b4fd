"""Inputs of the report, from synthetic events through the real selection.

What needs a network is written by hand.
"""

from pathlib import Path

import awkward as ak
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml

from particleforge.artefacts import write_json, write_text
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import CutflowSettings, ReportSettings, SelectSettings
from particleforge.dataset.balance import Balance
from particleforge.pages.figures import new_figure, save_figure, styled
from particleforge.paths import HPO_PLOTS
from particleforge.provenance.record import Provenance
from particleforge.report.build import ReportInputs
from particleforge.selection.cutflow import gather_cutflows
from particleforge.selection.select import select_events
from particleforge.tables import parquet, schema
from particleforge.training.metrics import metrics_table
from particleforge.validation.captions import captions
from particleforge.validation.histograms import to_json
from particleforge.validation.metrics import compute_metrics
from particleforge.validation.validate import fill_histograms

from .checked_data import (
    judge_sample,
    judge_samples,
    judge_shards,
    write_sample,
    write_training_shards,
)
from .synthetic import synthetic_events
from .validation_inputs import CONFIG, PRESENCE_THRESHOLD, smeared, validate_settings

SAMPLES = ("qq", "ttbar", "ww")


def report_settings() -> ReportSettings:
    run = load_run(CONFIG, {"preset": "smoke", "report": {"n_event_displays": 1}})
    return ReportSettings.of(run, load_detector(CONFIG, "clic"))


def write_report_inputs(
    folder: Path, n_events: int, *, mean_particles: float = 12.0
) -> ReportInputs:
    """Write everything but the validation's results, whose paths are given all the same."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [
        _write_shard(folder, sample, number, n_events, mean_particles)
        for number, sample in enumerate(SAMPLES)
    ]
    run, detector = load_run(CONFIG, {"preset": "smoke"}), load_detector(CONFIG, "clic")
    gather_cutflows(
        CutflowSettings.of(run, detector),
        cutflows=[shard[3] for shard in shards],
        table=folder / "select/cutflow.csv",
        plot=folder / "select/cutflow.png",
    )
    manifest = folder / "shards/manifest.json"
    splits = {
        name: {
            "n_events": 40,
            "n_elements": 800,
            "shards": [
                {"file": f"{name}/00000.parquet", "n_events": 40, "n_elements": 800, "sha256": ""}
            ],
        }
        for name in ("train", "valid", "test")
    }
    described = {"splits": splits, "elements": {"track": [], "cluster": []}, "n_features": 0}
    classes = [{"name": "none"}, {"name": "photon"}]
    told = {"kind": "manifest", "schema_version": 1, "classes": classes}
    write_json(manifest, {**told, **described})
    Provenance.of("write_shards", {"version": 1}).record(manifest)
    return ReportInputs(
        dataset=[shard[0] for shard in shards],
        selected=[shard[1] for shard in shards],
        reconstructed=[shard[2] for shard in shards],
        cutflow_table=folder / "select/cutflow.csv",
        cutflow_plot=folder / "select/cutflow.png",
        manifest=manifest,
        **_write_verdicts(folder / "checked"),
        **_write_search(folder),
        **_write_training(folder),
        physics_metrics=folder / "validate/metrics.json",
        histograms=folder / "validate/histograms.json",
        validation_plots=folder / "validate/plots",
    )


def _write_shard(
    folder: Path, sample: str, seed: int, n_events: int, mean_particles: float
) -> tuple[Path, Path, Path, Path]:
    run, detector = load_run(CONFIG, {"preset": "smoke"}), load_detector(CONFIG, "clic")
    dataset, selected, reconstructed = (
        folder / stage / sample / "00000.parquet" for stage in ("dataset", "select", "reco")
    )
    events = synthetic_events(n_events, seed, mean_particles=mean_particles)
    particles = events.particles
    balance = {
        "visible": float(ak.sum(particles.energy[particles.fate != int(schema.Fate.INVISIBLE)])),
        "target": float(ak.sum(events.targets.energy)),
        "merged": float(ak.sum(particles.energy[particles.fate == int(schema.Fate.MERGED)])),
        "dropped": float(ak.sum(particles.energy[particles.fate == int(schema.Fate.DROPPED)])),
    }
    made = {"stage": "build_dataset", "settings": {"sample_name": sample}}
    energy = Balance(
        **balance, dropped_no_cluster=balance["dropped"], generated=balance["visible"]
    ).energies_gev()
    files = [
        {
            "file": f"{sample}-{i}.root",
            "events": n_events,
            "energy_balance_gev": energy,
            "counts": {},
        }
        for i in range(2)
    ]
    metadata = {"provenance": made, "energy_balance_gev": energy, "files": files, "quarantined": []}
    parquet.write_table(
        dataset,
        [parquet.to_arrow(events, parquet.DATASET_SCHEMA)],
        parquet.DATASET_SCHEMA,
        metadata,
    )
    cutflow = folder / f"select/{sample}/00000.cutflow.json"
    select_events(
        SelectSettings.of(run, detector, sample_name=sample),
        dataset=dataset,
        output=selected,
        cutflow=cutflow,
    )
    chosen = parquet.read_table(selected)
    chosen = chosen[chosen.split == "test"]
    found = ak.with_field(chosen, smeared(chosen, seed, width=0.03, efficiency=0.98), "candidates")
    types = parquet.RECONSTRUCTED_SCHEMA
    described = {"sample": sample, "presence_threshold": PRESENCE_THRESHOLD}
    parquet.write_table(reconstructed, [parquet.to_arrow(found, types)], types, described)
    return dataset, selected, reconstructed, cutflow


def _write_verdicts(folder: Path) -> dict[str, Path]:
    """Check events like those of the report."""
    for sample in SAMPLES:
        judge_sample(folder, write_sample(folder, sample, sizes=(20, 30)))
    dataset = judge_samples(
        folder, [folder / f"checks/dataset/{sample}.json" for sample in SAMPLES]
    )
    return {
        "dataset_verdict": dataset,
        "shards_verdict": judge_shards(write_training_shards(folder, 60)),
    }


def _write_search(folder: Path) -> dict[str, object]:
    rows = [
        {
            "trial": i,
            "config": f"c{i % 4:05d}",
            "rung": i // 4,
            "slot": i % 4,
            "parent": None,
            "steps": 5 * 2 ** (i // 4),
        }
        | {
            "status": "complete" if i != 2 else "diverged",
            "value": 1 / (1 + i) if i != 2 else None,
            "place": 4 - i % 4,
            "promoted": i == 3,
        }
        | {
            "default_value": 1.0,
            "ranks": 2,
            "seconds": 2.0,
            "reason": "" if i != 2 else "loss is nan",
            "model.width": 16 * (1 + i % 2),
        }
        for i in range(6)
    ]
    best = {
        "config": "c00001",
        "trial": 5,
        "value": 1 / 6,
        "steps": 10,
        "why": "lowest validation loss of the 2 configurations that reached 10 steps",
        "seeds": [
            {
                "config": "c00001",
                "values": [0.15, 0.17],
                "mean": 0.16,
                "standard_deviation": 0.0141,
                "failures": 0,
            }
        ],
        "pareto_front": [{"trial": 5, "config": "c00001", "value": 0.16, "inference_gflop": 0.031}],
        "model": {"width": 32},
        "training": {"learning_rate": 0.002},
        "against_default": {
            "budget": 10.0,
            "budget_unit": "steps",
            "default_value": 0.2,
            "best_value": 1 / 6,
            "relative_change": -1 / 6,
            "at_full_budget": True,
        },
        "against_random": {
            "rank_hours": 0.02,
            "random_value": 0.2,
            "estimated": True,
            "relative_change": -1 / 6,
        },
    }
    write_text(folder / "hpo/best.yaml", yaml.safe_dump(best))
    pd.DataFrame(rows).to_csv(folder / "hpo/trials.csv", index=False)
    draw_stand_ins(folder / "hpo", HPO_PLOTS)
    plots = {name: folder / f"hpo/{name}.png" for name in HPO_PLOTS}
    return {
        "hpo_best": folder / "hpo/best.yaml",
        "hpo_trials": folder / "hpo/trials.csv",
        "hpo_plots": plots,
    }


def _write_training(folder: Path) -> dict[str, object]:
    terms = ("presence", "classification", "charge", "momentum", "loss")
    rows = []
    for step in range(10, 210, 10):
        values = {name: (1 + k) / np.sqrt(step) for k, name in enumerate(terms)}
        rows.append(
            {
                "step": step,
                "epoch": 0,
                "split": "train",
                "values": (
                    values
                    | {"learning_rate": 1e-3, "events_per_s": 50.0, "padding_efficiency": 0.95}
                ),
            }
        )
        rows.append({"step": step, "epoch": 0, "split": "valid", "values": values})
    (folder / "train").mkdir()
    pq.write_table(metrics_table(rows), folder / "train/metrics.parquet")
    write_json(
        folder / "export/parity.json",
        {"kind": "parity", "fp32": {"score_difference": 2e-6, "n_events": 64}, "provenance": {}},
    )
    write_text(
        folder / "export/model_card.md",
        "# Model card\n\nReads <features>, writes particles. See https://example.org/model\n",
    )
    return {
        "metrics": folder / "train/metrics.parquet",
        "parity": folder / "export/parity.json",
        "model_card": folder / "export/model_card.md",
    }


def draw_stand_ins(folder: Path, names: tuple[str, ...]) -> None:
    """Write the same small picture under every name: the report embeds pictures, it does not draw
    them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        figure = new_figure(2, 1)
        save_figure(figure, folder / names[0])
    for name in names[1:]:
        (folder / f"{name}.png").write_bytes((folder / f"{names[0]}.png").read_bytes())


def finish(inputs: ReportInputs) -> None:
    """Write the validation's results, with stand-ins for its plots."""
    settings = validate_settings()
    hists = fill_histograms(settings, inputs.selected, inputs.reconstructed)
    write_json(
        inputs.physics_metrics,
        {"kind": "validation_metrics", **compute_metrics(hists, settings)},
    )
    write_json(inputs.histograms, to_json(hists))
    draw_stand_ins(inputs.validation_plots, tuple(captions(settings.particle_classes)))
