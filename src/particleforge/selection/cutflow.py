"""Gather the cutflows of all shards into a table and a plot.

Cutflow JSON of each shard (``selection.select``) -> CSV with one row per sample, quantity and cut,
and a PNG with a PDF beside it. Quantities are events, and the objects that are cut (tracks,
clusters or hits, candidates), which have the weight of their event. Rows are in the order of the
cuts; ``efficiency`` is relative to all, ``step_efficiency`` to the row before.

Errors are Clopper-Pearson intervals at 68.27 % (Clopper, Pearson, Biometrika 26 (1934) 404); for
weights with the effective number (sum w)^2 / sum w^2, as ROOT's TEfficiency does for its intervals.
Those of objects take the objects of an event as independent. They depend on the input only through
sums, so not on the number or order of the shards beyond rounding.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from pydantic import BaseModel, Field
from scipy.stats import beta

from particleforge.artefacts import write_text
from particleforge.config.cuts import TOTAL
from particleforge.config.settings import CutflowSettings
from particleforge.errors import UserError
from particleforge.pages.figures import new_figure, save_figure, styled
from particleforge.provenance.record import Provenance
from particleforge.stored import Stored, read_stored

COVERAGE = 0.6827
EVENTS = "events"
_ORDER = (EVENTS, "tracks", "clusters", "hits", "candidates")
_Cutflow = dict[str, list[dict[str, Any]]]  # rows by quantity
_Interval = tuple[float, float, float]  # value, lower and upper bound
_WHOLE: _Interval = (1.0, 1.0, 1.0)  # by definition, without error
_SUMS = ("number", "sum_of_weights", "sum_of_weights_squared")


class CutEntry(BaseModel):
    """What is left after a cut, in the cutflow of one file."""

    name: str
    expression: str
    number: int = Field(ge=0)
    sum_of_weights: float = Field(allow_inf_nan=False)
    sum_of_weights_squared: float = Field(ge=0, allow_inf_nan=False)


class CutflowFile(Stored):
    """What is read of the cutflow of one file."""

    KIND = "cutflow"
    REMEDY = "rerun select_events"
    sample: str
    cutflow: dict[Literal["events", "tracks", "clusters", "hits", "candidates"], list[CutEntry]]


@dataclass(frozen=True)
class CutflowRow:
    """One row of the table."""

    sample: str
    quantity: str  # events, or the kind of object
    cut: str
    expression: str
    number: int
    sum_of_weights: float
    efficiency: float
    efficiency_low: float
    efficiency_high: float
    step_efficiency: float
    step_efficiency_low: float
    step_efficiency_high: float


def gather_cutflows(
    settings: CutflowSettings, *, cutflows: Sequence[Path], table: Path, plot: Path
) -> None:
    """Write the cutflow of all samples as CSV, PNG (``plot``) and PDF (beside it).

    Shards with other cuts are a UserError.
    """
    made = Provenance.of("gather_cutflows", settings.plain(), cutflows)
    by_sample: dict[str, _Cutflow] = {}
    for path in cutflows:
        _add(by_sample, read_stored(path, CutflowFile), path)
    rows = [row for sample in sorted(by_sample) for row in _rows(sample, by_sample[sample])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(CutflowRow)])
    writer.writerows(astuple(row) for row in rows)
    write_text(table, text.getvalue())
    _draw(rows, {name: sample.label for name, sample in settings.samples.items()}, plot)
    made.record(table, plot, plot.with_suffix(".pdf"))


def efficiency(passed: float, total: float, total_squared: float) -> _Interval:
    """Return efficiency and the bounds of its interval.

    They come from sums of weights and the total's sum of squared weights.

    Without events, or with weights that sum to nothing, nothing is known: (0, 0, 1).
    """
    if total <= 0 or total_squared <= 0:
        return 0.0, 0.0, 1.0
    value = min(max(passed / total, 0.0), 1.0)
    n = total**2 / total_squared
    k, tail = value * n, (1 - COVERAGE) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return value, low, high


def _add(by_sample: dict[str, _Cutflow], found: CutflowFile, path: Path) -> None:
    """Add one shard's counts to its sample."""
    added: _Cutflow = {
        quantity: [row.model_dump() for row in rows] for quantity, rows in found.cutflow.items()
    }
    total = by_sample.setdefault(
        found.sample,
        {
            quantity: [{**row, **dict.fromkeys(_SUMS, 0)} for row in rows]
            for quantity, rows in added.items()
        },
    )
    if _cuts(total) != _cuts(added):
        raise UserError(
            f"{path}: made with other cuts than the shards before it; rerun select_events for all"
            " shards"
        )
    for quantity, rows in added.items():
        for mine, other in zip(total[quantity], rows, strict=True):
            for name in _SUMS:
                mine[name] += other[name]


