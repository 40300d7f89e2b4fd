"""Stage ``check_data``, second half: training shards against their manifest and normalisation.

``manifest.json``, ``normalisation.json`` and the folders of the splits -> verdict as JSON. The
checks: files against the manifest (names, checksums, schema, numbers of events and elements),
lengths of the lists, values that are not finite, types, classes, charges, momenta of what has no
class, events that occur twice or in two splits, event weights and their mean, the normalisation
against the train split, drift of a shard against all others (events were shuffled, so every shard
is a random sample of all).

Shards are read one at a time. A failure is a UserError with one line.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from particleforge.artefacts import sha256
from particleforge.checks.drift import compare_with_rest
from particleforge.checks.histogram import Histogram
from particleforge.checks.statistics import schema_differences
from particleforge.checks.verdict import Verdict, conclude
from particleforge.config.settings import CheckShardsSettings
from particleforge.errors import UserError
from particleforge.preprocessing.manifest import Manifest, Normalisation
from particleforge.preprocessing.normalisation import STD_FLOOR, Running, transform
from particleforge.preprocessing.weights import WeightStatistics, unusable
from particleforge.progress import shown
from particleforge.provenance.record import Provenance
from particleforge.stored import Stored, held_to, read_json
from particleforge.tables import parquet, schema

log = logging.getLogger(__name__)

_AGAIN = "write the shards again (delete the manifest, then run again)"
_WHOLE_TOLERANCE = 1e-3  # of the sum of a cluster's shares
_MEAN_TOLERANCE = 1e-9  # of the mean weight, relative: sums differ by rounding
_P4 = 4


@dataclass
class _Found:
    """What the shards hold, over all splits."""

    ids: dict[str, NDArray[np.uint64]] = field(default_factory=dict)
    quantities: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    train: dict[str, Running] = field(default_factory=dict)
    weights: WeightStatistics = field(default_factory=WeightStatistics)


def check_shards(
    settings: CheckShardsSettings,
    *,
    manifest: Path,
    normalisation: Path,
    work_dir: Path,
    output: Path,
) -> None:
    """Judge the shards and write the verdict.

    A UserError names the first value that is not allowed.
    """
    described = _read(manifest, ("splits", "elements", "n_features", "classes"), Manifest)
    stored = _read(normalisation, ("n_events", *described["elements"]), Normalisation)
    folders = [manifest.parent / split for split in described["splits"]]
    made = Provenance.of(
        "check_shards", settings.plain(), [manifest, normalisation], glanced_at=folders
    )
    verdict, found = Verdict(), _Found()
    found.train = {name: Running(len(features)) for name, features in described["elements"].items()}
    for split, index in described["splits"].items():
        _judge_split(verdict, manifest.parent, split, index)
        for entry in shown(index["shards"], "shard", len(index["shards"])):
            path = manifest.parent / entry["file"]
            if path.is_file() and _judge_file(verdict, path, entry, described):
                _judge_content(verdict, path, split, described, found, entry)
    if verdict.passed:
        _judge_repeats(verdict, found.ids)
        _judge_mean_weight(verdict, described.get("mean_weight"), found.weights.mean())
        _judge_normalisation(verdict, settings, described, stored, found.train)
        limits = settings.checks
        drifts = compare_with_rest(
            found.quantities, limits.drift_false_alarm_probability, limits.drift_ks_distance_max
        )
        for drift in sorted(drifts, key=lambda drift: drift.allowed - drift.distance):
            verdict.at_most(
                "KS distance from the other shards",
                drift.part,
                drift.quantity,
                drift.distance,
                drift.allowed,
                _AGAIN,
            )
    facts = {
        "splits": {
            name: {"events": index["n_events"], "shards": len(index["shards"])}
            for name, index in described["splits"].items()
        }
    }
    conclude(verdict, "Training shards", facts, made, output=output, work_dir=work_dir)
    log.info("%d shards pass", len(found.ids))


def _read(path: Path, keys: Sequence[str], model: type[Stored]) -> dict[str, Any]:
    """Return the JSON object in a file; UserError if it is none or lacks one of the keys."""
    found = read_json(path, _AGAIN)
    if not isinstance(found, dict) or (missing := [key for key in keys if key not in found]):
        raise UserError(
            f"{path}: {', '.join(missing) if isinstance(found, dict) else 'object'}: missing;"
            f" {_AGAIN}"
        )
    held_to(model, found, path)
    return found


def _judge_split(verdict: Verdict, folder: Path, split: str, index: Mapping[str, Any]) -> None:
    """Judge the manifest by itself and against the files that there are."""
    named = {entry["file"] for entry in index["shards"]}
    there = {f"{split}/{path.name}" for path in (folder / split).glob("*.parquet")}
    for name in sorted(named | there):
        verdict.at_most(
            "files that are missing, or that the manifest does not name:",
            name,
            "manifest",
            int(name in named ^ there),
            0,
            _AGAIN,
        )
    for key in ("n_events", "n_elements"):
        difference = abs(index[key] - sum(entry[key] for entry in index["shards"]))
        verdict.at_most(
            "difference of the split's number in the manifest from the sum of its shards:",
            split,
            key,
            difference,
            0,
            _AGAIN,
        )


def _judge_file(
    verdict: Verdict, path: Path, entry: Mapping[str, Any], described: Mapping[str, Any]
) -> bool:
    """Judge bytes and schema, and return whether the schema is right."""
    parquet.read_metadata(
        path, parquet.SHARD, judged=False
    )  # a file that cannot be read is a UserError
    changed = sha256(path) != entry["sha256"]
    may_lack = schema.MAY_LACK if described.get("mean_weight") is None else ()
    unlike = schema_differences(path, parquet.SHARD_SCHEMA, may_lack)
    passed = verdict.at_most(
        "columns unlike the schema:",
        entry["file"],
        ", ".join(unlike) or "all",
        len(unlike),
        0,
        _AGAIN,
    )
    verdict.at_most(
        "bytes other than the manifest's checksum:",
        entry["file"],
        "sha256",
        int(changed),
        0,
        _AGAIN,
    )
    return passed


def _judge_content(
    verdict: Verdict,
    path: Path,
    split: str,
    described: Mapping[str, Any],
    found: _Found,
    entry: Mapping[str, Any],
) -> None:
    name, width = str(entry["file"]), int(described["n_features"])
    events = elements = 0
    wrong: dict[tuple[str, str], int] = {}
    ids: list[NDArray[np.uint64]] = []
    quantities: dict[str, list[Histogram]] = {}
    for block in parquet.iter_tables(path):
        counts = block["n_elements"].to_numpy()
        events, elements = events + len(counts), elements + int(counts.sum())
        ids.append(block["event_id"].to_numpy())
        if "weight" in block.column_names:
            weights = block["weight"].to_numpy()
            _count(wrong, "values out of range:", {"weight": unusable(weights)})
            found.weights.add(split, weights)
        short = _lengths(block, counts, width)
        _count(wrong, "lists not as long as n_elements says:", short)
        if any(short.values()):
            continue
        values, features, p4 = _arrays(block, width)
        _judge_shares(wrong, counts, block)
        kinds = _kinds(described)
        columns = {
            f"{kind}.{f['name']}": features[values["element_type"] == 1 + i, j]
            for i, kind in enumerate(kinds)
            for j, f in enumerate(described["elements"][kind])
        }
        if not _judge_values(wrong, values, p4, columns, described):
            continue
        for quantity, value in _quantities(counts, values, p4, columns, kinds):
            quantities.setdefault(quantity, []).append(Histogram.of(value))
        if split == "train":
            _add(found.train, values["element_type"], features, described)
    for (check, column), number in wrong.items():
        verdict.at_most(check, name, column, number, 0, _AGAIN)
    for key, number in (("n_events", events), ("n_elements", elements)):
        verdict.at_most(
            "difference from the manifest:", name, key, abs(number - entry[key]), 0, _AGAIN
        )
    found.ids[name] = np.concatenate([np.zeros(0, np.uint64), *ids])
    found.quantities[name] = {
        quantity: Histogram.total(parts) for quantity, parts in quantities.items()
    }


def _arrays(
    block: pa.Table, width: int
) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]:
    """Return the columns of one number per element, the features and the targets' momenta."""
    values = {
        column: block[column].combine_chunks().flatten().to_numpy()
        for column in ("element_type", "target_class", "target_charge")
    }
    features = block["features"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    p4 = block["target_p4"].combine_chunks().flatten().to_numpy().reshape(-1, _P4)
    return values, features, p4


def _judge_shares(wrong: dict[tuple[str, str], int], counts: NDArray[Any], block: pa.Table) -> None:
    """Count hosts that are no elements of their event, and shares that are no parts of a whole."""
    host, share = (
        block[name].combine_chunks().flatten().to_numpy() for name in ("share_host", "share")
    )
    n_elements = np.repeat(counts, counts * schema.N_SHARES)
    total = share.reshape(-1, schema.N_SHARES + 1).sum(axis=1)
    whole = (abs(total - 1) < _WHOLE_TOLERANCE) | (total == 0)
    _count(wrong, "values not finite:", {"share": int(np.sum(~np.isfinite(share)))})
    outside = {
        "share_host": int(np.sum((host < -1) | (host >= n_elements))),
        "share": int(np.sum((share < 0) | (share > 1))) + int(np.sum(~whole)),
    }
    _count(wrong, "values out of range:", outside)


def _judge_values(
    wrong: dict[tuple[str, str], int],
    values: Mapping[str, NDArray[Any]],
    p4: NDArray[Any],
    columns: Mapping[str, NDArray[Any]],
    described: Mapping[str, Any],
) -> bool:
    """Count what no element may have; return whether all values can be used."""
    finite = {
        column: int(np.sum(~np.isfinite(value)))
        for column, value in {**columns, "target_p4": p4}.items()
    }
    _count(wrong, "values not finite:", finite)
    outside = {
        "element_type": _outside(values["element_type"], 1, len(_kinds(described))),
        "target_class": _outside(values["target_class"], 0, len(described["classes"]) - 1),
        "target_charge": _outside(values["target_charge"], -1, 1),
    }
    _count(wrong, "values out of range:", outside)
    _count(
        wrong,
        "momenta of elements without a class:",
        {"target_p4": int(np.any(p4[values["target_class"] == 0] != 0, axis=1).sum())},
    )
    return not any(finite.values()) and not any(outside.values())


def _kinds(described: Mapping[str, Any]) -> tuple[str, str]:
    """Return the element types in the order of their ids."""
    return schema.element_types(described["elements"])


def _lengths(block: pa.Table, counts: NDArray[Any], width: int) -> dict[str, int]:
    """Return for each list column in how many events the list is not as long as it should be."""
    per_element = {
        "element_type": 1,
        "features": width,
        "target_class": 1,
        "target_charge": 1,
        "target_p4": _P4,
        "share_host": schema.N_SHARES,
        "share": schema.N_SHARES + 1,
    }
    lengths = {
        column: np.diff(block[column].combine_chunks().offsets.to_numpy()) for column in per_element
    }
    return {column: int(np.sum(lengths[column] != counts * n)) for column, n in per_element.items()}


def _count(wrong: dict[tuple[str, str], int], check: str, found: Mapping[str, int]) -> None:
    for column, number in found.items():
        wrong[check, column] = wrong.get((check, column), 0) + number


def _outside(values: NDArray[Any], low: int, high: int) -> int:
    return int(np.sum((values < low) | (values > high)))


def _quantities(
    counts: NDArray[Any],
    values: Mapping[str, NDArray[Any]],
    p4: NDArray[Any],
    columns: Mapping[str, NDArray[Any]],
    kinds: tuple[str, str],
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield quantities with one value per event, for the comparison of shards."""
    event = np.repeat(np.arange(len(counts)), counts)
    yield "elements per event", counts
    yield "target energy", np.bincount(event, weights=p4[:, 3], minlength=len(counts))
    yield (
        "elements with a target",
        np.bincount(event, weights=values["target_class"] > 0, minlength=len(counts)),
    )
    for number, kind in enumerate(kinds, start=1):
        mine = event[values["element_type"] == number]
        present = np.bincount(mine, minlength=len(counts))
        yield f"{kind}s per event", present
        for column, value in columns.items():
            if column.startswith(f"{kind}."):
                yield (
                    f"mean {column}",
                    np.bincount(mine, weights=value, minlength=len(counts))[present > 0]
                    / present[present > 0],
                )


def _add(
    train: Mapping[str, Running],
    types: NDArray[Any],
    features: NDArray[Any],
    described: Mapping[str, Any],
) -> None:
    for number, kind in enumerate(_kinds(described), start=1):
        columns = described["elements"][kind]
        raw = features[types == number].astype(np.float64)
        train[kind].add(
            np.stack(
                [transform(column["transform"], raw[:, i]) for i, column in enumerate(columns)],
                axis=1,
            )
        )


def _judge_repeats(verdict: Verdict, ids: Mapping[str, NDArray[np.uint64]]) -> None:
    seen, counts = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *ids.values()]), return_counts=True
    )
    repeated = seen[counts > 1]
    for name, own in ids.items():
        number = int(np.isin(own, repeated).sum()) if len(repeated) else 0
        verdict.at_most(
            "events that occur more than once, or in two splits:",
            name,
            "event_id",
            number,
            0,
            _AGAIN,
        )


def _judge_mean_weight(verdict: Verdict, stored: float | None, actual: float | None) -> None:
    """Compare the mean that trainings divide weights by with that of the train split."""
    if stored is None or actual is None:
        difference = float(stored is not actual)
    else:
        difference = abs(stored / actual - 1)
    verdict.at_most(
        "relative difference of the mean weight from the train split's:",
        "manifest.json",
        "mean_weight",
        difference,
        _MEAN_TOLERANCE,
        _AGAIN,
    )


def _judge_normalisation(
    verdict: Verdict,
    settings: CheckShardsSettings,
    described: Mapping[str, Any],
    stored: Mapping[str, Any],
    train: Mapping[str, Running],
) -> None:
    """Compare the stored normalisation with that of the train split.

    The unit of a difference is the train split's standard deviation.
    """
    limit = settings.checks.normalisation_difference_max
    n_events = described["splits"]["train"]["n_events"]
    verdict.at_most(
        "difference of n_events from the train split's:",
        "normalisation.json",
        "n_events",
        abs(stored["n_events"] - n_events),
        0,
        _AGAIN,
    )
    for kind, running in train.items():
        actual = {key: np.array(value) for key, value in running.result().items()}
        for key, value in actual.items():
            difference = np.abs(np.array(stored[kind][key]) - value) / np.maximum(
                actual["std"], STD_FLOOR
            )
            for column, found in zip(described["elements"][kind], difference, strict=True):
                remedy = f"{_AGAIN}, or raise checks.normalisation_difference_max"
                verdict.at_most(
                    f"difference of the {key} in standard deviations",
                    "normalisation.json",
                    f"{kind}.{column['name']}",
                    float(found),
                    limit,
                    remedy,
                )
