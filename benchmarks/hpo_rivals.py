"""Optuna's own searches on the tables of ``hpo_public``: its samplers with its pruners.

A study of Optuna on eight workers that train until the points are spent. A trial reports at the
ends of the rungs, where the pruner may stop it; like the package's samplers, Optuna's are told the
hyperparameters of the row that answers a proposal.
"""

import heapq
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from particleforge.hpo.space import distribution, encode

if TYPE_CHECKING:
    from hpo_public import Table


def optuna_search(table: "Table", name: str, size: int, seed: int) -> int:
    """Return the row that ``optuna SAMPLER/PRUNER`` finds."""
    from hpo_public import REFERENCE, SPACE, WORKERS, Unused, points_spent, settings_of

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler, pruner = name.removeprefix("optuna ").split("/")
    study = optuna.create_study(sampler=_sampler(sampler, seed), pruner=_pruner(pruner))
    where = {name: distribution(parameter) for name, parameter in SPACE.items()}
    hpo = settings_of(REFERENCE, size)
    ends = [table.points_at(hpo, rung) for rung in range(hpo.n_rungs)]
    rng, unused, left = np.random.default_rng(seed), Unused(table), points_spent(table, size)
    running: list[tuple[float, int, int, int, Trial]] = []  # time, number, rung, row, trial
    reached: dict[int, tuple[int, float]] = {}  # row: rung, loss
    now = 0.0
    while left > 0 or running:
        while left > 0 and len(running) < WORKERS:
            asked = study.ask(where)
            row = unused.nearest(encode(SPACE, [asked.params]))
            study.tell(asked, state=TrialState.FAIL)
            study.enqueue_trial(table.params[row])
            trial = study.ask(where)
            end = now + ends[0] * rng.lognormal(0, 0.1)
            heapq.heappush(running, (end, trial.number, 0, row, trial))
            left -= ends[0]
        now, number, rung, row, trial = heapq.heappop(running)
        loss = float(table.valid[row, ends[rung]])
        if not np.isfinite(loss):
            study.tell(trial, state=TrialState.FAIL)
            continue
        reached[row] = (rung, loss)
        trial.report(loss, 3**rung)
        if rung == len(ends) - 1:
            study.tell(trial, loss)
        elif left <= 0 or trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
        else:
            more = ends[rung + 1] - ends[rung]
            left -= more
            end = now + more * rng.lognormal(0, 0.1)
            heapq.heappush(running, (end, number, rung + 1, row, trial))
    return min(reached, key=lambda row: (-reached[row][0], reached[row][1]))


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "tpe":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)
    return GPSampler(seed=seed) if name == "gp" else RandomSampler(seed=seed)


def _pruner(name: str) -> BasePruner:
    if name == "median":
        return MedianPruner()
    if name == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3)
