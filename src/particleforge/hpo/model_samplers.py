"""Samplers that learn from the trials so far, each from what it can honestly use.

* ``tpe`` (Bergstra et al. 2011, multivariate, constant liar): each configuration at the highest
  rung it reached, as a trial pruned at that step; Optuna ranks pruned trials by step first, so a
  low-rung value never passes for a final one. Failures come last, pending configurations repel.
* ``gp`` (Optuna's, expected improvement in view of what is pending) and ``forest`` (random trees
  with expected improvement, after SMAC, Hutter et al. 2011): one budget only, the largest with
  enough results.
* ``cmaes`` (Hansen 2016, of the library cmaes) and ``nsgaii`` (Deb et al. 2002, Optuna's):
  populations of configurations at their first budget, replayed from the first trial on, so nothing
  has to be kept.

All but ``tpe`` see places among trials, not losses; see :func:`particleforge.hpo.proposals.scores`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import norm

from particleforge.hpo.model_free import sample_at_random
from particleforge.hpo.proposals import Params, Request, budget_to_model, generations, scores
from particleforge.hpo.space import (
    FloatArray,
    distributions,
    encode,
    encoded_width,
    one_hot,
    unit_points_to_params,
)
from particleforge.hpo.trials import SearchTrial, furthest

optuna.logging.set_verbosity(optuna.logging.WARNING)

_ASKS = 20  # proposals of one model until one is new
_CHOICE = 4  # proposals from a population of which the farthest from pending trials is taken
_GP_TRIALS_MAX = 250  # what Optuna's Gaussian process learns from in a second
_GENERATION = NSGAIISampler._get_generation_key()  # Optuna has no public name for it
_TREES = 50
_POINTS = 1000  # of the forest: at random, and as many near the ten best trials
# distance in the unit cube within which a pending trial makes a point of the forest less likely
_REPELS = 0.15
_KEPT = 0.7  # chance that a point near a trial has a parameter from it


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


def sample_forest(request: Request) -> Iterator[Params]:
    """Yield points in order of their expected improvement by a forest.

    Its trees are extremely randomised (Geurts et al. 2006).

    Near pending trials it counts less (local penalisation, Gonzalez et al. 2016).
    """
    known = [
        trial for trial in budget_to_model(request.usable(), request.n_startup) if trial.finished
    ]
    if sum(trial.status == "complete" for trial in known) < request.n_startup:
        yield from sample_at_random(request)
        return
    from sklearn.ensemble import ExtraTreesRegressor  # a second to import

    rng = np.random.default_rng(request.own_seed)
    rows, places = encode(request.space, request.points(known), request.defaults), scores(known)
    forest = ExtraTreesRegressor(_TREES, random_state=request.own_seed).fit(rows, places)
    anywhere = one_hot(request.space, rng.random((_POINTS, len(request.space))))
    columns = [len(parameter.choices or (None,)) for _, parameter in sorted(request.space.items())]
    kept = np.repeat(rng.random((_POINTS, len(columns))) < _KEPT, columns, axis=1)
    near = rows[np.argsort(places, kind="stable")[:10]][
        rng.integers(min(10, len(rows)), size=_POINTS)
    ]
    near = np.where(kept, near + 0.05 * rng.standard_normal(near.shape), anywhere)
    points = unit_points_to_params(
        request.space, np.concatenate([anywhere, near]), request.defaults
    )
    rows = encode(request.space, points, request.defaults)
    improvement = _expected_improvement(forest, rows, places.min()) * -np.expm1(
        -_to_pending(request, rows) / (2 * _REPELS**2)
    )
    yield from (points[k] for k in np.argsort(-improvement, kind="stable"))


def _expected_improvement(forest: Any, rows: FloatArray, best: float) -> FloatArray:
    """Return the expected improvement on ``best``.

    Each tree gives a mean, and their spread is the uncertainty.
    """
    trees = np.stack([tree.predict(rows) for tree in forest.estimators_])
    mean, spread = trees.mean(axis=0), trees.std(axis=0) + 1e-3
    gain = (best - mean) / spread
    return np.asarray(spread * (gain * norm.cdf(gain) + norm.pdf(gain)))


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
