"""Plots of a search: optimisation history, importance of the parameters, learning curves with their promotions.

Inputs -> outputs: the finished trials -> one PNG and one PDF per plot. Importances are those of fANOVA (Hutter et al.
2014, as in Optuna) over the first rung, the only one whose values are comparable and not preselected.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from particleforge.artefacts import atomic_output
from particleforge.config.settings import HpoSettings
from particleforge.hpo import dag
from particleforge.hpo.space import configured, contains, distributions
from particleforge.hpo.trials import SearchTrial
from particleforge.seeds import seed_of

IMPORTANCE_TRIALS_MIN = 8  # below this the forest fits noise
_LOSS = "validation loss"


def write_plots(trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial, paths: Mapping[str, Path]) -> None:
    """Write the plots named by ``paths``: "history", "importances", "rungs"."""
    draw: dict[str, Callable[[Axes], None]] = {
        "history": lambda axes: _history(axes, trials, winner),
        "importances": lambda axes: _importances(axes, trials, settings),
        "rungs": lambda axes: _rungs(axes, trials, settings, winner),
    }
    for name, path in paths.items():
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        draw[name](figure.add_subplot())
        for target, metadata in ((path, {}), (path.with_suffix(".pdf"), {"CreationDate": None})):
            with atomic_output(target) as temporary:
                figure.savefig(temporary, format=target.suffix[1:], dpi=150, metadata=metadata)


def importances(trials: Sequence[SearchTrial], settings: HpoSettings) -> dict[str, float]:
    """Return each parameter's share of the loss's variance over the first rung; empty if too little is known."""
    where = distributions(settings.hpo)
    defaults = configured(settings.hpo.space, settings.model, settings.training)
    study = optuna.create_study()
    for trial in trials:
        params = {path: {**defaults, **trial.params}[path] for path in where}
        if trial.rung == 0 and trial.value is not None and all(contains(where[path], value) for path, value in params.items()):
            study.add_trial(create_trial(state=TrialState.COMPLETE, value=trial.value, params=params, distributions=where))
    values = [t.value for t in study.get_trials(deepcopy=False)]
    if not where or len(values) < IMPORTANCE_TRIALS_MIN or len(set(values)) == 1:
        return {}
    evaluator = FanovaImportanceEvaluator(seed=seed_of(settings.seed, "importances") % 2**32)
    return dict(get_param_importances(study, evaluator=evaluator, params=list(where)))


def _colours(n: int) -> list[tuple[float, float, float, float]]:
    return [colormaps["viridis"](0.85 * k / max(1, n - 1)) for k in range(n)]


def _history(axes: Axes, trials: Sequence[SearchTrial], winner: SearchTrial) -> None:
    rungs = sorted({t.rung for t in trials})
    for rung, colour in zip(rungs, _colours(len(rungs)), strict=True):
        done = [t for t in trials if t.rung == rung and t.value is not None]
        steps = next(t.steps for t in trials if t.rung == rung)
        axes.scatter([t.number for t in done], [t.loss for t in done], color=colour, label=f"rung {rung}: {steps} steps", zorder=3)
    top = [t for t in sorted(trials, key=lambda t: t.number) if t.rung == winner.rung and t.value is not None]
    best = np.minimum.accumulate([t.loss for t in top])
    axes.step([t.number for t in top], best, where="post", color="0.4", label=f"best of rung {winner.rung}")
    for trial in trials:
        if trial.value is None:
            axes.axvline(trial.number, color="tab:red", alpha=0.4, lw=1, label="failed" if _first_failed(trials) is trial else None)
    axes.scatter([winner.number], [winner.loss], marker="*", s=180, color="tab:orange", zorder=4, label="best")
    axes.set(xlabel="trial, in order of start", ylabel=_LOSS, title="Optimisation history")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small")


def _first_failed(trials: Sequence[SearchTrial]) -> SearchTrial | None:
    return next((t for t in trials if t.value is None), None)


def _importances(axes: Axes, trials: Sequence[SearchTrial], settings: HpoSettings) -> None:
    shares = importances(trials, settings)
    n = sum(t.rung == 0 and t.value is not None for t in trials)
    axes.set(xlabel="share of the loss's variance", title=f"Importance of the parameters (fANOVA, {n} configurations in the first rung)")
    if not shares:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "too few different results to tell", ha="center", transform=axes.transAxes)
        return
    names = sorted(shares, key=lambda name: shares[name])
    bars = axes.barh(names, [shares[name] for name in names], color="tab:blue")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.margins(x=0.12)


def _rungs(axes: Axes, trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial) -> None:
    by_number = {t.number: t for t in trials}
    promoted = [by_number[t.parent] for t in trials if t.parent in by_number]
    colours = _colours(dag.n_rungs(settings.hpo))
    for trial in sorted(trials, key=lambda t: (t.rung, t.slot)):
        parent = by_number.get(trial.parent) if trial.parent is not None else None
        start = parent.steps if parent else 0
        curve = {step: loss for step, loss in sorted(trial.curve.items()) if step > start}
        if parent is not None and parent.value is not None:
            curve = {parent.steps: parent.loss, **curve}
        colour, width = colours[min(trial.rung, len(colours) - 1)], 2.5 if trial.config == winner.config else 1
        axes.plot(list(curve), list(curve.values()), color=colour, lw=width, marker=".", ms=4)
    steps, losses = [t.steps for t in promoted], [t.loss for t in promoted]
    axes.scatter(steps, losses, s=50, facecolors="none", edgecolors="k", label="promoted", zorder=4)
    axes.scatter([winner.steps], [winner.loss], marker="*", s=180, color="tab:orange", zorder=5, label="best")
    for rung, colour in enumerate(colours):
        axes.plot([], [], color=colour, label=f"rung {rung}: to step {dag.budget_steps(settings.hpo, rung)}")
        axes.axvline(dag.budget_steps(settings.hpo, rung), color="0.85", lw=1, zorder=0)
    axes.set(xlabel="optimiser steps", ylabel=_LOSS, title="Learning curves and promotions", xscale="log")
    axes.legend(fontsize="small")
