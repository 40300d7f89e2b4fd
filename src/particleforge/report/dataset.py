"""The report's account of the data: samples, energy balance, cutflow.

Inputs -> outputs: Parquet metadata of the dataset and of the selected events, and the manifest of
the shards; the cutflow's CSV -> tables. Only file footers are read, never events, so the report
stays quick for any number of them.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from particleforge.dataset.accounting import (
    HEADS,
    LEGEND,
    Account,
    DatasetMetadata,
    read_accounts,
    row,
    total_of,
)
from particleforge.model.inputs import read_manifest
from particleforge.pages.rendering import NOTHING, Picture, Rows, number, percent, picture
from particleforge.tables import parquet, schema

N_WORST_FILES = 20
_CUTFLOW_CAPTION = """Share of events that is left after each cut, in order, and of the objects that
    each object cut and each removal of overlaps leaves, per sample; error bars are 68 % intervals.
    A cut that removes much of one sample shapes every plot further down."""


@dataclass(frozen=True)
class Data:
    """What the page shows of the data."""

    samples: Rows
    energy: Rows
    energy_legend: Sequence[str]
    worst_files: Rows
    splits: Rows
    quarantined: Rows
    cutflow: Rows
    cutflow_plot: Picture


def gather_data(
    *,
    dataset: Sequence[Path],
    selected: Sequence[Path],
    manifest: Path,
    cutflow_table: Path,
    cutflow_plot: Path,
) -> Data:
    """Read what dataset, selected events, manifest and cutflow say about themselves."""
    totals: dict[str, Counter[str]] = {}
    quarantined = []
    for path in dataset:
        told = parquet.described(path, DatasetMetadata)
        totals.setdefault(told.sample, Counter()).update(
            _sizes(path) | {"files": len(told.files), "left out": len(told.quarantined)}
        )
        quarantined += [(told.sample, path.name, one.file, one.reason) for one in told.quarantined]
    accounts = read_accounts(dataset)
    described = read_manifest(manifest)
    return Data(
        samples=_samples(totals, schema.element_types(described["elements"])[1]),
        energy=_energy(accounts, selected),
        energy_legend=LEGEND,
        worst_files=_worst_files(accounts),
        splits=_splits(described),
        quarantined=Rows(("sample", "shard", "file", "why it was left out"), quarantined),
        cutflow=_cutflow(cutflow_table),
        cutflow_plot=picture(cutflow_plot, " ".join(_CUTFLOW_CAPTION.split())),
    )


def _sizes(path: Path) -> dict[str, int]:
    """Return numbers of events, tracks, clusters and particles from a file's footer."""
    footer = pq.ParquetFile(path).metadata
    sizes = {"events": footer.num_rows}
    names = [footer.schema.column(i).path for i in range(footer.num_columns)]
    for collection in ("tracks", "clusters", "particles"):
        column = next(i for i, name in enumerate(names) if name.startswith(f"{collection}."))
        chunks = [footer.row_group(group).column(column) for group in range(footer.num_row_groups)]
        # an empty list counts as one value that is null; a chunk without rows has no statistics
        sizes[collection] = sum(
            chunk.num_values - chunk.statistics.null_count for chunk in chunks if chunk.num_values
        )
    return sizes


def _samples(totals: Mapping[str, Counter[str]], calorimeter_type: str) -> Rows:
    rows = []
    for sample, total in sorted(totals.items()):
        means = [
            f"{total[name] / total['events']:.1f}" if total["events"] else NOTHING
            for name in ("tracks", "clusters", "particles")
        ]
        rows.append(
            (
                sample,
                number(total["files"]),
                number(total["left out"]),
                number(total["events"]),
                *means,
            )
        )
    return Rows(
        (
            "sample",
            "files",
            "files left out",
            "events",
            "tracks / event",
            f"{calorimeter_type}s / event",
            "stable particles / event",
        ),
        rows,
    )


def _energy(accounts: Sequence[Account], selected: Sequence[Path]) -> Rows:
    """Return one row per sample, with what the object cuts drop of the selected events' energy."""
    cut: dict[str, Counter[str]] = {}
    for path in selected:
        metadata = parquet.read_metadata(path)
        cut.setdefault(metadata["sample"], Counter()).update(metadata["energy_gev"])
    rows = []
    for sample in sorted({account.sample for account in accounts}):
        whole = total_of(
            [account for account in accounts if account.sample == sample], sample, sample
        )
        balance, selection = whole.balance, cut.get(sample, Counter())
        closure = abs(balance.visible - balance.target - balance.dropped) / max(
            balance.visible, 1.0
        )
        by_cuts = percent(selection["dropped_by_object_cuts"], selection["visible"])
        rows.append((*row(whole), by_cuts, f"{closure:.1e}"))
    return Rows(("sample", *HEADS[1:], "object cuts", "closure"), rows)


def _worst_files(accounts: Sequence[Account]) -> Rows:
    """Return the files that drop the largest shares of their energy.

    Nothing if each sample is of one file.
    """
    if len(accounts) == len({account.sample for account in accounts}):
        return Rows((), [])
    worst = sorted(
        accounts, key=lambda account: (-account.dropped_fraction, account.sample, account.name)
    )[:N_WORST_FILES]
    return Rows(("sample", *HEADS), [(account.sample, *row(account)) for account in worst])


def _splits(manifest: Mapping[str, Any]) -> Rows:
    rows = []
    for name, split in manifest["splits"].items():
        per_event = (
            f"{split['n_elements'] / split['n_events']:.1f}" if split["n_events"] else NOTHING
        )
        rows.append(
            (
                name,
                number(split["n_events"]),
                number(split["n_elements"]),
                per_event,
                number(len(split["shards"])),
            )
        )
    order = {"train": 0, "valid": 1, "test": 2}
    return Rows(
        ("split", "events", "elements", "elements / event", "shards"),
        sorted(rows, key=lambda row: order[row[0]]),
    )


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
    return Rows(
        ("sample", "quantity", "cut", "expression", "number", "of all", "of row before"), rows
    )
