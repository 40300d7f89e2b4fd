"""Sound files that the package writes, and what it makes of them, for ``attack_stored``."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from particleforge.artefacts import write_json
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import (
    ReconstructSettings,
    SelectSettings,
    ShardSettings,
    TrainSettings,
)
from particleforge.dataset.accounting import accounting_plain
from particleforge.hpo.progress import read_work_folder
from particleforge.hpo.slot import check_slots
from particleforge.hpo.study import open_study
from particleforge.inputs.sources import Ledger
from particleforge.model.inputs import ModelInputs
from particleforge.model.saved import load_model
from particleforge.preprocessing.shards import write_shards
from particleforge.provenance.lineage import read_lineage, verify_lineage
from particleforge.provenance.record import Provenance
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.selection.select import select_events
from particleforge.stored import NO_SEAL, sealed
from particleforge.tables import parquet
from particleforge.training.checkpoint import latest_state, write_checkpoint
from particleforge.training.init_from import read_source
from particleforge.training.launch import _make_room
from particleforge.training.metrics import MetricsLog, read_rows
from particleforge.training.spec import CHECKPOINTS, TrainingResult, TrainingSpec
from particleforge.validation.events import check_repeats, read_pair

from ..unit import tiny_onnx
from ..unit.checked_data import CONFIG, judge_sample, judge_shards, write_dataset_shard
from ..unit.checked_data import write_training_shards as write_checked_shards
from ..unit.hpo_fixtures import Search
from ..unit.synthetic import synthetic_events
from ..unit.synthetic_shards import write_model
from ..unit.validation_inputs import visible, write_pair

RUN, CLIC = load_run(CONFIG, {"preset": "smoke"}), load_detector(CONFIG, "clic")
LOOSE = {"drift_ks_distance_max": 1.0, "normalisation_difference_max": 1e-6}


@dataclass(frozen=True)
class Target:
    """Files to attack, and their use; ``told``: whether a checksum or rule holds all of it."""

    name: str
    files: str  # a glob
    use: Callable[[Path], Any]
    told: bool = True
    read: bool = False  # where bytes are changed, the table is read and not used, which is quick


# --- uses: a folder -> what the package makes of it ---


def _table(path: Path) -> Any:
    return parquet.read_columns(path), {
        key: value for key, value in parquet.read_metadata(path).items() if key != "provenance"
    }


def read(path: Path) -> Any:
    """Read a table as a stage does."""
    if path.suffix != ".parquet":
        return None
    Provenance.of("reads", {}, [path])
    return parquet.read_table(path), _table(path)[1]


def _dataset(folder: Path) -> Any:
    table = folder / "dataset/qq/00000.parquet"
    verdict = judge_sample(folder / "made", [table], **LOOSE)
    select_events(
        SelectSettings.of(RUN, CLIC, sample_name="qq"),
        dataset=table,
        output=folder / "made/selected.parquet",
        cutflow=folder / "made/cutflow.json",
    )
    rows = _table(folder / "made/selected.parquet")
    return rows, accounting_plain([table]), {k: v for k, v in verdict.items() if k != "provenance"}


def _selected(folder: Path) -> Any:
    tables = [folder / f"select/{sample}/00000.parquet" for sample in ("qq", "ttbar")]
    write_shards(ShardSettings.of(RUN, CLIC), tables, folder / "made")
    return [_table(path)[0] for path in sorted((folder / "made").rglob("*.parquet"))]


def _reconstructed(folder: Path) -> Any:
    pair = folder / "ttbar_selected.parquet", folder / "ttbar_reconstructed.parquet"
    check_repeats([pair[1]])
    Provenance.of("validate_model", {}, pair)  # as the stage does, which looks at records
    return [batch.views["mlpf"].to_list() for batch in read_pair(*pair)]


def _shards(folder: Path) -> Any:
    verdict = json.loads(judge_shards(folder / "shards/manifest.json", **LOOSE).read_text())
    inputs = ModelInputs.from_manifest(folder / "shards/manifest.json")
    return {k: v for k, v in verdict.items() if k != "provenance"}, inputs.plain()


def _onnx(folder: Path) -> Any:
    reconstruct_events(
        ReconstructSettings(reconstruction=RUN.reconstruction),
        events=folder / "dataset.parquet",
        model=folder / "model.onnx",
        output=folder / "made.parquet",
        edm4hep=folder / "made.root",
    )
    model = OnnxModel(folder / "model.onnx", 1)
    return _table(folder / "made.parquet")[0], model.classes, model.presence_threshold


def _model(folder: Path) -> Any:
    network, content = load_model(folder / "best.pt")
    source = read_source(folder / "best.pt")
    return network.state_dict(), source.weights, content


def _checkpoint(folder: Path) -> Any:
    state = latest_state(folder)
    return None if state is None else state["network"]


def _search(folder: Path) -> Any:
    search = Search(folder)
    study = open_study(search.settings, search.manifest, search.work)
    check_slots(search.outputs(), study)
    progress = read_work_folder(search.work).plain()
    return progress["best"], len(study.trials())


def _training(folder: Path) -> Any:
    spec = _spec(folder)
    _make_room(spec)
    found = TrainingResult.read(spec.work_dir, "abc", 5)
    curve = found.valid_curve if found else []
    MetricsLog(spec.work_dir, 5, None, curve or [[5, 1.0]]).close()
    return found, read_rows(spec.work_dir / "metrics.jsonl")


def _lineage(folder: Path) -> Any:
    lineage = read_lineage(folder / "b.json")
    verify_lineage(lineage)
    if lineage.problems():
        return None
    return sorted(
        (path.name, None if item.record is None else item.record["settings"])
        for path, item in lineage.items.items()
    )


def _ledger(folder: Path) -> Any:
    return Ledger.read(folder / "qq.json", 2)


TARGETS = {
    "parquet": [
        Target("dataset", "dataset/qq/*", _dataset, read=True),
        Target("selected", "select/*/*", _selected, read=True),
        Target("reconstructed", "ttbar_reconstructed.parquet*", _reconstructed, read=True),
        Target("shards", "shards/*/*.parquet", _shards),
    ],
    "json": [
        Target("shards", "shards/*.json", _shards),
        Target("search", "slots/*/*.json", _search, told=False),
        Target("search", "work/journal.log", _search, told=False),
        Target("training", "work/*.json*", _training, told=False),
        Target("lineage", "*.provenance.json", _lineage, told=False),
        Target("ledger", "*.json", _ledger, told=False),
    ],
    "onnx": [Target("onnx", "model.onnx", _onnx)],
    "checkpoints": [
        Target("model", "best.pt", _model),
        Target("checkpoint", "*.pt", _checkpoint),
    ],
}


# --- sound files ---


def _spec(folder: Path) -> TrainingSpec:
    settings = TrainSettings.model_validate({"seed": 1, "model": {}, "training": {"max_steps": 9}})
    return TrainingSpec(settings, folder / "manifest.json", folder / "work", 9)


def _make_training(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")
    spec = _spec(folder)
    checkpoint = spec.work_dir / CHECKPOINTS / "step_000000005_0123456789abcdef.pt"
    checkpoint.parent.mkdir(parents=True)
    files = {name: spec.work_dir / name for name in ("best.pt", "metrics.parquet")}
    for path in (checkpoint, *files.values()):
        path.write_text("content")
    write_json(spec.work_dir / "origin.json", spec.origin())
    spec.write()
    log = MetricsLog(spec.work_dir, 0, None)
    log.add(5, 0, "valid", {"loss": 1.0})
    log.close()
    result = TrainingResult(
        "complete", "done", 5, 1.0, 1.0, [[5, 1.0]], checkpoint, *files.values()
    )
    result.write(spec.work_dir, "abc", 5)


def _make_model(folder: Path) -> None:
    write_model(folder)


def _make_checkpoint(folder: Path) -> None:
    for step in (1, 2):
        weights = {"weight": torch.arange(20.0) + step}
        write_checkpoint(folder, {"step": step, "network": weights, "averaged": None})


def _make_onnx(folder: Path) -> None:
    told = {"elements": tiny_onnx.ELEMENTS, "classes": tiny_onnx.CLASSES, "sha256": NO_SEAL}
    path = tiny_onnx.write_model(
        folder / "model.onnx", metadata={**told, "presence_threshold": 0.4, "kind": "onnx_model"}
    )
    path.write_bytes(sealed(path.read_bytes()))
    write_dataset_shard(folder / "dataset.parquet", synthetic_events(6, 4, mean_particles=4))


def _make_lineage(folder: Path) -> None:
    write_json(folder / "a.json", {"a": 1})
    Provenance.of("first", {"seed": 1}).record(folder / "a.json")
    write_json(folder / "b.json", {"b": 1})
    Provenance.of("second", {"seed": 2}, [folder / "a.json"]).record(folder / "b.json")


def write_records(folder: Path) -> None:
    """Write a record beside each table."""
    for path in folder.rglob("*.parquet"):
        Provenance.of("made", {}).record(path)


def _make_dataset(folder: Path) -> None:
    events = synthetic_events(12, 5, mean_particles=4)
    write_dataset_shard(
        folder / "dataset/qq/00000.parquet", events, energy_balance_gev={}, files=[]
    )


def _make_pair(folder: Path) -> None:
    events = synthetic_events(30, 3, mean_particles=5)
    write_pair(folder, events, visible(events))


MAKERS: dict[str, Callable[[Path], Any]] = {
    "dataset": _make_dataset,
    "selected": lambda folder: write_checked_shards(folder, 40, 20),
    "reconstructed": _make_pair,
    "shards": lambda folder: write_checked_shards(folder, 40, 20),
    "search": lambda folder: Search(folder).run_all(),
    "training": _make_training,
    "lineage": _make_lineage,
    "ledger": lambda folder: Ledger(2, {"/a.root": 0, "/b.root": 1}, {}).write(folder / "qq.json"),
    "onnx": _make_onnx,
    "model": _make_model,
    "checkpoint": _make_checkpoint,
}
