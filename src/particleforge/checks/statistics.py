"""What a shard of the dataset holds, in one pass: extremes, references, energies, histograms.

There is one histogram of each quantity per event.

Parquet of ``tables.DATASET_SCHEMA`` (or with hits) -> plain values, small and additive, from which
``dataset`` judges. One row group is in memory at a time. Limits are not applied here, so that
statistics of a shard hold until its bytes change.

Quantities have one value per event: numbers of objects, means over the objects of an event, summed
energies (GeV), and the calorimeter's *response*, energy of the clusters over energy that particles
left in the calorimeter. Events in which a mean or a ratio is not defined have no entry.
"""

from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from particleforge.checks.histogram import Histogram
from particleforge.dataset.accounting import DatasetMetadata
from particleforge.stored import held_to
from particleforge.tables import schema
from particleforge.tables.parquet import DATASET, iter_tables, require_truth
from particleforge.tables.schema import Fate

VERSION = 1  # of what shard_statistics returns
RESPONSE = "response of the calorimeter"
_Array = NDArray[Any]
_Members = dict[str, _Array]
# column -> the collection whose rows it counts; elements are tracks and clusters
_REFERENCES = {
    "targets.particle": "particles",
    "particles.element": "elements",
    "track_links.track": "tracks",
    "track_links.particle": "particles",
    "cluster_links.cluster": "clusters",
    "cluster_links.particle": "particles",
    "candidates.element": "elements",
}


class _Collection:
    """A list column of a block: flat members, and the event of each entry."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        lists = column.combine_chunks()
        offsets = lists.offsets.to_numpy().astype(np.int64)
        collections = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
        self.counts = np.diff(offsets)
        self.event = np.repeat(np.arange(len(self.counts)), self.counts)
        self.members: _Members = {
            field.name: collections.field(number).to_numpy(zero_copy_only=False)
            for number, field in enumerate(collections.type)
        }

    def sum(self, values: _Array) -> NDArray[np.float64]:
        """Return the sum of values of the entries, per event."""
        return np.bincount(self.event, weights=values, minlength=len(self.counts)).astype(
            np.float64
        )


class Extremes:
    """Number of values of a column, how many are not finite, and the extremes of the others."""

    def __init__(self) -> None:
        self.n, self.not_finite, self.min, self.max = 0, 0, np.inf, -np.inf

    def add(self, values: _Array) -> None:
        """Add values."""
        finite = values[np.isfinite(values)]
        self.n += len(values)
        self.not_finite += len(values) - len(finite)
        if len(finite):
            self.min = min(self.min, float(finite.min()))
            self.max = max(self.max, float(finite.max()))

    def plain(self) -> dict[str, Any]:
        """Return plain values; extremes are null where no value is finite."""
        found = self.n > self.not_finite
        return {
            "n": self.n,
            "not_finite": self.not_finite,
            "min": self.min if found else None,
            "max": self.max if found else None,
        }


def schema_differences(path: Path, expected: pa.Schema, may_lack: Container[str] = ()) -> list[str]:
    """Return what of a file's columns is not as expected, one text a column or member."""
    found, wanted = _types(pq.read_schema(path)), _types(expected)
    missing = [f"{name} (missing)" for name in wanted if name not in found and name not in may_lack]
    other = [
        f"{name} ({found[name]} instead of {dtype})"
        for name, dtype in wanted.items()
        if found.get(name, dtype) != dtype
    ]
    return missing + other + [f"{name} (not expected)" for name in found if name not in wanted]


def _types(columns: pa.Schema) -> dict[str, str]:
    """Return the type of each column, and of each member of the records in it, as text."""
    types = {}
    for column in columns:
        listed = pa.types.is_list(column.type)
        element = column.type.value_field if listed else column
        nested = pa.types.is_struct(element.type)
        kind = "records" if nested else str(element.type)
        types[column.name] = (
            f"{'list of ' * listed}{kind}{' or null' * (column.nullable or element.nullable)}"
        )
        for member in element.type if nested else ():
            types[f"{column.name}.{member.name}"] = f"{member.type}{' or null' * member.nullable}"
    return types


def shard_statistics(path: Path, expected: pa.Schema) -> dict[str, Any]:
    """Return the statistics of a shard.

    One that cannot be read is a UserError, one of another schema has nothing but the differences.
    """
    metadata = require_truth(path, DATASET, judged=False)
    told = held_to(DatasetMetadata, metadata, path)
    if differences := schema_differences(path, expected):
        return {"schema_differences": differences}
    gathered = _Gathered()
    for block in iter_tables(path):
        gathered.add(block)
    return {
        "schema_differences": [],
        "sample": told.sample,
        "counts": told.counts,
        **gathered.plain(),
    }


