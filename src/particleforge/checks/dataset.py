"""Stage ``check_data``, first half: judge the shards of a sample, then the samples of a detector.

Shards of one sample (Parquet, ``parquet.DATASET_SCHEMA``) -> verdict as JSON with what the sample
holds; verdicts of all samples -> one verdict. The checks: schema, counts, values that are not
finite, ranges, references between collections, closure of the energy, events that occur twice,
drift of a shard against its sample and of a sample against the others. docs/data-checks.md
describes them.

Statistics of a shard are kept in a work folder under the checksum of its bytes, so a sample that
grows is not read again.

A failure is a UserError with one line; nothing is written then but the failed verdict in the work
folder.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from particleforge.artefacts import write_json
from particleforge.checks.drift import compare_with_rest
from particleforge.checks.histogram import Histogram
from particleforge.checks.statistics import RESPONSE, VERSION, shard_statistics
from particleforge.checks.verdict import SampleVerdict, Verdict, conclude
from particleforge.config.checks import ChecksConfig
from particleforge.config.settings import CheckDatasetSettings, CompareSamplesSettings
from particleforge.errors import UserError
from particleforge.progress import shown
from particleforge.provenance.record import Provenance
from particleforge.stored import Stored, read_stored
from particleforge.tables import parquet, schema

log = logging.getLogger(__name__)

_REBUILD = "rebuild this shard (delete it, then run again)"
_RANGES = "rebuild this shard, or, if the detector has such values, raise checks."
_EXACT = {"n_merged": (0, math.inf), "fate": (0, max(schema.Fate))}
_NOT_NEGATIVE = (
    "pt",
    "p",
    "et",
    "energy",
    "deposited_energy",
    "n_hits",
    "ndf",
    "chi2",
    "width_transverse",
    "width_longitudinal",
    "width_minor",
)


class StatisticsFile(Stored):
    """What is read of the statistics of a shard that were kept."""

    KIND = "shard_statistics"
    REMEDY = "delete it and run the check again"
    sha256: str
    version: int
    statistics: dict[str, Any]


def check_dataset(
    settings: CheckDatasetSettings, *, shards: Sequence[Path], work_dir: Path, output: Path
) -> None:
    """Judge the shards of a sample and write the verdict.

    A UserError names the first value that is not allowed.
    """
    made = Provenance.of("check_dataset", settings.plain(), shards)
    expected = (
        parquet.HITS_DATASET_SCHEMA
        if settings.calorimeter_elements == "hits"
        else parquet.DATASET_SCHEMA
    )
    folder = work_dir / settings.sample_name
    statistics = {}
    for path, digest in shown(zip(shards, made.inputs.values(), strict=True), "shard", len(shards)):
        statistics[_name(path)] = _kept(folder / f"{path.stem}.json", digest, path, expected)
    verdict = Verdict()
    whole = {}
    for name, found in statistics.items():
        unlike = found["schema_differences"]
        if verdict.at_most(
            "columns unlike the schema:", name, ", ".join(unlike) or "all", len(unlike), 0, _REBUILD
        ):
            whole[name] = found
            _judge(verdict, settings, name, found)
    events = sum(found["events"] for found in whole.values())
    verdict.at_most(
        "events missing from the sample:",
        settings.sample_name,
        "events",
        max(0, settings.checks.events_min - events),
        0,
        "give it more events, or lower checks.events_min",
    )
    if whole and verdict.passed:
        _check_repeats(verdict, {_name(path): path for path in shards})
        _check_drift(verdict, settings.checks, whole)
    facts = {
        "sample": settings.sample_name,
        "events": events,
        "shards": len(shards),
        **_merged(whole),
    }
    conclude(verdict, f"Sample {settings.sample_name}", facts, made, output=output, work_dir=folder)
    log.info("%s: %d events in %d shards pass", settings.sample_name, events, len(shards))


def compare_samples(
    settings: CompareSamplesSettings, *, verdicts: Sequence[Path], work_dir: Path, output: Path
) -> None:
    """Compare the samples, given their verdicts, and write the verdict on the whole dataset."""
    made = Provenance.of("compare_samples", settings.plain(), verdicts)
    samples: dict[str, dict[str, Any]] = {}
    for path in verdicts:
        told = read_stored(path, SampleVerdict)
        if told.sample in samples:
            raise UserError(
                f"{path}: a second verdict on sample {told.sample}; give one for each sample"
            )
        samples[told.sample] = told.model_dump()
    verdict = Verdict()
    parts = {
        name: {RESPONSE: Histogram.read(found["quantities"][RESPONSE])}
        for name, found in samples.items()
        if found["quantities"]
    }
    limits = settings.checks
    for drift in compare_with_rest(
        parts, limits.drift_false_alarm_probability, limits.sample_drift_ks_distance_max
    ):
        remedy = (
            "simulate the samples with one detector and calibration, or raise"
            " checks.sample_drift_ks_distance_max"
        )
        verdict.at_most(
            "KS distance from the other samples",
            f"sample {drift.part}",
            drift.quantity,
            drift.distance,
            drift.allowed,
            remedy,
        )
    kept = {
        name: {
            key: value for key, value in found.items() if key not in ("quantities", "provenance")
        }
        for name, found in samples.items()
    }
    conclude(verdict, "Between samples", {"samples": kept}, made, output=output, work_dir=work_dir)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _kept(file: Path, digest: str, path: Path, expected: Any) -> dict[str, Any]:
    """Return a shard's statistics: those kept if of these bytes and this code, else new ones."""
    try:
        kept = read_stored(file, StatisticsFile)
        if (kept.sha256, kept.version) == (digest, VERSION):
            return kept.statistics
    except UserError:
        pass  # none yet, or damaged: they are made again
    content = {"sha256": digest, "version": VERSION, "statistics": shard_statistics(path, expected)}
    write_json(file, {"kind": StatisticsFile.KIND, **content})
    # what was kept and what is new come in one order
    return read_stored(file, StatisticsFile).statistics


