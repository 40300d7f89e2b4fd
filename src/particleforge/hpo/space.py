"""The search space: from the configuration to Optuna's distributions, and from a point of it to a model and a training.

A trial records only the parameters that were searched when it was made; whatever it does not record had its configured
value, which the study's name guards. So parameters can be added to a running study.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings, TrainSettings
from particleforge.config.space import ParameterConfig, apply_parameters
from particleforge.config.training import TrainingConfig
from particleforge.hpo import dag


def distribution(parameter: ParameterConfig) -> BaseDistribution:
    """Return Optuna's form of a parameter."""
    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.type == "int":
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def distributions(hpo: HpoConfig) -> dict[str, BaseDistribution]:
    """Return the whole space, in order of the names so that no file's order of keys changes a proposal."""
    return {path: distribution(hpo.space[path]) for path in sorted(hpo.space)}


def contains(where: BaseDistribution, value: Any) -> bool:
    """Return whether a value can be a point of a distribution."""
    try:
        return bool(where._contains(where.to_internal_repr(value)))  # Optuna has no public form of this question
    except ValueError:
        return False


def configured(paths: Mapping[str, Any], model: ModelConfig, training: TrainingConfig) -> dict[str, Any]:
    """Return the configured values of the settings at the dotted paths."""
    values = {}
    for path in sorted(paths):
        value: Any = {"model": model, "training": training}[path.split(".")[0]]
        for name in path.split(".")[1:]:
            value = getattr(value, name)
        values[path] = value
    return values


def trial_settings(settings: HpoSettings, params: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a trial's training, the same in every rung: only the step at which it stops differs.

    pydantic's ValidationError if the parameters make no valid settings.

    The learning-rate schedule is that of the final training, warm-up included, shrunk to span the top rung if it has an end;
    ranks are the search's own, validation falls on every rung's end, and nothing ends a training before its rung's budget.
    """
    hpo = settings.hpo
    model, training = apply_parameters(params, settings.model, settings.training)
    first = dag.budget_steps(hpo, 0)
    every = training.valid_every_steps if first % training.valid_every_steps == 0 else first
    schedule = dag.schedule_steps(hpo)
    shrunk = min(1.0, schedule / training.schedule_length) if training.schedule_length else 1.0
    own = {
        "ranks": hpo.ranks,
        "max_steps": schedule,
        "schedule_steps": None,
        "warmup_steps": round(training.warmup_steps * shrunk),
        "valid_every_steps": every,
        "early_stopping_patience": 0,
    }
    return TrainSettings(seed=settings.seed, model=model, training=TrainingConfig(**{**training.model_dump(), **own}))
