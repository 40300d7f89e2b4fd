"""Pieces that the validation's plots share: points per bin, distributions, titles, log axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mplhep
import numpy as np
from matplotlib.axes import Axes

from particleforge.config.settings import ValidateSettings
from particleforge.pages.figures import COLOURS, LABELS, LINES, MARKERS, annotate
from particleforge.validation.events import RECONSTRUCTIONS
from particleforge.validation.histograms import Hists, reconstructions

Tree = dict[str, Any]
MIN_SHOWN = 5  # a proportion of fewer entries is not drawn: its interval spans the axis


@dataclass(frozen=True)
class Results:
    """What there is to plot: figures (``metrics``), histograms and the settings that made them."""

    figures: Tree
    hists: Hists
    settings: ValidateSettings

    @property
    def reconstructions(self) -> tuple[str, ...]:
        """What is compared with truth, in the order of drawing."""
        return reconstructions(self.hists)


def title(axes: Axes, results: Results) -> None:
    """Name detector, samples and number of events above the axes."""
    samples = len(results.settings.samples) - len(results.figures["held_out"])
    annotate(
        axes,
        results.settings.title,
        f"{samples} sample{'s' * (samples > 1)}, {results.figures['n_events']} events",
    )


def _points(
    axes: Axes,
    rows: Sequence[Tree],
    reco: str,
    pick: Callable[[Tree], Tree | None],
    *,
    scale: float = 1.0,
) -> bool:
    """Draw a figure per bin with its error, slightly shifted per reconstruction.

    Return whether there was any.
    """
    kept = [
        (row, figure)
        for row in rows
        if (figure := pick(row[reco])) is not None
        and figure.get("effective", MIN_SHOWN) >= MIN_SHOWN
    ]
    if not kept:
        return False
    low = np.array([row["low"] for row, _ in kept])
    high = np.array([row["high"] for row, _ in kept])
    values = np.array([figure["value"] for _, figure in kept]) * scale
    errors = np.array([_errors(figure) for _, figure in kept]).T * scale
    share = 0.5 + 0.1 * (RECONSTRUCTIONS.index(reco) - (len(RECONSTRUCTIONS) - 1) / 2)
    place = (
        low * (high / low) ** share if axes.get_xscale() == "log" else low + (high - low) * share
    )
    axes.errorbar(
        place,
        values,
        errors,
        [place - low, high - place],
        fmt=MARKERS[reco],
        color=COLOURS[reco],
        ms=5,
        lw=1.2,
        label=LABELS[reco],
    )
    return True


def _errors(figure: Tree) -> tuple[float, float]:
    if "error" in figure:
        return figure["error"], figure["error"]
    return figure["value"] - figure["low"], figure["high"] - figure["value"]


def draw_points(axes: Axes, rows: Sequence[Tree], pick: Callable[[Tree], Tree | None]) -> None:
    """Draw the figure that ``pick`` takes of every bin and reconstruction that rows have.

    Null figures are left out.
    """
    found = [reco for reco in RECONSTRUCTIONS if all(reco in row for row in rows)]
    drawn = [_points(axes, rows, reco, pick) for reco in found]
    if not any(drawn):
        say_empty(axes)


def say_empty(axes: Axes) -> None:
    """Write that there is nothing to draw."""
    axes.text(
        0.5,
        0.5,
        "too few entries",
        ha="center",
        va="center",
        transform=axes.transAxes,
        color="#777777",
    )


def draw_distributions(
    axes: Axes,
    hists: Hists,
    name: str,
    names: Sequence[str],
    axis: str,
    notes: dict[str, str] | None = None,
) -> None:
    """Draw one step histogram per view or reconstruction, all else summed (flow included)."""
    total = 0.0
    for key in names:
        projected = hists[name][{axis: key}].project(hists[name].axes[-1].name)
        total += float(projected.values(flow=True).any())
        label = LABELS[key] + (f": {notes[key]}" if notes else "")
        mplhep.histplot(
            projected.values(),
            projected.axes[0].edges,
            ax=axes,
            color=COLOURS[key],
            label=label,
            yerr=False,
            ls=LINES[key],
        )
    if total == 0:
        say_empty(axes)
    axes.set_xlabel(hists[name].axes[-1].label)
    axes.set_xlim(projected.axes[0].edges[0], projected.axes[0].edges[-1])
    axes.set_ylim(bottom=0)


def summary_text(summary: Tree, unit: str = "") -> str:
    """Return median and width of a summary as text for a legend."""
    if summary["median"] is None:
        return f"{summary['n']:.4g} entries"
    if summary.get("resolution"):
        return (
            f"median {summary['median']['value']:.3f}, IQR/median"
            f" {summary['resolution']['value']:.3f}"
        )
    return f"median {summary['median']['value']:.2f}{unit}, IQR {summary['iqr']['value']:.2f}{unit}"


def make_room(axes: Axes, factor: float = 1.35) -> None:
    """Leave room for a legend at the top."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, low + (high - low) * factor)


def lowest_shown(*counts: np.ndarray) -> float:
    """Return where a logarithmic axis of counts begins: below one entry, and below the smallest."""
    positive = np.concatenate([found[found > 0] for found in counts])
    return 0.5 * float(positive.min(initial=1.0))


def log_axis(axes: Axes, edges: Sequence[float]) -> None:
    """Make the x axis logarithmic, labelled with the edges of its bins; call it before drawing."""
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xticks(list(edges), [f"{edge:g}" for edge in edges])
    axes.set_xticks([], minor=True)


def add_legend(axes: Axes, **where: Any) -> None:
    """Add a legend if anything was drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**where)