def _judge(
    verdict: Verdict, settings: CheckDatasetSettings, shard: str, found: Mapping[str, Any]
) -> None:
    """Judge one shard by itself."""
    same = found["sample"] == settings.sample_name
    verdict.at_most(
        "events of another sample:",
        shard,
        f"sample_name {found['sample']}",
        0 if same else found["events"],
        0,
        _REBUILD,
    )
    verdict.at_most(
        "events more or less than its metadata count:",
        shard,
        "events",
        abs(found["events"] - found["counts"].get("events", 0)),
        0,
        _REBUILD,
    )
    for column, values in found["columns"].items():
        remedy = f"{_REBUILD}, or exclude the file that it was made of"
        verdict.at_most("values not finite:", shard, column, values["not_finite"], 0, remedy)
        if values["min"] is not None:
            low, high, key = _range(column, settings)
            remedy = f"{_RANGES}{key}" if key else _REBUILD
            check = f"value beyond {key}:" if key else "value out of range:"
            if math.isfinite(low) or math.isfinite(high):
                verdict.within(
                    check, shard, column, values["min"], values["max"], low, high, remedy
                )
    for column, wrong in found["wrong"].items():
        verdict.at_most("references to what is not there:", shard, column, wrong, 0, _REBUILD)
    limit = settings.checks.energy_closure_max
    verdict.at_most(
        "share of an event's visible energy neither in targets nor dropped:",
        shard,
        "targets.energy",
        found["closure"],
        limit,
        _REBUILD,
    )


def _range(column: str, settings: CheckDatasetSettings) -> tuple[float, float, str]:
    """Return a column's range, and the key of the configuration that sets it if there is one."""
    collection, _, member = column.rpartition(".")
    limits = settings.checks
    fields = {
        c.name: c
        for c in (
            schema.DATASET_OF_HITS if settings.calorimeter_elements == "hits" else schema.DATASET
        )
    }
    unit = (
        next((f.unit for f in fields[collection].fields if f.name == member), "")
        if collection
        else ""
    )
    low = 0.0 if member in _NOT_NEGATIVE and collection != "candidates" else -math.inf
    if member in ("eta", "eta_calo"):
        return -limits.abs_eta_max, limits.abs_eta_max, "abs_eta_max"
    if member == "class_id":
        return 0, len(settings.particle_classes), ""
    if member.startswith("fraction_") or (member == "weight" and collection == "track_links"):
        return 0, 1 + 1e-6, ""
    if unit == "rad":
        return -math.pi - 1e-6, math.pi + 1e-6, ""
    if unit == "GeV":
        return max(low, -limits.energy_max_gev), limits.energy_max_gev, "energy_max_gev"
    if unit == "mm" and member not in _NOT_NEGATIVE:
        return -limits.length_max_mm, limits.length_max_mm, "length_max_mm"
    return (*_EXACT.get(member, (low, math.inf)), "")


def _check_repeats(verdict: Verdict, shards: Mapping[str, Path]) -> None:
    """Look for events that occur more than once in the sample."""
    ids = {
        name: parquet.read_columns(path, ["event_id"])["event_id"].to_numpy()
        for name, path in shards.items()
    }
    seen, counts = np.unique(np.concatenate(list(ids.values())), return_counts=True)
    repeated: NDArray[Any] = seen[counts > 1]
    for name, own in ids.items():
        verdict.at_most(
            "events that occur more than once in the sample:",
            name,
            "event_id",
            int(np.isin(own, repeated).sum()) if len(repeated) else 0,
            0,
            "delete the doubled shard, or take its file out of the sample",
        )


def _check_drift(
    verdict: Verdict, limits: ChecksConfig, shards: Mapping[str, Mapping[str, Any]]
) -> None:
    parts = {
        name: {quantity: Histogram.read(plain) for quantity, plain in found["quantities"].items()}
        for name, found in shards.items()
    }
    found = compare_with_rest(
        parts, limits.drift_false_alarm_probability, limits.drift_ks_distance_max
    )
    for drift in sorted(found, key=lambda drift: drift.allowed - drift.distance):
        remedy = (
            "rebuild this shard with the settings of the others, or raise"
            " checks.drift_ks_distance_max"
        )
        verdict.at_most(
            "KS distance from the rest of the sample",
            drift.part,
            drift.quantity,
            drift.distance,
            drift.allowed,
            remedy,
        )


def _merged(shards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return extremes, energies and histograms of the sample as a whole."""
    columns: dict[str, dict[str, Any]] = {}
    quantities: dict[str, list[Histogram]] = {}
    energy = dict.fromkeys(("visible", "target", "dropped"), 0.0)
    for found in shards.values():
        for name, values in found["columns"].items():
            mine = columns.setdefault(name, {"n": 0, "not_finite": 0, "min": None, "max": None})
            mine["n"] += values["n"]
            mine["not_finite"] += values["not_finite"]
            for key, pick in (("min", min), ("max", max)):
                mine[key] = pick(
                    (v for v in (mine[key], values[key]) if v is not None), default=None
                )
        for name, plain in found["quantities"].items():
            quantities.setdefault(name, []).append(Histogram.read(plain))
        for name in energy:
            energy[name] += found["energy_gev"][name]
    return {
        "columns": columns,
        "energy_gev": energy,
        "quantities": {name: Histogram.total(parts).plain() for name, parts in quantities.items()},
    }
