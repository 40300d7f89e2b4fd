"""The report's account of the data: samples, energy balance, cutflow.

Inputs -> outputs: Parquet metadata of the dataset and the manifest of the shards; the cutflow's CSV -> tables.
Only file footers are read, never events, so the report stays quick for any number of them.
"""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from particleforge import schema, tables
from particleforge.report.rendering import NOTHING, Picture, Rows, number, percent, picture

_CUTFLOW_CAPTION = """Share of events that is left after each cut, in order, and of tracks and clusters that the object cuts keep, per
    sample; error bars are 68 % intervals. A cut that removes much of one sample shapes every plot further down."""


@dataclass(frozen=True)
class Data:
    """What the page shows of the data."""

    samples: Rows
    energy: Rows
    splits: Rows
    quarantined: list[str]
    cutflow: Rows
    cutflow_plot: Picture


def gather_data(dataset: Sequence[Path], manifest: Path, cutflow_table: Path, cutflow_plot: Path) -> Data:
    """Read what the dataset's files, the manifest and the cutflow say about themselves."""
    totals: dict[str, Counter[str]] = {}
    energies: dict[str, Counter[str]] = {}
    quarantined = []
    for path in dataset:
        metadata = tables.read_metadata(path)
        sample = metadata["provenance"]["settings"]["sample_name"]
        totals.setdefault(sample, Counter()).update(_sizes(path))
        energies.setdefault(sample, Counter()).update(metadata["energy_balance_gev"])
        quarantined += [f"{entry['file']}: {entry['reason']}" for entry in metadata["quarantined"]]
    described = json.loads(manifest.read_text(encoding="utf-8"))
    return Data(
        samples=_samples(totals, schema.element_types(described["elements"])[1]),
        energy=_energy(energies),
        splits=_splits(described),
        quarantined=quarantined,
        cutflow=_cutflow(cutflow_table),
        cutflow_plot=picture(cutflow_plot, " ".join(_CUTFLOW_CAPTION.split())),
    )


def _sizes(path: Path) -> dict[str, int]:
    """Return numbers of files, events, tracks, clusters and particles from a file's footer."""
    footer = pq.ParquetFile(path).metadata
    sizes = {"files": 1, "events": footer.num_rows}
    names = [footer.schema.column(i).path for i in range(footer.num_columns)]
    for collection in ("tracks", "clusters", "particles"):
        column = next(i for i, name in enumerate(names) if name.startswith(f"{collection}."))
        chunks = [footer.row_group(group).column(column) for group in range(footer.num_row_groups)]
        # an empty list counts as one value that is null; a chunk without rows has no statistics
        sizes[collection] = sum(chunk.num_values - chunk.statistics.null_count for chunk in chunks if chunk.num_values)
    return sizes


def _samples(totals: Mapping[str, Counter[str]], calorimeter_type: str) -> Rows:
    rows = []
    for sample, total in sorted(totals.items()):
        means = [f"{total[name] / total['events']:.1f}" if total["events"] else NOTHING for name in ("tracks", "clusters", "particles")]
        rows.append((sample, number(total["files"]), number(total["events"]), *means))
    return Rows(("sample", "files", "events", "tracks / event", f"{calorimeter_type}s / event", "stable particles / event"), rows)


def _energy(energies: Mapping[str, Counter[str]]) -> Rows:
    rows = []
    for sample, energy in sorted(energies.items()):
        visible = energy["visible"]
        shares = [percent(energy[name], visible) for name in ("target", "merged", "dropped")]
        closure = abs(visible - energy["target"] - energy["dropped"]) / max(visible, 1.0)
        rows.append((sample, number(round(visible)), *shares, f"{closure:.1e}"))
    return Rows(("sample", "visible energy [GeV]", "in targets", "of it merged", "dropped", "closure"), rows)


def _splits(manifest: Mapping[str, Any]) -> Rows:
    rows = []
    for name, split in manifest["splits"].items():
        per_event = f"{split['n_elements'] / split['n_events']:.1f}" if split["n_events"] else NOTHING
        rows.append((name, number(split["n_events"]), number(split["n_elements"]), per_event, number(len(split["shards"]))))
    order = {"train": 0, "valid": 1, "test": 2}
    return Rows(("split", "events", "elements", "elements / event", "shards"), sorted(rows, key=lambda row: order[row[0]]))


def _cutflow(table: Path) -> Rows:
    with table.open(encoding="utf-8", newline="") as handle:
        found = list(csv.DictReader(handle))
    rows = [
        (
            row["sample"],
            row["quantity"],
            row["cut"].replace("_", " "),
            row["expression"],
            number(int(row["number"])),
            f"{float(row['efficiency']):.2%}",
            f"{float(row['step_efficiency']):.2%}",
        )
        for row in found
    ]
    return Rows(("sample", "quantity", "cut", "expression", "number", "of all", "of row before"), rows)
