"""Plots of a search: history, learning curves with promotions, importance of the parameters.

This is also the list of all plots.

Inputs -> outputs: the finished trials -> one PNG and one PDF per plot. Importances are those of
fANOVA (Hutter et al. 2014, as in Optuna) over trials of one first rung, the only ones whose values
are comparable and not preselected.

Of the plots "timeline" and "cost" show times and so differ from run to run; the others depend on
the trials alone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from particleforge.config.settings import HpoSettings
from particleforge.config.space import active_parameters
from particleforge.hpo.cost import draw_cost
from particleforge.hpo.drawing import (
    FAILED_COLOUR,
    LOSS,
    Budgets,
    legend_beside,
    loss_limit,
    mark_best,
    mark_default,
    note,
    plain_names,
    scale_losses,
)
from particleforge.hpo.parallel import draw_parallel
from particleforge.hpo.pareto import draw_pareto
from particleforge.hpo.space import configured, contains, distributions
from particleforge.hpo.timeline import draw_timeline
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial
from particleforge.pages.figures import new_figure, save_figure, styled
from particleforge.seeds import seed_of

IMPORTANCE_TRIALS_MIN = 8  # below this the forest fits noise


def write_plots(
    trials: Sequence[SearchTrial],
    settings: HpoSettings,
    winner: SearchTrial,
    paths: Mapping[str, Path],
) -> None:
    """Write the plots named by ``paths`` (``paths.HPO_PLOTS``, and "pareto" of two objectives)."""
    draw: dict[str, Callable[[], Figure]] = {
        "history": lambda: _history(trials, settings, winner),
        "rungs": lambda: _rungs(trials, settings, winner),
        "timeline": lambda: draw_timeline(trials, settings, winner),
        "parallel": lambda: draw_parallel(trials, settings, winner),
        "importances": lambda: _importances(trials, settings),
        "cost": lambda: draw_cost(trials, settings, winner),
        "pareto": lambda: draw_pareto(trials, settings, winner),
    }
    with styled():
        for name, path in paths.items():
            save_figure(draw[name](), path)


def importances(trials: Sequence[SearchTrial], settings: HpoSettings) -> dict[str, float]:
    """Return each parameter's share of the loss's variance; empty if too little is known.

    Trials are those of :func:`_not_preselected`.

    A parameter that a trial does not record counts with its configured value, or, if it is inactive
    there, with one and the same value in all trials.
    """
    where, space = distributions(settings.hpo), settings.hpo.space
    defaults = configured(space, settings.model, settings.training)
    study = optuna.create_study()
    for trial in _not_preselected(trials):
        known = {**defaults, **trial.params}
        active = active_parameters(space, [known], defaults)[0]
        params = {
            path: known[path] if path in active else space[path].values()[0] for path in where
        }
        if all(contains(where[path], value) for path, value in params.items()):
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE, value=trial.value, params=params, distributions=where
                )
            )
    values = [t.value for t in study.get_trials(deepcopy=False)]
    if not where or len(values) < IMPORTANCE_TRIALS_MIN or len(set(values)) == 1:
        return {}
    evaluator = FanovaImportanceEvaluator(seed=seed_of(settings.seed, "importances") % 2**32)
    return dict(get_param_importances(study, evaluator=evaluator, params=list(where)))


def _not_preselected(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """Return the trials of a first rung that ended well, of the rung that has most of them."""
    first = [t for t in trials if t.parent is None and t.value is not None]
    counts = {rung: sum(t.rung == rung for t in first) for rung in {t.rung for t in first}}
    chosen = min(counts, key=lambda rung: (-counts[rung], rung), default=None)
    return [t for t in first if t.rung == chosen]


def _history(trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial) -> Figure:
    figure = new_figure(8, 4.8)
    axes, budgets = figure.add_subplot(), Budgets(trials, settings.hpo)
    done = [t for t in sorted(trials, key=lambda t: t.number) if t.value is not None]
    top, size = loss_limit([t.loss for t in done]), 40 if len(done) < 100 else 18
    for rung in budgets.rungs:
        here = [t for t in done if t.rung == rung]
        inside = [t for t in here if t.loss <= top]
        points = [t.number for t in inside], [t.loss for t in inside]
        axes.scatter(
            *points,
            s=size,
            color=budgets.colour(rung),
            marker=budgets.marker(rung),
            label=budgets.label(rung),
            zorder=3,
        )
        above = [t.number for t in here if t.loss > top]
        axes.scatter(
            above,
            [top] * len(above),
            s=size,
            marker=6,
            color=budgets.colour(rung),
            zorder=3,
            clip_on=False,
        )
    if any(t.loss > top for t in done):
        axes.scatter([], [], s=size, marker=6, color="0.5", label="higher than drawn")
    at_winner = [t for t in done if t.rung == winner.rung]
    best = np.minimum.accumulate([t.loss for t in at_winner])
    axes.step(
        [t.number for t in at_winner],
        best,
        where="post",
        color="0.4",
        zorder=2,
        label=f"best of {budgets.label(winner.rung)}",
    )
    _mark_default(axes, [t.number for t in done if t.config == DEFAULT_CONFIG], done, settings)
    mark_best(axes, [winner.number], [winner.loss])
    _mark_failed(axes, [t.number for t in trials if t.value is None])
    axes.set(xlabel="trial, in order of start", ylabel=LOSS, title="Optimisation history")
    scale_losses(axes, [t.loss for t in done])
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_beside(axes)
    return figure


def _mark_failed(axes: Axes, numbers: Sequence[int]) -> None:
    """Mark failed trials at the top of the axes: they have no loss."""
    if numbers:
        axes.plot(
            numbers,
            [0.985] * len(numbers),
            "x",
            color=FAILED_COLOUR,
            ms=6,
            transform=axes.get_xaxis_transform(),
            label="failed",
        )


def _mark_default(
    axes: Axes, x: Sequence[float], done: Sequence[SearchTrial], settings: HpoSettings
) -> None:
    """Ring the trials of the configured settings, where they are part of the search."""
    losses = [t.loss for t in done if t.config == DEFAULT_CONFIG]
    if settings.hpo.include_default and losses:
        mark_default(axes, x, losses)


def _importances(trials: Sequence[SearchTrial], settings: HpoSettings) -> Figure:
    shares = importances(trials, settings)
    used = _not_preselected(trials)
    figure = new_figure(8, max(3.0, 1.4 + 0.38 * len(shares)))
    axes = figure.add_subplot()
    axes.set_title("Importance of the parameters")
    if not shares:
        note(
            axes, f"too few different results to tell (at least {IMPORTANCE_TRIALS_MIN} are needed)"
        )
        return figure
    names, ordered = plain_names(shares), sorted(shares, key=lambda path: (shares[path], path))
    bars = axes.barh(
        [names[path] for path in ordered], [shares[path] for path in ordered], color="#0072b2"
    )
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.margins(x=0.12)
    axes.tick_params(axis="y", which="both", length=0)
    at = f"{len(used)} configurations, {Budgets(used, settings.hpo).label(used[0].rung)}"
    axes.set_xlabel(f"share of the loss's variance (fANOVA; {at})")
    return figure


def _rungs(trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial) -> Figure:
    figure = new_figure(8, 4.8)
    axes, budgets = figure.add_subplot(), Budgets(trials, settings.hpo)
    by_number = {t.number: t for t in trials}
    many = len(trials) >= 100
    drawn = _draw_curves(axes, budgets, trials, by_number, winner, many)
    promoted = [
        by_number[n]
        for n in sorted({t.parent for t in trials if t.parent is not None})
        if n in by_number
    ]
    ends = (
        [t.steps for t in promoted if t.value is not None],
        [t.loss for t in promoted if t.value is not None],
    )
    axes.scatter(
        *ends,
        s=16 if many else 50,
        facecolors="none",
        edgecolors="k",
        linewidths=0.9,
        label="promoted",
        zorder=5,
    )
    own = [t for t in trials if t.config == DEFAULT_CONFIG and t.value is not None]
    _mark_default(axes, [t.steps for t in own], own, settings)
    mark_best(axes, [winner.steps], [winner.loss], zorder=6)
    for rung in budgets.rungs:
        axes.plot([], [], color=budgets.colour(rung), label=f"to {budgets.label(rung)}")
        ends_at = {t.steps for t in trials if t.rung == rung}
        # budgets in epochs or events are different steps for different batches
        if len(ends_at) == 1:
            axes.axvline(ends_at.pop(), color="0.85", lw=1, zorder=0)
    axes.set(
        xlabel="optimiser steps", ylabel=LOSS, title="Learning curves and promotions", xscale="log"
    )
    scale_losses(axes, drawn)
    legend_beside(axes)
    return figure


def _draw_curves(
    axes: Axes,
    budgets: Budgets,
    trials: Sequence[SearchTrial],
    by_number: Mapping[int, SearchTrial],
    winner: SearchTrial,
    many: bool,
) -> list[float]:
    """Draw each trial's own part of its training, the winner's thicker; return all losses drawn."""
    drawn: list[float] = []
    for trial in sorted(trials, key=lambda t: (t.rung, t.number)):
        curve = _own_curve(trial, by_number.get(-1 if trial.parent is None else trial.parent))
        if trial.config == winner.config:
            width, alpha, order = 2.6, 1.0, 4
        elif many:
            width, alpha, order = 0.8, 0.55, 2
        else:
            width, alpha, order = 1.2, 0.9, 3
        axes.plot(
            list(curve),
            list(curve.values()),
            marker="" if many else ".",
            ms=4,
            color=budgets.colour(trial.rung),
            lw=width,
            alpha=alpha,
            zorder=order,
        )
        drawn += curve.values()
    return drawn


def _own_curve(trial: SearchTrial, parent: SearchTrial | None) -> dict[int, float]:
    """Return the losses of a trial's own part of its training, with the one that it starts from."""
    curve = {
        step: loss
        for step, loss in sorted(trial.curve.items())
        if parent is None or step > parent.steps
    }
    return (
        {parent.steps: parent.loss, **curve}
        if parent is not None and parent.value is not None
        else curve
    )
