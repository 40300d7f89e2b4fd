"""Write the training shards: shuffled, even, with the statistics of the train split.

Selected files (Parquet, tables.SELECTED_SCHEMA) -> ``{train,valid,test}/<nnnnn>.parquet``
(schema.SHARD), ``normalisation.json`` and ``manifest.json``. First pass: events per split are
counted. Second pass: events get the shards' form (``events``) and are shuffled across all files and
samples on disk (``shuffle``); the order within a split is that of a keyed hash of the event's
identity, so it depends neither on files nor on their order. Shards of a split differ by at most one
event.

Invariants: statistics see the train split only; memory is bounded by a shard, not by the number of
files; the folder is replaced as a whole and has a manifest only together with all the shards that
it names.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from particleforge.artefacts import atomic_directory, sha256, write_json
from particleforge.config.settings import ShardSettings
from particleforge.errors import UserError
from particleforge.paths import SHARD_FORMAT, SPLITS
from particleforge.preprocessing.events import shard_events
from particleforge.preprocessing.features import feature_units, n_features
from particleforge.preprocessing.normalisation import FeatureStatistics
from particleforge.preprocessing.shuffle import GROUP, KEY, Buckets, cut
from particleforge.preprocessing.weights import WeightStatistics, refuse_unusable, unusable
from particleforge.progress import shown
from particleforge.provenance.record import Provenance, list_checksum
from particleforge.seeds import hash_of
from particleforge.selection.select import SelectedMetadata
from particleforge.tables import schema
from particleforge.tables.parquet import (
    SELECTED,
    described,
    iter_events,
    require_truth,
    write_shard,
)

log = logging.getLogger(__name__)

ENTRIES = (*SPLITS, "shuffle", "manifest", "normalisation")  # of the folder, without suffixes
BUFFER_BYTES = 64 * 2**20
_COLUMNS = (
    *("event_id", "weight", "split"),
    *("tracks", "clusters", "targets", "particles", "cluster_links"),
)


def write_shards(settings: ShardSettings, selected: Sequence[Path], output_dir: Path) -> None:
    """Write shards, normalisation and manifest.

    An empty split, negative weights or values that are not finite are a UserError.
    """
    made = Provenance.of("write_shards", settings.plain(), selected)
    made.refuse_repeats(selected)
    samples = [_sample_of(path) for path in selected]
    totals = _count(selected)
    manifest_file = output_dir / "manifest.json"
    with atomic_directory(output_dir) as folder:
        buckets = _shuffled(settings, selected, samples, totals, folder / "shuffle")
        statistics, weights = FeatureStatistics(settings.elements), WeightStatistics()
        splits = {
            split: _write_split(
                settings,
                split,
                totals[split],
                buckets.in_key_order(number),
                folder,
                statistics,
                weights,
            )
            for number, split in enumerate(SPLITS)
        }
        (folder / "shuffle").rmdir()
        write_json(
            folder / "normalisation.json",
            {
                "kind": "normalisation",
                **statistics.result(),
                "n_events": totals["train"],
                "provenance": made.plain(),
            },
        )
        write_json(
            folder / manifest_file.name,
            {
                "kind": "manifest",
                **_description(settings, samples),
                "mean_weight": weights.mean(),
                "splits": splits,
                "provenance": made.plain(),
            },
        )
        # a kill while the folders are swapped must not leave the old manifest alone
        manifest_file.unlink(missing_ok=True)
    checksums = {
        split: {Path(shard["file"]).name: shard["sha256"] for shard in index["shards"]}
        for split, index in splits.items()
    }
    folders = {output_dir / split: list_checksum(found) for split, found in checksums.items()}
    made.record(
        manifest_file,
        output_dir / "normalisation.json",
        known=folders,
        n_events=sum(totals.values()),
    )


def _sample_of(path: Path) -> str:
    require_truth(path, SELECTED)
    return described(path, SelectedMetadata).sample


def _count(selected: Sequence[Path]) -> dict[str, int]:
    """Return the number of events per split over all files.

    An empty split is a UserError, and weights that a training cannot take are.
    """
    totals = dict.fromkeys(SPLITS, 0)
    for path in selected:
        n_events = n_unusable = 0
        for block in iter_events(path, ["split", "weight"]):
            split = ak.to_numpy(block.split)
            n_events += len(split)
            n_unusable += unusable(ak.to_numpy(block.weight))
            for name in SPLITS:
                totals[name] += int(np.sum(split == name))
        refuse_unusable(path, n_unusable, n_events)
    for name, total in totals.items():
        if not total:
            raise UserError(
                f"split '{name}' is empty: none of {sum(totals.values())} selected events in"
                f" {len(selected)} files falls into it; give it more events"
                f" (simulation.events_per_sample, or files), raise selection.{name}_fraction, or"
                " loosen cuts.events"
            )
    return totals


def _n_shards(n_events: int, settings: ShardSettings) -> int:
    return -(-n_events // settings.preprocessing.events_per_shard)


def _shuffled(
    settings: ShardSettings,
    selected: Sequence[Path],
    samples: Sequence[str],
    totals: dict[str, int],
    folder: Path,
) -> Buckets:
    """Scatter the events of all files to buckets of about a shard each."""
    folder.mkdir()
    buckets = Buckets(folder, [_n_shards(totals[split], settings) for split in SPLITS])

    def blocks() -> Iterator[pa.Table]:
        files = shown(zip(selected, samples, strict=True), "file", len(selected))
        for number, (path, sample) in enumerate(files, start=1):
            for events in iter_events(path, _COLUMNS):
                rows = shard_events(events, settings, sample, path)
                key = hash_of(ak.to_numpy(events.event_id), settings.seed, "shuffle")
                group = np.argmax(ak.to_numpy(events.split)[:, None] == np.array(SPLITS), axis=1)
                yield rows.append_column(KEY, pa.array(key)).append_column(
                    GROUP, pa.array(group.astype(np.int8))
                )
            log.info("read %d of %d files", number, len(selected))

    buckets.scatter(blocks(), BUFFER_BYTES)
    return buckets


def _write_split(
    settings: ShardSettings,
    split: str,
    total: int,
    events: Iterator[pa.Table],
    folder: Path,
    statistics: FeatureStatistics,
    weights: WeightStatistics,
) -> dict[str, Any]:
    """Write the shards of one split and return their index for the manifest."""
    n_shards = _n_shards(total, settings)
    sizes = [total // n_shards + (number < total % n_shards) for number in range(n_shards)]
    # the manifest names the inputs, once for all shards
    made = Provenance.of("write_shards", settings.plain()).plain()
    described = {**_contents(settings), "split": split, "provenance": made}
    shards = []
    for number, shard in enumerate(shown(cut(events, sizes), "shard", n_shards)):
        name = f"{split}/{SHARD_FORMAT.format(number)}.parquet"
        write_shard(folder / name, shard, described)
        weights.add(split, shard["weight"].to_numpy())
        if split == "train":
            _add(statistics, shard, n_features(settings.elements))
        n_elements = int(np.sum(shard["n_elements"].to_numpy()))
        shards.append(
            {
                "file": name,
                "n_events": shard.num_rows,
                "n_elements": n_elements,
                "sha256": sha256(folder / name),
            }
        )
    log.info("%s: %d events in %d shards", split, total, n_shards)
    return {
        "n_events": total,
        "n_elements": sum(shard["n_elements"] for shard in shards),
        "shards": shards,
    }


def _add(statistics: FeatureStatistics, shard: pa.Table, width: int) -> None:
    for batch in shard.to_batches():
        features = batch["features"].flatten().to_numpy().reshape(-1, width)
        statistics.add(batch["element_type"].flatten().to_numpy(), features)


def _description(settings: ShardSettings, samples: Sequence[str]) -> dict[str, Any]:
    """Return what the manifest says about the shards."""
    return {
        "schema_version": schema.SCHEMA_VERSION,
        **_contents(settings),
        "samples": sorted(set(samples)),
    }


def _contents(settings: ShardSettings) -> dict[str, Any]:
    """Return what a shard's numbers are: features of each element type, in order, and classes."""
    elements = {}
    for name in settings.elements.types:
        features = getattr(settings.elements, name)
        units = feature_units(name, features)
        elements[name] = [
            {**feature.model_dump(), "unit": unit}
            for feature, unit in zip(features, units, strict=True)
        ]
    keys = {"name", "pdg", "charged", "mass_gev"}
    return {
        "elements": elements,
        "n_features": n_features(settings.elements),
        "classes": [
            {"name": "none"},
            *(c.model_dump(include=keys) for c in settings.particle_classes),
        ],
    }
