"""Select objects and events and fix each event's split.

Dataset (Parquet, schema.DATASET) -> the same columns with fewer objects and events, without
``selection.drop_columns`` and with ``split``, and the shard's cutflow (JSON). Order: object cuts
and removal of overlaps, then event cuts one after the other on the objects that are left, then the
split of the survivors. The file is streamed by row group.

Invariants, checked per file: visible energy = target energy + dropped energy (relative 1e-6); every
index points to an object of its own event.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from particleforge.artefacts import write_json
from particleforge.config.cuts import TOTAL, DetectorCutsConfig
from particleforge.config.settings import SelectSettings
from particleforge.config.skim import kept_collections
from particleforge.errors import UserError
from particleforge.paths import SPLITS
from particleforge.progress import shown
from particleforge.provenance.record import Provenance
from particleforge.selection.expressions import passes
from particleforge.selection.objects import cut_objects, hand_over, remove_objects
from particleforge.selection.split import HELD_OUT_SPLIT, split_of
from particleforge.stored import Stored
from particleforge.tables import schema
from particleforge.tables.parquet import (
    DATASET,
    SELECTED,
    arrow_schema,
    iter_events,
    n_events_in,
    require_truth,
    to_arrow,
    write_table,
)
from particleforge.tables.schema import Fate

ENERGY_TOLERANCE = 1e-6  # relative, per file


class SelectedMetadata(Stored):
    """What readers take of the metadata of selected events."""

    KIND = SELECTED
    REMEDY = "rerun select_events"
    sample: str


def select_events(settings: SelectSettings, *, dataset: Path, output: Path, cutflow: Path) -> None:
    """Write the selected events of one dataset file and their cutflow.

    An inconsistent dataset is a UserError.
    """
    made = Provenance.of("select_events", settings.plain(), [dataset])
    require_truth(dataset, DATASET)
    members = pq.read_schema(dataset).field("clusters").type.value_type
    calorimeter_elements = f"{schema.calorimeter_type([f.name for f in members])}s"
    settings.cuts.check(calorimeter_elements, str(dataset))
    counts = _Counts(settings.cuts, calorimeter_elements)
    collections = schema.DATASET_OF_HITS if calorimeter_elements == "hits" else schema.DATASET
    types = arrow_schema(
        (*schema.EVENT, schema.SPLIT),
        kept_collections(settings.selection.drop_columns, collections),
    )
    metadata: dict[str, Any] = {"sample": settings.sample_name, "provenance": made.plain()}

    def batches() -> Iterator[pa.Table]:
        for events in shown(iter_events(dataset), "event", n_events_in(dataset), len):
            yield to_arrow(_select(events, settings, counts, dataset), types)
        metadata["energy_gev"] = counts.energy_gev
        _check_balance(counts.energy_gev, dataset)

    n_events = write_table(output, batches(), types, metadata)
    write_json(
        cutflow,
        {
            "kind": "cutflow",
            "shard": dataset.stem,
            **counts.plain(),
            "sample": settings.sample_name,
            "provenance": made.plain(),
        },
    )
    made.record(output, cutflow, n_events=n_events)


class _Counts:
    """What the selection of one file keeps and removes, summed over its blocks."""

    def __init__(self, cuts: DetectorCutsConfig, calorimeter_elements: str) -> None:
        steps = {"events": cuts.events, **cuts.of_objects(calorimeter_elements)}
        self.cutflow = {
            quantity: [_row(TOTAL, ""), *(_row(cut.name, cut.expression) for cut in found)]
            for quantity, found in steps.items()
        }
        self.splits = dict.fromkeys(SPLITS, 0)
        self.energy_gev = dict.fromkeys(
            ("visible", "target", "dropped", "dropped_by_object_cuts"), 0.0
        )

    def add_events(self, number: int, events: ak.Array) -> None:
        """Count the events that are left after so many cuts."""
        _add(
            self.cutflow["events"][number],
            ak.to_numpy(events.weight),
            np.ones(len(events), dtype=np.int64),
        )

    def add_objects(self, kind: str, masks: Sequence[ak.Array], events: ak.Array) -> None:
        """Count the objects of a block that are left after each of their cuts.

        Each counts with its event's weight.
        """
        for row, keep in zip(self.cutflow[kind], masks, strict=True):
            _add(row, ak.to_numpy(events.weight), ak.to_numpy(ak.sum(keep, axis=1)))

    def add_energy(self, events: ak.Array, dropped_before: ak.Array) -> None:
        """Add the energy balance of selected events."""
        particles = events.particles
        dropped = _energy(particles, particles.fate == int(Fate.DROPPED))
        self.energy_gev["visible"] += _energy(particles, particles.fate != int(Fate.INVISIBLE))
        self.energy_gev["target"] += float(ak.sum(events.targets.energy))
        self.energy_gev["dropped"] += dropped
        self.energy_gev["dropped_by_object_cuts"] += dropped - _energy(particles, dropped_before)

    def plain(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"cutflow": self.cutflow, "splits": self.splits, "energy_gev": self.energy_gev}


def _row(name: str, expression: str) -> dict[str, Any]:
    return {
        "name": name,
        "expression": expression,
        "number": 0,
        "sum_of_weights": 0.0,
        "sum_of_weights_squared": 0.0,
    }


def _add(row: dict[str, Any], weights: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
    """Add to a row what each event has of it."""
    row["number"] += int(numbers.sum())
    row["sum_of_weights"] += float(np.sum(weights * numbers))
    row["sum_of_weights_squared"] += float(np.sum(weights**2 * numbers))


def _select(events: ak.Array, settings: SelectSettings, counts: _Counts, source: Path) -> ak.Array:
    counts.add_events(0, events)
    left = cut_objects(events, settings.cuts)
    for kind, found in left.items():
        counts.add_objects(kind, found.masks, events)
    tracks, clusters, candidates = left.values()
    dropped_before = events.particles.fate == int(Fate.DROPPED)
    try:
        selected = remove_objects(
            hand_over(events, tracks.stand_in, clusters.stand_in),
            tracks.masks[-1],
            clusters.masks[-1],
            candidates.masks[-1],
        )
    except ValueError as error:
        raise UserError(f"{source}: inconsistent dataset, {error}; rebuild the dataset") from error
    for number, cut in enumerate(settings.cuts.events, start=1):
        keep = passes(cut.expression, selected)
        selected, dropped_before = selected[keep], dropped_before[keep]
        counts.add_events(number, selected)
    counts.add_energy(selected, dropped_before)
    splits = (
        np.full(len(selected), HELD_OUT_SPLIT)
        if settings.held_out
        else split_of(ak.to_numpy(selected.event_id), settings.selection, settings.seed)
    )
    for name in SPLITS:
        counts.splits[name] += int(np.sum(splits == name))
    return ak.with_field(selected, ak.from_numpy(splits), "split")


def _energy(particles: ak.Array, chosen: ak.Array) -> float:
    return float(ak.sum(particles.energy[chosen]))


def _check_balance(energy_gev: dict[str, float], source: Path) -> None:
    visible, accounted = energy_gev["visible"], energy_gev["target"] + energy_gev["dropped"]
    if not abs(visible - accounted) <= ENERGY_TOLERANCE * max(visible, 1.0):
        raise UserError(
            f"{source}: visible energy {visible:.6f} GeV differs from target + dropped energy"
            f" {accounted:.6f} GeV; the dataset is inconsistent, rebuild it"
        )
