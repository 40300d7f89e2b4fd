"""What a sampler is asked, and the views of the search's trials that samplers share.

A sampler is a function of a :class:`Request` that yields configurations, the one it likes best
first; the first that no trial has had yet is taken (:func:`particleforge.hpo.sampling.propose`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from particleforge.config.hpo import HpoConfig
from particleforge.config.space import ParameterConfig, active_parameters
from particleforge.hpo.space import FloatArray
from particleforge.hpo.trials import SearchTrial
from particleforge.seeds import seed_of

Params = dict[str, Any]
_SEEDS = 1 << 32  # number of seeds of NumPy's RandomState, which Optuna and cmaes use


@dataclass(frozen=True)
class Request:
    """A slot that wants a new configuration.

    ``defaults`` are the configured values, which unrecorded parameters had.
    """

    hpo: HpoConfig
    seed: int
    slot: int
    defaults: Mapping[str, Any]
    trials: Sequence[SearchTrial]

    @property
    def space(self) -> Mapping[str, ParameterConfig]:
        """The search space."""
        return self.hpo.space

    @property
    def own_seed(self) -> int:
        """A seed that no other slot has (the 0 keeps the points that seeds have always given)."""
        return seed_of(self.seed, "hpo", 0, self.slot) % _SEEDS

    @property
    def shared_seed(self) -> int:
        """A seed that all slots have, for sequences of which each takes its part."""
        return seed_of(self.seed, "hpo", self.hpo.sampler) % _SEEDS

    @property
    def default(self) -> Params:
        """The configuration as configured."""
        return active_parameters(self.space, [{}], self.defaults)[0]

    @property
    def n_startup(self) -> int:
        """Return how many random configurations precede a model.

        As in Optuna there are ten, fewer in a search that has few slots.
        """
        return min(10, max(len(self.space) + 1, self.hpo.first_rung_slots // 3))

    def points(self, trials: Sequence[SearchTrial]) -> list[Params]:
        """Return the active parameters of trials, those they do not record included."""
        return active_parameters(
            self.space, [{**self.defaults, **t.params} for t in trials], self.defaults
        )

    def usable(self) -> list[SearchTrial]:
        """Return the trials whose configurations lie in the space.

        A default, or a trial of a narrower space, may not.
        """
        pairs = zip(self.trials, self.points(self.trials), strict=True)
        return [
            t
            for t, point in pairs
            if all(self.space[name].contains(value) for name, value in point.items())
        ]


def key_of(params: Params) -> frozenset[tuple[str, Any]]:
    """Return what two configurations have in common if and only if they are the same."""
    return frozenset(params.items())


Sampler = Callable[[Request], Iterator[Params]]


def new_configurations(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """Return each configuration's first trial, in order of their numbers."""
    return sorted((t for t in trials if t.parent is None), key=lambda t: t.number)


def budget_to_model(trials: Sequence[SearchTrial], enough: int) -> list[SearchTrial]:
    """Return the trials of the rung that a model learns from, and what is pending.

    The rung is the highest in which enough ended well, else the lowest.

    The rule of BOHB (Falkner et al. 2018, section 3.2), for models that know nothing of budgets.
    Configurations are pending if they run in that rung or for the first time.
    """
    rungs = sorted({t.rung for t in trials}, reverse=True)
    well = [t.rung for t in trials if t.status == "complete"]
    rung = next((rung for rung in rungs if well.count(rung) >= enough), min(rungs, default=0))
    pending = {
        t.config: t for t in trials if not t.finished and (t.parent is None or t.rung == rung)
    }
    chosen = {t.config: t for t in trials if t.finished and t.rung == rung}
    return [trial for _, trial in sorted({**pending, **chosen}.items())]


def scores(trials: Sequence[SearchTrial]) -> FloatArray:
    """Return each trial's place among those of its rung as a normal quantile; low is good.

    Places, not losses, as losses of a few steps may be large beyond bounds. Failures share the last
    place, and so do trials that still run: what is tried already must not look promising (a
    constant liar, Ginsbourger et al. 2010).
    """
    losses = np.array([t.value if t.status == "complete" else np.inf for t in trials], dtype=float)
    rungs = np.array([t.rung for t in trials])
    places = np.empty(len(trials))
    for rung in np.unique(rungs):
        here = rungs == rung
        places[here] = (rankdata(losses[here]) - 0.5) / here.sum()
    return np.asarray(norm.ppf(places))


def generations(trials: Sequence[SearchTrial], size: int) -> list[list[tuple[SearchTrial, float]]]:
    """Return the configurations and their scores as populations that evolve.

    There are ``size`` at a time in order of their numbers.

    A population of which less than half has ended is left out, and so is one that is not complete.
    """
    first = new_configurations(trials)
    scored = list(zip(first, scores(first).tolist(), strict=True))
    groups = [scored[start : start + size] for start in range(0, len(scored) - size + 1, size)]
    return [group for group in groups if 2 * sum(t.finished for t, _ in group) >= size]