class _Gathered:
    """Statistics of the blocks so far."""

    def __init__(self) -> None:
        self.events = 0
        self.columns: dict[str, Extremes] = {}
        self.wrong = Counter[str](dict.fromkeys((*_REFERENCES, "targets", "particles.fate"), 0))
        self.energy_gev = dict.fromkeys(("visible", "target", "dropped"), 0.0)
        self.closure = 0.0
        self.quantities: dict[str, list[Histogram]] = {}

    def add(self, block: pa.Table) -> None:
        """Add a block of events."""
        self.events += block.num_rows
        for field in schema.EVENT:
            self.columns.setdefault(field.name, Extremes()).add(block[field.name].to_numpy())
        collections = {
            collection.name: _Collection(block[collection.name]) for collection in schema.DATASET
        }
        for name, found in collections.items():
            for member, values in found.members.items():
                self.columns.setdefault(f"{name}.{member}", Extremes()).add(values)
        self._add_references(collections)
        # values that are not finite are counted above
        with np.errstate(invalid="ignore", over="ignore"):
            self._add_energies(collections)
            self._add_quantities(collections)

    def _add_references(self, collections: dict[str, _Collection]) -> None:
        sizes = {name: collections[name].counts for name in ("tracks", "clusters", "particles")}
        sizes["elements"] = sizes["tracks"] + sizes["clusters"]
        for column, counted in _REFERENCES.items():
            name, _, member = column.partition(".")
            values = collections[name].members[member]
            optional = name in ("targets", "particles", "candidates")  # -1 means none
            bad = (values >= sizes[counted][collections[name].event]) | (values < -int(optional))
            self.wrong[column] += int(bad.sum())
        self.wrong["targets"] += int(np.sum(collections["targets"].counts != sizes["elements"]))
        self.wrong["particles.fate"] += (
            0
            if self.wrong.total()
            else _hosts_that_disagree(collections["particles"], collections["targets"])
        )

    def _add_energies(self, collections: dict[str, _Collection]) -> None:
        particles, energy = collections["particles"], collections["particles"].members["energy"]
        fate = particles.members["fate"]
        sums = {
            "visible": particles.sum(energy * (fate != Fate.INVISIBLE)),
            "target": collections["targets"].sum(collections["targets"].members["energy"]),
            "dropped": particles.sum(energy * (fate == Fate.DROPPED)),
        }
        for name, values in sums.items():
            self.energy_gev[name] += float(np.nansum(values))
        missing = np.abs(sums["visible"] - sums["target"] - sums["dropped"]) / np.maximum(
            sums["visible"], 1.0
        )
        self.closure = max(self.closure, float(np.max(missing[np.isfinite(missing)], initial=0.0)))
        self._fill("visible energy", sums["visible"])
        left = particles.sum(particles.members["deposited_energy"])
        self._fill(
            RESPONSE,
            np.divide(
                collections["clusters"].sum(collections["clusters"].members["energy"]),
                left,
                where=left > 0,
                out=left * np.nan,
            ),
        )

    def _add_quantities(self, collections: dict[str, _Collection]) -> None:
        for name in ("tracks", "clusters", "particles", "candidates"):
            self._fill(f"{name} per event", collections[name].counts)
        for name in ("tracks", "clusters"):
            found = collections[name]
            some = found.counts > 0
            for member, values in found.members.items():
                self._fill(f"mean {name}.{member}", found.sum(values)[some] / found.counts[some])
        self._fill(
            "energy of candidates",
            collections["candidates"].sum(collections["candidates"].members["energy"]),
        )

    def _fill(self, quantity: str, values: _Array) -> None:
        self.quantities.setdefault(quantity, []).append(Histogram.of(values))

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "events": self.events,
            "columns": {name: column.plain() for name, column in self.columns.items()},
            "wrong": dict(self.wrong),
            "energy_gev": self.energy_gev,
            "closure": self.closure,
            "quantities": {
                name: Histogram.total(parts).plain() for name, parts in self.quantities.items()
            },
        }


def _hosts_that_disagree(particles: _Collection, targets: _Collection) -> int:
    """Return how many hosted particles own an element whose target is another particle.

    References must be in bounds.
    """
    hosted = particles.members["fate"] == Fate.HOSTED
    first_target = np.cumsum(targets.counts) - targets.counts
    first_particle = np.cumsum(particles.counts) - particles.counts
    event, element = particles.event[hosted], particles.members["element"][hosted]
    own = np.flatnonzero(hosted) - first_particle[event]
    found = targets.members["particle"][first_target[event] + element]
    return int(np.sum((element < 0) | (found != own)))
