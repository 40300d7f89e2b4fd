"""Files that the package wrote, changed by bytes or by content: tables, JSON, models, checkpoints.

A target is a folder of sound files, some of which are attacked, and a *use* of them by the
package. What it makes of sound files is known, so that another result without a word shows.
"""

import copy
import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from particleforge.artefacts import write_json
from particleforge.config.load import load_detector, load_run
from particleforge.config.model import ModelConfig
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
from particleforge.model.saved import deserialise, load_model, save_model, serialise
from particleforge.preprocessing.shards import write_shards
from particleforge.provenance.lineage import read_lineage, verify_lineage
from particleforge.provenance.record import Provenance, record_of
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
from ..unit.synthetic_shards import random_network, write_synthetic
from ..unit.validation_inputs import visible, write_pair
from .attack_config import edited
from .attacks import BYTES, SILENT, SURVIVED, outcome, spoiled

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
        Target("search", "slots/*/*/*.json", _search, told=False),
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
    manifest = write_synthetic(folder / "shards", train=(4,), valid=4, test=4, longest=4)
    inputs, config = ModelInputs.from_manifest(manifest), ModelConfig(width=8, n_layers=1)
    content = {
        "weights": random_network(inputs, config).state_dict(),
        "model": config.model_dump(mode="json"),
        "inputs": inputs.plain(),
        "training": {},
        "step": 1,
        "valid_loss": 1.0,
        "provenance": {},
    }
    save_model(folder / "best.pt", content)


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


def _recorded(folder: Path) -> None:
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

# --- attempts ---


