"""What a search cost and what that bought.

Inputs -> outputs: trials -> cost per rung (:func:`costs`) and a figure. The unit is the rank hour:
one process of a training for an hour, so a GPU hour on GPUs, and on CPUs the hours of the cores
that a rank has. A trial costs ranks times the seconds of its training in all its jobs, of a killed
one those up to its last checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from particleforge.config.settings import HpoSettings
from particleforge.hpo import dag
from particleforge.hpo.drawing import (
    DEFAULT_COLOUR,
    LOSS,
    Budgets,
    legend_beside,
    mark_best,
    note,
    scale_losses,
)
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial
from particleforge.pages.figures import new_figure


@dataclass(frozen=True)
class Cost:
    """Rank hours of the trials of one rung, and of those the ones of trials that failed."""

    rung: int
    n_trials: int
    rank_hours: float
    failed: float


def rank_hours(trial: SearchTrial, settings: HpoSettings) -> float:
    """Return the cost of one trial; of one that is under way that of its earlier jobs."""
    seconds = trial.spent_s if trial.seconds is None else trial.seconds
    return dag.ranks(settings.hpo, trial.rung) * seconds / 3600


def costs(trials: Sequence[SearchTrial], settings: HpoSettings) -> list[Cost]:
    """Return the cost per rung, ascending."""
    found = []
    for rung in sorted({t.rung for t in trials}):
        here = [t for t in trials if t.rung == rung]
        failed = sum(rank_hours(t, settings) for t in here if t.finished and t.value is None)
        found.append(Cost(rung, len(here), sum(rank_hours(t, settings) for t in here), failed))
    return found


def draw_cost(trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial) -> Figure:
    """Draw the cost per rung, and the best loss of each rung against the cost up to there."""
    figure = new_figure(11, 4.6)
    bars, bought = figure.subplots(1, 2, width_ratios=(1, 1.2))
    found, budgets = costs(trials, settings), Budgets(trials, settings.hpo)
    total = sum(cost.rank_hours for cost in found)
    if not total:
        for axes in (bars, bought):
            note(axes, "the study holds no times")
        return figure
    unit, scale = ("rank hours", 1.0) if total >= 1 else ("rank minutes", 60.0)
    _draw_bars(bars, found, budgets, scale)
    failed = ", hatched: failed" if any(c.failed for c in found) else ""
    bars.set(xlabel=f"cost [{unit}]{failed}", title=f"Cost: {scale * total:.3g} {unit}")
    _draw_bought(bought, trials, settings, winner, budgets, scale)
    bought.set(
        xlabel=f"cost of all trainings that had ended [{unit}]", ylabel=LOSS, title="What it bought"
    )
    return figure


def _draw_bars(axes: Axes, found: Sequence[Cost], budgets: Budgets, scale: float) -> None:
    labels = [
        f"{budgets.label(c.rung)}\n{c.n_trials} training{'s' * (c.n_trials > 1)}" for c in found
    ]
    good = [scale * (c.rank_hours - c.failed) for c in found]
    axes.barh(labels, good, color=[budgets.colour(c.rung) for c in found])
    lost = axes.barh(
        labels,
        [scale * c.failed for c in found],
        left=good,
        color="white",
        edgecolor="0.2",
        hatch="////",
        linewidth=0.5,
    )
    total = sum(c.rank_hours for c in found)
    axes.bar_label(
        lost,
        [f"{scale * c.rank_hours:.3g} ({c.rank_hours / total:.0%})" for c in found],
        padding=3,
        fontsize=9.5,
    )
    axes.tick_params(axis="y", which="both", length=0)
    axes.set_xlim(0, 1.35 * max(scale * c.rank_hours for c in found))


def _draw_bought(
    axes: Axes,
    trials: Sequence[SearchTrial],
    settings: HpoSettings,
    winner: SearchTrial,
    budgets: Budgets,
    scale: float,
) -> None:
    """Draw the best loss so far of each rung, and how far the configured settings came."""
    order = sorted(trials, key=lambda t: (t.number if t.ended is None else t.ended, t.number))
    spent = dict(
        zip(
            (t.number for t in order),
            scale * np.cumsum([rank_hours(t, settings) for t in order]),
            strict=True,
        )
    )
    end, drawn = max(spent.values()), []
    for rung in budgets.rungs:
        done = [t for t in order if t.rung == rung and t.value is not None]
        if done:
            best = np.minimum.accumulate([t.loss for t in done])
            x = [*(spent[t.number] for t in done), end]
            axes.step(
                x,
                [*best, best[-1]],
                where="post",
                color=budgets.colour(rung),
                label=f"best after {budgets.label(rung)}",
            )
            axes.plot(
                x[:1], best[:1], marker=budgets.marker(rung), color=budgets.colour(rung), ms=6
            )
            drawn += list(best)
    own = (
        [t for t in trials if t.config == DEFAULT_CONFIG and t.value is not None]
        if settings.hpo.include_default
        else []
    )
    if own:
        last = max(own, key=lambda t: t.rung)
        drawn.append(last.loss)
        axes.axhline(
            last.loss,
            color=DEFAULT_COLOUR,
            ls="--",
            label=f"configured settings, {budgets.label(last.rung)}",
        )
    mark_best(axes, [spent[winner.number]], [winner.loss])
    axes.set(xlim=(0, end * 1.03))
    scale_losses(axes, drawn)
    legend_beside(axes)
