"""Data that pass every check, to be spoiled in tests: shards of samples, and training shards made
of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from particleforge.artefacts import sha256, write_json
from particleforge.checks.dataset import check_dataset, compare_samples
from particleforge.checks.shards import check_shards
from particleforge.config.load import load_detector, load_run
from particleforge.config.preprocessing import PreprocessingConfig
from particleforge.config.selection import SelectionConfig
from particleforge.config.settings import (
    CheckDatasetSettings,
    CheckShardsSettings,
    CompareSamplesSettings,
    ShardSettings,
)
from particleforge.preprocessing.shards import write_shards
from particleforge.selection.split import split_of
from particleforge.tables import parquet

from .synthetic import synthetic_events
from .validation_inputs import CONFIG

Change = Callable[[ak.Array], ak.Array]


def dataset_settings(sample: str = "qq", **checks: Any) -> CheckDatasetSettings:
    return CheckDatasetSettings.of(
        load_run(CONFIG, {"checks": checks}), load_detector(CONFIG, "clic"), sample_name=sample
    )


def write_dataset_shard(path: Path, events: ak.Array, **metadata: Any) -> Path:
    """Write a shard with metadata as the dataset stage does, as far as the checks read them."""
    made = {
        "provenance": {"stage": "build_dataset", "settings": {"sample_name": path.parent.name}},
        "counts": {"events": len(events)},
    }
    types = parquet.DATASET_SCHEMA
    parquet.write_table(
        path, [parquet.to_arrow(events, types)], types, {**made, **metadata}, row_group_size=64
    )
    return path


def write_sample(
    folder: Path, sample: str = "qq", sizes: Sequence[int] = (90, 90, 90), seed: int = 5
) -> list[Path]:
    return [
        write_dataset_shard(
            folder / "dataset" / sample / f"{run:05d}.parquet", synthetic_events(n, seed, run=run)
        )
        for run, n in enumerate(sizes)
    ]


def judge_sample(folder: Path, shards: Sequence[Path], **checks: Any) -> dict[str, Any]:
    """Check the shards of one sample and return the verdict."""
    sample = shards[0].parent.name
    output = folder / f"checks/dataset/{sample}.json"
    check_dataset(
        dataset_settings(sample, **checks),
        shards=shards,
        work_dir=folder / "checks/work/dataset",
        output=output,
    )
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def judge_samples(folder: Path, verdicts: Sequence[Path], **checks: Any) -> Path:
    """Compare samples and return the path of the verdict."""
    settings = CompareSamplesSettings.of(
        load_run(CONFIG, {"checks": checks}), load_detector(CONFIG, "clic")
    )
    compare_samples(
        settings,
        verdicts=verdicts,
        work_dir=folder / "checks/work/samples",
        output=folder / "checks/dataset.json",
    )
    return folder / "checks/dataset.json"


def change_member(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Change:
    """Return a function that changes one member of a collection, given flat, in a copy of the
    events; ``change`` may work in place.
    """
    collection, member = name.split(".")

    def apply(events: ak.Array) -> ak.Array:
        values = ak.to_numpy(ak.flatten(events[collection, member])).copy()
        changed = change(values)
        jagged = ak.unflatten(values if changed is None else changed, ak.num(events[collection]))
        return ak.with_field(events, jagged, (collection, member))

    return apply


def change_shard(path: Path, change: Change) -> None:
    """Change the events of a shard; its metadata stay."""
    metadata = parquet.read_metadata(path)
    del metadata["schema_version"]
    types = parquet.DATASET_SCHEMA
    parquet.write_table(
        path,
        [parquet.to_arrow(change(parquet.read_table(path)), types)],
        types,
        metadata,
        row_group_size=64,
    )


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the columns of a Parquet file and keep its metadata."""
    table = pq.read_table(path)
    stored = pq.read_metadata(path).metadata
    changed = change(table)
    pq.write_table(
        changed.replace_schema_metadata({parquet.METADATA_KEY: stored[parquet.METADATA_KEY]}), path
    )


def write_training_shards(folder: Path, n_events: int = 300, events_per_shard: int = 60) -> Path:
    """Write training shards of two samples and return the manifest's path."""
    run, detector = load_run(CONFIG), load_detector(CONFIG, "clic")
    selection = SelectionConfig(train_fraction=0.6, valid_fraction=0.2, test_fraction=0.2)
    selected = []
    for number, sample in enumerate(("qq", "ttbar")):
        events = synthetic_events(n_events // 2, 11 + number)
        events = ak.with_field(
            events, ak.from_numpy(split_of(events.event_id.to_numpy(), selection, 1)), "split"
        )
        selected.append(folder / f"select/{sample}/00000.parquet")
        types = parquet.SELECTED_SCHEMA
        parquet.write_table(
            selected[-1], [parquet.to_arrow(events, types)], types, {"sample": sample}
        )
    settings = ShardSettings.of(run, detector)
    settings = settings.model_copy(
        update={"preprocessing": PreprocessingConfig(events_per_shard=events_per_shard)}
    )
    write_shards(settings, selected, folder / "shards")
    return folder / "shards/manifest.json"


def judge_shards(manifest: Path, **checks: Any) -> Path:
    """Check training shards and return the path of the verdict."""
    settings = CheckShardsSettings.of(
        load_run(CONFIG, {"checks": checks}), load_detector(CONFIG, "clic")
    )
    folder = manifest.parents[1] / "checks"
    check_shards(
        settings,
        manifest=manifest,
        normalisation=manifest.parent / "normalisation.json",
        work_dir=folder / "work/shards",
        output=folder / "shards.json",
    )
    return folder / "shards.json"


def change_training_shard(
    manifest: Path, name: str, columns: Mapping[str, Callable[[np.ndarray], np.ndarray | None]]
) -> None:
    """Change flat columns of a training shard, and enter its new checksum in the manifest."""
    path = manifest.parent / name
    table = pq.read_table(path).combine_chunks()
    for column, change in columns.items():
        array = table[column].combine_chunks()
        nested = pa.types.is_list(array.type)
        flat = (array.flatten() if nested else array).to_numpy(zero_copy_only=False).copy()
        changed = change(flat)
        values = pa.array(
            flat if changed is None else changed, array.type.value_type if nested else array.type
        )
        place = table.schema.names.index(column)
        array = pa.ListArray.from_arrays(array.offsets, values, array.type) if nested else values
        table = table.set_column(place, table.schema.field(column), array)
    metadata = parquet.read_metadata(path)
    del metadata["schema_version"]
    parquet.write_shard(path, table, metadata)
    enter_checksum(manifest, name)


def enter_checksum(manifest: Path, name: str) -> None:
    """Enter the checksum that a training shard has now in the manifest."""
    described = json.loads(manifest.read_text())
    for entry in (
        entry
        for split in described["splits"].values()
        for entry in split["shards"]
        if entry["file"] == name
    ):
        entry["sha256"] = sha256(manifest.parent / name)
    write_json(manifest, described)
