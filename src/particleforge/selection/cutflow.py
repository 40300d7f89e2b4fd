"""Gather the cutflows of all shards into a table and a plot.

Cutflow JSON of each shard (``selection.select``) -> CSV with one row per sample, quantity and cut, and a PNG with a PDF
beside it. Quantities are events (in the order of the cuts; ``sum_of_weights``) and, for the object cuts, tracks and clusters
(unweighted). ``efficiency`` is relative to all, ``step_efficiency`` to the row before.

Errors are Clopper-Pearson intervals at 68.27 % (Clopper, Pearson, Biometrika 26 (1934) 404); for weighted events with the
effective number of events (sum w)^2 / sum w^2, as ROOT's TEfficiency does for its intervals. They depend on the input only
through sums, so not on the number or order of the shards beyond rounding.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from scipy.stats import beta

from particleforge.artefacts import write_text
from particleforge.config.settings import CutflowSettings
from particleforge.errors import UserError
from particleforge.figures import new_figure, save_figure, styled
from particleforge.provenance import Provenance

COVERAGE = 0.6827
OBJECT_CUTS = "object cuts"  # the row of what passes them; no event cut can have this name
_Interval = tuple[float, float, float]  # value, lower and upper bound
_WHOLE: _Interval = (1.0, 1.0, 1.0)  # by definition, without error
_SUMS = ("events", "sum_of_weights", "sum_of_weights_squared")


@dataclass(frozen=True)
class CutflowRow:
    """One row of the table."""

    sample: str
    quantity: str  # events, tracks or clusters
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


def gather_cutflows(settings: CutflowSettings, cutflows: Sequence[Path], table: Path, plot: Path) -> None:
    """Write the cutflow of all samples as CSV, PNG (``plot``) and PDF (beside it); shards with other cuts are a UserError."""
    made = Provenance.of("gather_cutflows", settings.plain(), cutflows)
    by_sample: dict[str, dict[str, Any]] = {}
    for path in cutflows:
        _add(by_sample, json.loads(path.read_text(encoding="utf-8")), path)
    rows = [row for sample in sorted(by_sample) for row in _rows(sample, by_sample[sample])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(CutflowRow)])
    writer.writerows(astuple(row) for row in rows)
    write_text(table, text.getvalue())
    _draw(rows, {name: sample.label for name, sample in settings.samples.items()}, plot)
    made.record(table, plot, plot.with_suffix(".pdf"))


def efficiency(passed: float, total: float, total_squared: float) -> _Interval:
    """Return efficiency and the bounds of its interval from sums of weights and the total's sum of squared weights.

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


def _add(by_sample: dict[str, dict[str, Any]], found: dict[str, Any], path: Path) -> None:
    """Add one shard's counts to its sample."""
    total = by_sample.setdefault(found["sample"], {"cuts": [], "objects": {}})
    if not total["cuts"]:
        total["cuts"] = [{**cut, **dict.fromkeys(_SUMS, 0)} for cut in found["cuts"]]
    if [(c["name"], c["expression"]) for c in total["cuts"]] != [(c["name"], c["expression"]) for c in found["cuts"]]:
        raise UserError(f"{path}: made with other cuts than the shards before it; rerun select_events for all shards")
    for mine, other in zip(total["cuts"], found["cuts"], strict=True):
        for name in _SUMS:
            mine[name] += other[name]
    for name, counts in found["objects"].items():
        mine = total["objects"].setdefault(name, {"all": 0, "removed": 0})
        for key in mine:
            mine[key] += counts[key]


def _rows(sample: str, total: dict[str, Any]) -> list[CutflowRow]:
    everything, *cuts = total["cuts"]
    rows = [_event_row(sample, everything, _WHOLE, _WHOLE)]
    before = everything
    for cut in cuts:
        rows.append(_event_row(sample, cut, _share(cut, everything), _share(cut, before)))
        before = cut
    for name, counts in sorted(total["objects"].items()):
        kept = counts["all"] - counts["removed"]
        for cut_name, number, share in (
            ("all", counts["all"], _WHOLE),
            (OBJECT_CUTS, kept, efficiency(kept, counts["all"], counts["all"])),
        ):
            rows.append(CutflowRow(sample, name, cut_name, "", number, float(number), *share, *share))
    return rows


def _share(cut: dict[str, Any], base: dict[str, Any]) -> _Interval:
    """Return the weighted share of events; files that leave all weights at 0 count unweighted."""
    if base["sum_of_weights_squared"] > 0:
        return efficiency(cut["sum_of_weights"], base["sum_of_weights"], base["sum_of_weights_squared"])
    return efficiency(cut["events"], base["events"], base["events"])


def _event_row(sample: str, cut: dict[str, Any], of_all: _Interval, of_step: _Interval) -> CutflowRow:
    return CutflowRow(sample, "events", cut["name"], cut["expression"], cut["events"], cut["sum_of_weights"], *of_all, *of_step)


def _draw(rows: Sequence[CutflowRow], labels: Mapping[str, str], plot: Path) -> None:
    """Draw event efficiencies per cut and the share of objects that the object cuts keep."""
    with styled():
        figure = new_figure(9.0, 4.2)
        events, objects = figure.subplots(1, 2, width_ratios=[2, 1])
        samples = list(dict.fromkeys(row.sample for row in rows))
        for number, sample in enumerate(samples):
            shift = 0.1 * (number - (len(samples) - 1) / 2)  # side by side, so that equal values stay visible
            mine = [row for row in rows if row.sample == sample]
            cuts = [row for row in mine if row.quantity == "events"]
            kept = [row for row in mine if row.cut == OBJECT_CUTS]
            _points(events, cuts, [row.cut.replace("_", " ") for row in cuts], shift, labels.get(sample, sample))
            _points(objects, kept, [row.quantity for row in kept], shift, labels.get(sample, sample))
        events.set_ylabel("fraction of events (weighted)")
        objects.set_ylabel("fraction kept by the object cuts")
        if samples:
            events.legend(loc="lower left")
        save_figure(figure, plot)


def _points(axes: Axes, rows: Sequence[CutflowRow], names: Sequence[str], shift: float, label: str) -> None:
    """Draw one sample's efficiencies with their intervals."""
    below = [max(row.efficiency - row.efficiency_low, 0.0) for row in rows]
    above = [max(row.efficiency_high - row.efficiency, 0.0) for row in rows]
    position = [x + shift for x in range(len(rows))]
    axes.errorbar(position, [row.efficiency for row in rows], yerr=[below, above], fmt="o", markersize=4, capsize=2, label=label)
    axes.set_xticks(range(len(rows)), names)
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(0, 1.08)