class Stored:
    """Attempts on all targets of a kind, in turn."""

    KIND = ""

    def __init__(self, folder: Path) -> None:
        self.targets = TARGETS[self.KIND]
        self.sound: list[Path] = []
        self.results: list[Any] = []
        self.tables: list[dict[str, Any]] = []
        self.folder = folder / "attacked"
        for number, target in enumerate(self.targets):
            sound = folder / f"sound{number}"
            sound.mkdir()
            MAKERS[target.name](sound)
            if self.KIND == "parquet":
                _recorded(sound)
            self.sound.append(sound)
            self._copy(sound)
            self.results.append(target.use(self.folder))
            self.tables.append(
                {path.name: read(path) for path in self.folder.glob(target.files)}
                if target.read
                else {}
            )

    def _copy(self, sound: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(sound, self.folder)

    def attempt(self, number: int) -> tuple[str, str]:
        rng = random.Random(f"{self.KIND} {number}")
        place = number % len(self.targets)
        target, sound = self.targets[place], self.results[place]
        self._copy(self.sound[place])
        path = rng.choice(sorted(p for p in self.folder.glob(target.files) if p.is_file()))
        if self.KIND == "parquet" and rng.random() < 0.5:
            record_of(path).unlink(missing_ok=True)
            if not path.exists():
                return SURVIVED, "the record alone is gone"
        before = path.read_bytes()
        by_content = rng.random() < 0.5 and not path.name.endswith(".log")
        try:
            what = _edit(path, rng) if by_content else _spoil(path, rng)
        except (ValueError, TypeError, LookupError, pa.ArrowException, ArithmeticError) as error:
            return SURVIVED, f"not written: {error}"
        if path.exists() and path.read_bytes() == before:
            return SURVIVED, "nothing is changed"

        quick = target.read and not by_content and path.suffix == ".parquet"

        def use() -> str:
            found = read(path) if quick else target.use(self.folder)
            same = equal(found, self.tables[place][path.name] if quick else sound)
            return "" if same or not target.told else f"{path.name}: {what}: another result"

        found, said = outcome(use)
        if what == "no such file" and target.name == "checkpoint":
            return (SURVIVED if found == SILENT else found), said  # the one before it is taken
        if found == SILENT and by_content and not _ruled(path):
            return SURVIVED, said
        return found, f"{target.name}: {path.name}: {what}: {said}"


class Parquet(Stored):
    KIND = "parquet"


class Json(Stored):
    KIND = "json"


class Onnx(Stored):
    KIND = "onnx"


class Checkpoints(Stored):
    KIND = "checkpoints"


def _ruled(path: Path) -> bool:
    """Tell whether something in the file forbids a sound value in the place of another.

    Tables that were written anew have neither a checksum nor, without a record, a rule.
    """
    if path.suffix == ".parquet":
        return record_of(path).exists() or path.parent.parent.name == "shards"
    return path.suffix != ".pt"


def _spoil(path: Path, rng: random.Random) -> str:
    how = rng.choice(BYTES)
    content = spoiled(path.read_bytes(), how, rng)
    path.unlink() if content is None else path.write_bytes(content)
    return how


def _edit(path: Path, rng: random.Random) -> str:
    """Change a part of the content, and write it as the format wants it."""
    if path.suffix == ".json":
        tree = json.loads(path.read_text())
        where = edited(tree, rng)
        path.write_text(json.dumps(tree))
        return f"edited {where}"
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        tree = [json.loads(line) for line in lines]
        where = edited(tree, rng)
        path.write_text("".join(f"{json.dumps(one)}\n" for one in tree))
        return f"edited {where}"
    if path.suffix == ".parquet":
        return _edit_table(path, rng)
    if path.suffix == ".onnx":
        model = onnx.load(path)
        props = {one.key: json.loads(one.value) for one in model.metadata_props}
        where = edited(props, rng)
        if rng.random() < 0.3:
            del model.graph.node[rng.randrange(len(model.graph.node))]
        onnx.helper.set_model_props(model, {key: json.dumps(v) for key, v in props.items()})
        onnx.save(model, path)
        return f"edited {where}"
    content = deserialise(path.read_bytes(), path)
    where = edited(content, rng)
    path.write_bytes(serialise(content))
    return f"edited {where}"


def _edit_table(path: Path, rng: random.Random) -> str:
    table = pq.read_table(path)
    stored = dict(pq.read_metadata(path).metadata)
    told = json.loads(stored[parquet.METADATA_KEY])
    what = rng.randrange(5)
    column = rng.randrange(table.num_columns)
    name = table.column_names[column]
    if what == 0:
        where: Any = edited(told, rng)
        said = f"metadata {where}"
    elif what == 1:
        table, said = table.remove_column(column), f"without {name}"
    elif what == 2:
        first, last = sorted(rng.randrange(table.num_rows + 1) for _ in range(2))
        rows = table.slice(first, last - first)
        table = pa.concat_tables([table, rows]) if rng.random() < 0.5 else rows
        said = f"rows {first} to {last} doubled or alone"
    elif what == 3:
        table = table.rename_columns(
            [f"{n}_" if i == column else n for i, n in enumerate(table.column_names)]
        )
        said = f"{name} renamed"
    else:
        table, said = _with_value(table, name, rng)
    pq.write_table(table.replace_schema_metadata({parquet.METADATA_KEY: json.dumps(told)}), path)
    return said


def _with_value(table: pa.Table, name: str, rng: random.Random) -> tuple[pa.Table, str]:
    """Put a value that is hostile into one place of a column; ArithmeticError if it cannot be."""
    rows = table.to_pylist()
    value = rng.choice([math.nan, math.inf, -1, 0, 120, -100, 1e30, 2.5])
    place: Any = rng.choice(rows) if rows else {}
    key: Any = name
    while isinstance(place.get(key) if isinstance(place, dict) else place[key], dict | list):
        place = place[key]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return table, "nothing"
        key = rng.choice(keys)
    old = place[key]
    place[key] = type(old)(value)
    return pa.Table.from_pylist(
        rows, schema=table.schema
    ), f"{name} ... {key}: {old} -> {place[key]}"


def equal(one: Any, other: Any) -> bool:
    """Tell whether two results are the same."""
    if isinstance(one, pa.Table):
        return isinstance(other, pa.Table) and one.equals(other)
    if isinstance(one, ak.Array):
        return isinstance(other, ak.Array) and ak.array_equal(one, other, equal_nan=True)
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return (
            isinstance(other, list | tuple)
            and len(one) == len(other)
            and all(map(equal, one, other))
        )
    return bool(copy.copy(one) == other)
