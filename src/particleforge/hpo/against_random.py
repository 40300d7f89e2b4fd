"""What random search would have reached in the hours of a search, from the search's own trials.

Inputs -> outputs: the trials of a finished search -> the validation loss that random search ends at
on average, if it trains configurations to the full budget, one after another, for as many hours.

Random search draws from the configurations that the search began, the configured settings excepted.
Of one that was stopped early, the loss at the full budget is not known. It is taken to fall from
rung to rung by as much as it did on average in those that went on, and the hours of a training to
grow with its budget. Without a scheduler nothing is stopped, and the figure is no estimate.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from particleforge.config.best import RandomConfig
from particleforge.config.hpo import HpoConfig
from particleforge.hpo import dag
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial

_REPETITIONS = 2000


def compare_with_random(
    trials: Sequence[SearchTrial], winner: SearchTrial, hpo: HpoConfig
) -> RandomConfig:
    """Return the winner against random search in as many rank hours."""
    top = dag.n_rungs(hpo) - 1
    if winner.rung < top:
        return RandomConfig(reason="the chosen trial was not trained to the full budget")
    hours, losses = _full_trainings(trials, hpo)
    if not len(hours):
        return RandomConfig(reason="nothing but the configured settings was trained")
    spent = sum(_hours(trial, hpo) for trial in trials)
    expected = lowest_in_hours(hours, losses, spent)
    if np.isnan(expected):
        return RandomConfig(reason="the search took less time than one full training")
    return RandomConfig(
        rank_hours=spent,
        random_value=expected,
        estimated=top > 0,
        relative_change=winner.loss / expected - 1 if expected else None,
    )


def _hours(trial: SearchTrial, hpo: HpoConfig) -> float:
    return dag.ranks(hpo, trial.rung) * (trial.seconds or 0.0) / 3600


def _full_trainings(
    trials: Sequence[SearchTrial], hpo: HpoConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rank hours and final loss of every configuration's full training.

    The loss of one that failed is NaN, and its hours are those that it took.
    """
    top = dag.n_rungs(hpo) - 1
    known = {(t.config, t.rung): t for t in trials}
    falls = [  # of the loss, from each rung to the next
        np.mean(
            [
                above.loss / below.loss
                for (config, at), above in known.items()
                if at == rung + 1
                and above.status == "complete"
                and (below := known[config, rung]).loss
            ]
            or [1.0]
        )
        for rung in range(top)
    ]
    hours, losses = [], []
    for config in sorted({t.config for t in trials} - {DEFAULT_CONFIG * hpo.include_default}):
        own = sorted((t for t in trials if t.config == config), key=lambda t: t.rung)
        spent, last = sum(_hours(t, hpo) for t in own), own[-1]
        if last.status == "complete":
            growth = dag.budget(hpo, top) / dag.budget(hpo, last.rung)
            hours.append(spent * growth)
            losses.append(last.loss * float(np.prod(falls[last.rung :])))
        else:
            hours.append(spent)
            losses.append(np.nan)
    return np.array(hours), np.array(losses)


def lowest_in_hours(
    hours: NDArray[np.float64], losses: NDArray[np.float64], available: float
) -> float:
    """Return the lowest loss that random search finds in so many hours, on average over its orders.

    Trainings, of which shape (n,) arrays hold hours and final losses, are drawn without repetition.
    The one that crosses the line counts as often as the share of it that fits. Orders in which no
    training fits are left out; NaN if that is all of them.
    """
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(len(hours)), (_REPETITIONS, 1)), axis=1)
    needed = hours[order]
    left = available - (np.cumsum(needed, axis=1) - needed)
    # a draw too many ends the search: what would follow does not count
    fits = np.cumprod(left >= rng.random(needed.shape) * needed, axis=1, dtype=bool)
    lowest = np.where(fits & ~np.isnan(losses[order]), losses[order], np.inf).min(axis=1)
    found = lowest[np.isfinite(lowest)]
    return float(found.mean()) if len(found) else float("nan")
