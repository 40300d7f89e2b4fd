"""What of a run's data is shared, training shards or selected events, and the page about it.

Inputs -> outputs: the manifest of training shards -> its folder, a split of the hub for each of
ours; or selected files -> a folder, and a configuration of the hub, for each sample. The Parquet
files keep their bytes, their metadata included.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from particleforge.errors import UserError
from particleforge.paths import SPLITS, Paths
from particleforge.preprocessing.features import COLLECTION_OF
from particleforge.preprocessing.manifest import Manifest
from particleforge.publishing.folder import CHECK, TAGS, Contents, markdown_table
from particleforge.selection.select import SelectedMetadata
from particleforge.stored import read_stored
from particleforge.tables import schema
from particleforge.tables.parquet import described

_EVENTS = "events"  # the one split of a sample: a column tells train, valid and test apart
_TOLD = (b"unit", b"description")
_CLASS = ("class", "name", "PDG code", "charged")


def shards_manifest(paths: Paths, detector: str, source: Path | None) -> Path:
    """Return the manifest of a run, or that in the folder ``source``."""
    path = Path(paths.manifest.format(detector=detector))
    return source / path.name if source else path


def shards_contents(manifest_file: Path, detector: str) -> Contents:
    """Return what is shared of training shards; the folder can be trained on as it is."""
    manifest = read_stored(manifest_file, Manifest)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    names = (manifest_file.name, "normalisation.json", *(shard.file for shard in shards))
    rows = {name: manifest.splits[name].n_events for name in SPLITS if name in manifest.splits}
    data_files = [{"split": name, "path": f"{name}/*.parquet"} for name in rows]
    return Contents(
        {name: manifest_file.parent / name for name in names},
        _front_matter(f"Training shards, detector {detector}", detector, {"default": rows})
        | {"configs": [{"config_name": "default", "data_files": data_files}]},
        _shards_page(manifest, detector),
        {shard.file: shard.sha256 for shard in shards},
    )


def _shards_page(manifest: Manifest, detector: str) -> str:
    told = manifest.model_dump()
    features = []
    for kind, entries in manifest.elements.items():
        units = {one.name: one.unit for one in COLLECTION_OF[kind].fields}
        features += [
            (kind, str(column), f"`{one.name}`", units.get(one.name) or "-")
            for column, one in enumerate(entries)
        ]
    classes = [
        (str(number), one.name, str(one.pdg or "-"), "yes" if one.charged else "-")
        for number, one in enumerate(manifest.classes)
    ]
    splits = [
        (name, str(split.n_events), str(split.n_elements), str(len(split.shards)))
        for name, split in manifest.splits.items()
    ]
    columns = [
        (f"`{one.name}`", f"`{one.dtype}`", one.unit or "-", one.description)
        for one in schema.SHARD
    ]
    samples = ", ".join(told.get("samples", []))
    made = told.get("provenance", {}).get("settings_hash", "not told")
    return f"""# Training shards for particle flow, detector {detector}

One row per event of the samples {samples}: its elements (tracks, then calorimeter clusters or \
hits) as features, and the particle that each should become. Events are shuffled over all samples; \
splits are disjoint by the events' identity.

{markdown_table(("split", "events", "elements", "files"), splits)}

## Use

    from datasets import load_dataset
    train = load_dataset("FOLDER", split="train")

    particleforge train-model --detector {detector} --manifest FOLDER/manifest.json \\
        --output-dir train

`manifest.json` names files, features and classes; `normalisation.json` has mean and deviation of \
the features in the train split.

## Columns

{markdown_table(("column", "type", "unit", "meaning"), columns)}

Columns of `features`, by type of element:

{markdown_table(("element", "column", "feature", "unit"), features)}

{markdown_table(_CLASS, classes)}

## Making

Written by ParticleForge's write_shards, settings hash `{made}`; `manifest.json` has the settings, \
the inputs' checksums and the versions of all packages.

{CHECK}"""


def selected_files(paths: Paths, detector: str, source: Path | None) -> list[Path]:
    """Return the selected files of a run, or those in the folder ``source``, by sample."""
    pattern = Path(paths.selected.format(detector=detector, sample="*", shard="*"))
    folder = source or pattern.parents[1]
    found = sorted(folder.glob(f"{pattern.parent.name}/{pattern.name}"))
    if not found:
        raise UserError(
            f"{folder}: holds no <sample>/<shard>.parquet; run select_events first, or give"
            " --source"
        )
    return found


def events_contents(selected: Sequence[Path], detector: str) -> Contents:
    """Return what is shared of selected events."""
    files: dict[str, Path] = {}
    rows: dict[str, int] = {}
    for path in selected:
        sample = described(path, SelectedMetadata).sample
        place = f"{sample}/{path.name}"
        if place in files:
            raise UserError(f"{path}: as {files[place]}, a file {place}; rename one of them")
        files[place] = path
        rows[sample] = rows.get(sample, 0) + pq.read_metadata(path).num_rows
    configs = [
        {
            "config_name": sample,
            "data_files": [{"split": _EVENTS, "path": f"{sample}/*.parquet"}],
        }
        for sample in rows
    ]
    counts = {sample: {_EVENTS: number} for sample, number in rows.items()}
    return Contents(
        files,
        _front_matter(f"Events, detector {detector}", detector, counts) | {"configs": configs},
        _events_page(rows, selected[0], detector),
    )


def _events_page(rows: dict[str, int], example: Path, detector: str) -> str:
    columns = []
    for column in pq.read_schema(example):
        metadata = column.metadata or {}
        columns.append(
            (f"`{column.name}`", *(metadata.get(key, b"").decode() or "-" for key in _TOLD))
        )
    first = next(iter(rows))
    return f"""# Events for particle flow, detector {detector}

One row per event: tracks, calorimeter clusters or hits, truth particles, what each element should \
become, and the candidates of a rule-based particle flow. Column `split` says which events a model \
may be trained on.

{markdown_table(("sample", "events"), [(name, str(number)) for name, number in rows.items()])}

## Use

    from datasets import load_dataset
    events = load_dataset("FOLDER", "{first}", split="{_EVENTS}")

    import awkward as ak
    events = ak.from_parquet("FOLDER/{first}/{example.name}")

    particleforge write-shards --detector {detector} --input FOLDER/{first}/{example.name} \\
        --output-dir shards

## Columns

{markdown_table(("column", "unit", "meaning"), columns)}

Every member of a column says its unit and meaning in its Arrow field metadata. Each file's own \
metadata say as JSON what made it.

{CHECK}"""


def _front_matter(title: str, detector: str, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return what the hub reads; ``counts`` are the events of each split of each configuration."""
    return {
        "pretty_name": title,
        "tags": [*TAGS, detector],
        "size_categories": [_size(sum(sum(splits.values()) for splits in counts.values()))],
        "dataset_info": [
            {
                "config_name": name,
                "splits": [
                    {"name": split, "num_examples": number} for split, number in splits.items()
                ],
            }
            for name, splits in counts.items()
        ],
    }


def _size(n_events: int) -> str:
    """Return the hub's name for a number of rows."""
    edges = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    above = sum(n_events >= 10 ** (power + 3) for power in range(len(edges)))
    if above == 0:
        return f"n<{edges[0]}"
    return f"{edges[above - 1]}<n<{edges[above]}" if above < len(edges) else f"n>{edges[-1]}"
