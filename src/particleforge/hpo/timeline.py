"""Plot of a search over time: which slots ran side by side, busy workers, how rungs filled.

Inputs -> outputs: trials with the times of their claim and their end -> a figure of two panels.

Trials do not know the worker that ran them: whatever overlaps in time lies in different lanes, as
few as possible, so the number of lanes is the largest number of trainings at one time. A bar spans
the training's last ``seconds``; a thin line before it, from the claim on, is a training that was
killed and gone on with, or loading.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from particleforge.config.settings import HpoSettings
from particleforge.hpo.drawing import FAILED_COLOUR, WINNER_COLOUR, Budgets, note
from particleforge.hpo.trials import SearchTrial
from particleforge.pages.figures import new_figure

_UNITS = (
    (2 * 86400.0, 86400.0, "days"),
    (2 * 3600.0, 3600.0, "hours"),
    (120.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)
_LANES_TALL = 40  # beyond this many lanes the plot grows no further


def lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return a lane for each (start, end) in order of start: few lanes without overlaps."""
    found: list[int] = []
    busy: list[tuple[float, int]] = []  # end, lane
    free: list[int] = []
    for start, end in spans:
        while busy and busy[0][0] <= start:
            heappush(free, heappop(busy)[1])
        lane = heappop(free) if free else len(busy)
        heappush(busy, (end, lane))
        found.append(lane)
    return found


def busy_share(spans: Sequence[tuple[float, float]], n_lanes: int) -> float:
    """Return the share of the lanes' time in which trainings ran.

    Time counts from the first start to the last end.
    """
    elapsed = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum(end - start for start, end in spans) / (elapsed * n_lanes) if elapsed > 0 else 1.0


def time_unit(span_s: float) -> tuple[float, str]:
    """Return seconds per unit and the name of the unit that suits a span of time."""
    return next((seconds, name) for at_least, seconds, name in _UNITS if span_s >= at_least)


def draw_timeline(
    trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial
) -> Figure:
    """Draw when the trials ran, coloured by budget, and how many of each budget had ended."""
    timed = sorted(
        (t for t in trials if t.started is not None and t.ended is not None),
        key=lambda t: (t.started or 0.0, t.number),
    )
    if not timed:
        figure = new_figure(8, 2.5)
        note(figure.add_subplot(title="The search over time"), "the study holds no times")
        return figure
    begin = min(t.started or 0.0 for t in timed)
    spans = [((t.started or 0.0) - begin, (t.ended or 0.0) - begin) for t in timed]
    scale, unit = time_unit(max(end for _, end in spans))
    rows = lanes(spans)
    n_lanes = max(rows) + 1
    figure = new_figure(9, 3.4 + 2.2 * min(1.0, n_lanes / _LANES_TALL) + 0.8)
    bars, ended = figure.subplots(2, 1, sharex=True, height_ratios=(1.2 + n_lanes / _LANES_TALL, 1))
    budgets = Budgets(timed, settings.hpo)
    _draw_lanes(bars, timed, np.asarray(spans) / scale, rows, budgets, winner)
    bars.set_title(
        f"The search over time: trainings at once: {n_lanes} at most,"
        f" {n_lanes * busy_share(spans, n_lanes):.3g} on average"
    )
    for rung in budgets.rungs:
        times = np.sort(
            [end / scale for (_, end), t in zip(spans, timed, strict=True) if t.rung == rung]
        )
        ended.step(
            [0.0, *times],
            range(len(times) + 1),
            where="post",
            color=budgets.colour(rung),
            label=budgets.label(rung),
        )
        ended.plot(
            times[-1:], [len(times)], marker=budgets.marker(rung), color=budgets.colour(rung), ms=6
        )
    ended.set(
        xlabel=f"time since the first start [{unit}]", ylabel="trainings ended", ylim=(0, None)
    )
    ended.yaxis.set_major_locator(MaxNLocator(integer=True))
    ended.margins(x=0.01)
    return figure


def _draw_lanes(
    axes: Axes,
    trials: Sequence[SearchTrial],
    spans: np.ndarray,
    rows: Sequence[int],
    budgets: Budgets,
    winner: SearchTrial,
) -> None:
    """Draw a bar per trial.

    ``spans`` are float64 [n_trials, 2], start and end in the axis' unit.
    """
    for trial, (start, end), row in zip(trials, spans, rows, strict=True):
        share = min(
            1.0, (trial.seconds or 0.0) / ((trial.ended or 0.0) - (trial.started or 0.0) or np.inf)
        )
        trained = (end - start) * share
        own = trial.config == winner.config
        failed = trial.value is None
        axes.plot([start, end], [row, row], color="0.6", lw=0.8, zorder=1)
        axes.barh(
            row,
            trained,
            left=end - trained,
            height=0.8,
            facecolor="white" if failed else budgets.colour(trial.rung),
            edgecolor=WINNER_COLOUR if own else FAILED_COLOUR if failed else "white",
            linewidth=2.0 if own else 0.4,
            hatch="////" if failed else None,
            zorder=3 if own else 2,
        )
    axes.set(ylabel="trainings side by side", ylim=(max(rows) + 0.6, -0.6))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.minorticks_off()
    handles = [
        Patch(facecolor=budgets.colour(rung), label=f"to {budgets.label(rung)}")
        for rung in budgets.rungs
    ]
    handles.append(
        Patch(facecolor="white", edgecolor=WINNER_COLOUR, linewidth=2.0, label="best configuration")
    )
    if any(t.value is None for t in trials):
        handles.append(
            Patch(
                facecolor="white",
                edgecolor=FAILED_COLOUR,
                hatch="////",
                linewidth=0.4,
                label="failed",
            )
        )
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
