"""Files that the package wrote, changed by bytes or by content: tables, JSON, models, checkpoints.

What the package makes of the sound files of a target is known, so that another result without a
word shows.
"""

import copy
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from particleforge.model.saved import deserialise, serialise
from particleforge.provenance.record import record_of
from particleforge.tables import parquet

from .attack_config import edited
from .attack_targets import MAKERS, TARGETS, read, write_records
from .attacks import BYTES, SILENT, SURVIVED, outcome, spoiled


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
                write_records(sound)
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
