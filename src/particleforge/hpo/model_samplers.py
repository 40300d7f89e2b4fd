"""Samplers that learn from the trials so far, each from what it can honestly use.

* ``tpe`` (Bergstra et al. 2011, multivariate, constant liar): each configuration at the highest
  rung it reached, as a trial pruned at that step; Optuna ranks pruned trials by step first, so a
  low-rung value never passes for a final one. Failures come last, pending configurations repel.
* ``gp`` (Optuna's, expected improvement in view of what is pending): one budget only, the largest
  with enough results.
* ``cmaes`` (Hansen 2016, of the library cmaes) and ``nsgaii`` (Deb et al. 2002, Optuna's):
  populations of configurations at their first budget, replayed from the first trial on, so nothing
  has to be kept.

All but ``tpe`` see places among trials, not losses; see :func:`particleforge.hpo.proposals.scores`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import cmaes
import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from particleforge.hpo.proposals import Params, Request, budget_to_model, generations, scores
from particleforge.hpo.space import (
    FloatArray,
    distributions,
    encode,
    encoded_width,
    unit_points_to_params,
)
from particleforge.hpo.trials import SearchTrial, furthest

optuna.logging.set_verbosity(optuna.logging.WARNING)

_ASKS = 20  # proposals of one model until one is new
_CHOICE = 4  # proposals from a population of which the farthest from pending trials is taken
_GP_TRIALS_MAX = 250  # what Optuna's Gaussian process learns from in a second
_GENERATION = NSGAIISampler._get_generation_key()  # Optuna has no public name for it


def sample_tpe(request: Request) -> Iterator[Params]:
    """Yield proposals of Optuna's tree-structured Parzen estimator."""
    sampler = TPESampler(
        seed=request.own_seed,
        multivariate=True,
        constant_liar=True,
        n_startup_trials=request.n_startup,
    )
    reached = list(furthest(request.usable()).values())
    values = (
        {} if trial.value is None else {"intermediate_values": {trial.rung: trial.value}}
        for trial in reached
    )
    yield from _asked(request, sampler, _view(request, reached, TrialState.PRUNED, values))


def sample_gp(request: Request) -> Iterator[Params]:
    """Yield proposals of Optuna's Gaussian process."""
    known = budget_to_model(request.usable(), request.n_startup)
    places = scores(known)
    if len(known) > _GP_TRIALS_MAX:  # the best half, and every so many-th of the rest
        order = np.argsort(places, kind="stable")
        half = _GP_TRIALS_MAX // 2
        kept = [*order[:half], *order[np.linspace(half, len(order) - 1, half).astype(int)]]
        running = [k for k, trial in enumerate(known) if not trial.finished]
        chosen = sorted({*kept, *running})
        known, places = [known[k] for k in chosen], places[chosen]
    values = (
        {"value": place if trial.finished else None}
        for trial, place in zip(known, places.tolist(), strict=True)
    )
    sampler = GPSampler(
        seed=request.own_seed, n_startup_trials=request.n_startup, warn_independent_sampling=False
    )
    yield from _asked(request, sampler, _view(request, known, TrialState.COMPLETE, values))


def sample_nsgaii(request: Request) -> Iterator[Params]:
    """Yield children of Optuna's NSGA-II."""
    size = min(50, max(4, request.hpo.first_rung_slots // 5))
    counted = [
        (replace(trial, status="complete"), {"value": score, "system_attrs": {_GENERATION: number}})
        for number, group in enumerate(generations(request.usable(), size))
        for trial, score in group
    ]
    view = _view(
        request, [trial for trial, _ in counted], TrialState.COMPLETE, [form for _, form in counted]
    )
    yield from _away_from_pending(
        request, _asked(request, NSGAIISampler(population_size=size, seed=request.own_seed), view)
    )


def sample_cmaes(request: Request) -> Iterator[Params]:
    """Yield points of the distribution that CMA-ES has learnt in the unit cube."""
    width = encoded_width(request.space)
    if not width:
        return
    bounds = np.tile([0.0, 1.0], (width, 1))
    strategy = cmaes.CMA(
        mean=np.full(width, 0.5), sigma=1 / 4, bounds=bounds, seed=request.own_seed
    )
    for group in generations(request.usable(), strategy.population_size):
        rows = encode(
            request.space, request.points([trial for trial, _ in group]), request.defaults
        )
        strategy.tell([(row, score) for row, (_, score) in zip(rows, group, strict=True)])
    drawn = unit_points_to_params(
        request.space, np.array([strategy.ask() for _ in range(_ASKS)]), request.defaults
    )
    yield from _away_from_pending(request, iter(drawn))


def _asked(request: Request, sampler: BaseSampler, view: Sequence[FrozenTrial]) -> Iterator[Params]:
    """Yield what an Optuna sampler proposes in view of trials.

    What it has proposed already is pending to it.
    """
    study = optuna.create_study(sampler=sampler)
    study.add_trials(view)
    where = distributions(request.hpo)
    for _ in range(_ASKS):
        # through the cube and back: inactive parameters are dropped, steps rounded
        asked = [dict(study.ask(where).params)]
        yield from unit_points_to_params(
            request.space, encode(request.space, asked, request.defaults), request.defaults
        )


def _away_from_pending(request: Request, proposals: Iterator[Params]) -> Iterator[Params]:
    """Yield the farthest of every few proposals from what is pending first.

    A population knows nothing of what is pending.
    """
    while few := list(islice(proposals, _CHOICE)):
        rows = encode(request.space, few, request.defaults)
        yield from (few[k] for k in np.argsort(-_to_pending(request, rows), kind="stable"))


def _to_pending(request: Request, rows: FloatArray) -> FloatArray:
    """Return the squared distance in the unit cube to the nearest pending trial, or infinity."""
    pending = encode(
        request.space,
        request.points([trial for trial in request.trials if not trial.finished]),
        request.defaults,
    )
    squares = (rows**2).sum(axis=1)[:, None] + (pending**2).sum(axis=1) - 2 * rows @ pending.T
    return np.asarray(squares.min(axis=1, initial=np.inf).clip(min=0))


def _complete(request: Request, trials: Sequence[SearchTrial]) -> list[Params]:
    """Return configurations with inactive parameters as configured, where the space has that."""
    inactive = {}
    for name, parameter in sorted(request.space.items()):
        configured = request.defaults.get(name)
        inactive[name] = configured if parameter.contains(configured) else parameter.values()[0]
    return [{**inactive, **point} for point in request.points(trials)]


def _view(
    request: Request, trials: Sequence[SearchTrial], ended: TrialState, forms: Iterable[Params]
) -> list[FrozenTrial]:
    """Return Optuna's form of trials, those that ended in the state ``ended``.

    ``forms`` are further keywords of each.
    """
    where = distributions(request.hpo)
    return [
        create_trial(
            state=ended if trial.finished else TrialState.RUNNING,
            params=params,
            distributions=where,
            **form,
        )
        for trial, params, form in zip(trials, _complete(request, trials), forms, strict=True)
    ]
