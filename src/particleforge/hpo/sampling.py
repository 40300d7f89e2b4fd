"""Propose a configuration for a slot of the first rung.

The sampler never sees the study itself but a view of it, made here: one point per configuration, not one per promotion,
with what each family of samplers can honestly learn from.

* ``tpe`` (Bergstra et al. 2011, multivariate, constant liar): each configuration at the highest rung it reached, as a
  pruned trial; Optuna ranks pruned trials by step first, so a low-rung value never passes for a final one. Failures
  rank last, pending configurations repel.
* ``gp``: values of one rung only, the highest with enough results (the rule of BOHB, Falkner et al. 2018, section 3.2);
  failures count as the worst value.
* ``cmaes``: the first rung, where every configuration has a value; Optuna keeps the optimiser's state in the trials.
* ``qmc``: scrambled Sobol sequence, whose k-th point belongs to slot k; ``random``: neither looks at results.

Seeds come from the run's seed and the slot, so a search whose jobs run one after another is reproducible; with ``qmc``
and ``random`` in any order.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from particleforge.config.hpo import HpoConfig
from particleforge.hpo.space import contains, distributions
from particleforge.hpo.trials import SearchTrial, furthest
from particleforge.seeds import seed_of

_ATTEMPTS_MAX = 20  # proposals until one is accepted that equals an earlier configuration
CMA_STATE = "cma:"  # prefix of the attributes in which Optuna's CMA-ES keeps its state
_SEED_BITS = 32  # Optuna's samplers seed NumPy's RandomState

Params = dict[str, Any]
_Point = tuple[SearchTrial, TrialState, float | None]


def propose(hpo: HpoConfig, seed: int, bracket: int, slot: int, defaults: Params, trials: Sequence[SearchTrial]) -> tuple[Params, Params]:
    """Return the parameters for a slot of the first rung, and what the sampler wants recorded with them.

    ``defaults`` are the configured values: what trials made before a parameter was added to the space had.
    """
    if (bracket, slot) == (0, 0) and hpo.include_default:
        return dict(defaults), {}
    where = distributions(hpo)
    known = [{**defaults, **t.params} for t in trials if t.parent is None]
    study = optuna.create_study(sampler=_sampler(hpo, seed, bracket, slot))
    study.add_trials(_view(hpo, where, defaults, trials))
    skipped = slot if hpo.sampler == "qmc" else 0
    for _ in range(skipped):
        study.ask(where)
    trial = study.ask(where)
    for _ in range(_ATTEMPTS_MAX if hpo.sampler != "qmc" else 0):
        if dict(trial.params) not in known:
            break
        trial = study.ask(where)
    recorded = study.get_trials(deepcopy=False)[trial.number].system_attrs
    return dict(trial.params), {key: value for key, value in recorded.items() if key.startswith(CMA_STATE)}


def _startup(hpo: HpoConfig) -> int:
    """Return how many random configurations precede a model: Optuna's ten, fewer in a search that has few slots."""
    return min(10, max(len(hpo.space) + 1, hpo.first_rung_slots // 3))


def _sampler(hpo: HpoConfig, seed: int, bracket: int, slot: int) -> optuna.samplers.BaseSampler:
    own_seed = seed_of(seed, "hpo", bracket, slot) % 2**_SEED_BITS
    if hpo.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=own_seed, multivariate=True, constant_liar=True, n_startup_trials=_startup(hpo))
    if hpo.sampler == "gp":
        return optuna.samplers.GPSampler(seed=own_seed, n_startup_trials=_startup(hpo), warn_independent_sampling=False)
    if hpo.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=own_seed, warn_independent_sampling=False)
    if hpo.sampler == "qmc":  # one sequence for all slots of a bracket, so one seed
        shared_seed = seed_of(seed, "hpo", "qmc", bracket) % 2**_SEED_BITS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.samplers.QMCSampler(seed=shared_seed, scramble=True, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=own_seed)


def _view(hpo: HpoConfig, where: Mapping[str, BaseDistribution], defaults: Params, trials: Sequence[SearchTrial]) -> list[FrozenTrial]:
    """Return the trials that the sampler learns from."""
    if hpo.sampler == "qmc":  # it takes its space from a finished trial
        corner = {path: parameter.values()[0] for path, parameter in hpo.space.items()}
        return [create_trial(state=TrialState.COMPLETE, params=corner, distributions=dict(where), value=0.0)]
    if hpo.sampler == "random":
        return []
    inside = [t for t in trials if all(contains(where[path], {**defaults, **t.params}[path]) for path in where)]
    if hpo.sampler == "tpe":
        points: list[_Point] = [(t, TrialState.PRUNED, None) for t in furthest(inside).values()]
    elif hpo.sampler == "gp":
        points = _as_final(_rung_to_model(inside, _startup(hpo)))
    else:
        points = _as_final(sorted((t for t in inside if t.rung == 0 and t.finished), key=lambda t: t.number))
    return [_point(trial, state, value, where, defaults) for trial, state, value in points]


def _point(
    trial: SearchTrial, state: TrialState, value: float | None, where: Mapping[str, BaseDistribution], defaults: Params
) -> FrozenTrial:
    params = {**defaults, **trial.params}
    return create_trial(
        state=state if trial.finished else TrialState.RUNNING,
        params={path: params[path] for path in where},
        distributions=dict(where),
        value=value,
        intermediate_values={trial.steps: trial.value} if value is None and trial.value is not None else None,
        system_attrs=dict(trial.system_attrs),
    )


def _rung_to_model(trials: Sequence[SearchTrial], enough: int) -> list[SearchTrial]:
    """Return the trials of the highest rung with enough results (the first, if none has), and all pending configurations."""
    rungs = sorted({t.rung for t in trials}, reverse=True)
    rung = next((r for r in rungs if sum(t.rung == r and t.status == "complete" for t in trials) >= enough), 0)
    chosen = {t.config: t for t in trials if t.rung == rung and t.finished}
    pending = {t.config: t for t in trials if t.parent is None and not t.finished}
    return [trial for _, trial in sorted({**pending, **chosen}.items())]


def _as_final(trials: Sequence[SearchTrial]) -> list[_Point]:
    """Return the trials as complete ones; failures get the worst value seen, and are left out while none is known."""
    worst = max((t.value for t in trials if t.value is not None), default=None)
    values = [(t, (t.value if t.value is not None else worst) if t.finished else None) for t in trials]
    return [(t, TrialState.COMPLETE, value) for t, value in values if value is not None or not t.finished]