def _cuts(cutflow: _Cutflow) -> dict[str, list[tuple[str, str]]]:
    return {
        quantity: [(row["name"], row["expression"]) for row in rows]
        for quantity, rows in cutflow.items()
    }


def _rows(sample: str, total: _Cutflow) -> Iterator[CutflowRow]:
    for quantity in sorted(total, key=_ORDER.index):
        rows = total[quantity]
        before = everything = rows[0]
        for row in rows:
            shares = (
                (_WHOLE, _WHOLE)
                if row is everything
                else (_share(row, everything), _share(row, before))
            )
            yield CutflowRow(
                sample,
                quantity,
                row["name"],
                row["expression"],
                row["number"],
                row["sum_of_weights"],
                *shares[0],
                *shares[1],
            )
            before = row


def _share(row: dict[str, Any], base: dict[str, Any]) -> _Interval:
    """Return the weighted share; files that leave all weights at 0 count unweighted."""
    if base["sum_of_weights_squared"] > 0:
        return efficiency(
            row["sum_of_weights"], base["sum_of_weights"], base["sum_of_weights_squared"]
        )
    return efficiency(row["number"], base["number"], base["number"])


def _draw(rows: Sequence[CutflowRow], labels: Mapping[str, str], plot: Path) -> None:
    """Draw the share of events, and of objects, that is left after each cut.

    Objects are drawn beside it, of each kind that is cut.
    """
    samples = list(dict.fromkeys(row.sample for row in rows))
    panels = {"fraction of events (weighted)": [row for row in rows if row.quantity == EVENTS]}
    if cut := [row for row in rows if row.quantity != EVENTS and row.cut != TOTAL]:
        panels["fraction of objects (weighted)"] = cut
    n_points = [len({(row.quantity, row.cut) for row in shown}) for shown in panels.values()]
    with styled():
        figure = new_figure(min(4.0 + 1.1 * sum(n_points), 14.0), 4.6)
        axes = figure.subplots(
            1, len(panels), squeeze=False, width_ratios=[max(n, 2) for n in n_points]
        )[0]
        for panel, (name, shown) in zip(axes, panels.items(), strict=True):
            for number, sample in enumerate(samples):
                # side by side, so that equal values stay visible
                shift = 0.1 * (number - (len(samples) - 1) / 2)
                _points(
                    panel,
                    [row for row in shown if row.sample == sample],
                    shift,
                    labels.get(sample, sample),
                )
            panel.set_ylabel(name)
        if samples:
            axes[0].legend(loc="lower left")
        save_figure(figure, plot)


def _points(axes: Axes, rows: Sequence[CutflowRow], shift: float, label: str) -> None:
    """Draw one sample's efficiencies with their intervals."""
    below = [max(row.efficiency - row.efficiency_low, 0.0) for row in rows]
    above = [max(row.efficiency_high - row.efficiency, 0.0) for row in rows]
    position = [x + shift for x in range(len(rows))]
    axes.errorbar(
        position,
        [row.efficiency for row in rows],
        yerr=[below, above],
        fmt="o",
        markersize=4,
        capsize=2,
        label=label,
    )
    names = [row.cut if row.quantity == EVENTS else f"{row.quantity}: {row.cut}" for row in rows]
    axes.set_xticks(
        range(len(rows)),
        [name.replace("_", " ") for name in names],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(0, 1.08)
