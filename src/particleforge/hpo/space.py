"""The search space: between configuration, Optuna's distributions, unit cube and training.

:func:`encode` and :func:`unit_points_to_params` are what a model of the loss needs: points as rows
of numbers, and rows of numbers as points. They know no setting, so any space will do.

A trial records only the parameters that were searched when it was made; whatever it does not record
had its configured value, which the study's name guards. So parameters can be added to a running
study.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings, TrainSettings
from particleforge.config.space import (
    ParameterConfig,
    active_parameters,
    apply_parameters,
    value_at,
)
from particleforge.config.training import STEPS_FOR, TrainingConfig
from particleforge.hpo import dag
from particleforge.hpo.budgets import Lengths, lengths_in_steps

FloatArray = NDArray[np.float64]
_NONE: Mapping[str, Any] = MappingProxyType({})


def distribution(parameter: ParameterConfig) -> BaseDistribution:
    """Return Optuna's form of a parameter."""
    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.type == "int":
        return IntDistribution(
            int(parameter.low),
            int(parameter.high),
            log=parameter.log,
            step=int(parameter.step or 1),
        )
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def distributions(hpo: HpoConfig) -> dict[str, BaseDistribution]:
    """Return the whole space, ordered by name.

    So no file's order of keys changes a proposal.
    """
    return {path: distribution(hpo.space[path]) for path in sorted(hpo.space)}


def contains(where: BaseDistribution, value: Any) -> bool:
    """Return whether a value can be a point of a distribution."""
    try:
        # Optuna has no public form of this question
        return bool(where._contains(where.to_internal_repr(value)))
    except ValueError:
        return False


def configured(
    space: Mapping[str, ParameterConfig], model: ModelConfig, training: TrainingConfig
) -> dict[str, Any]:
    """Return the configured values of the settings that a space searches or its conditions name."""
    named = {parent for parameter in space.values() for parent in parameter.when}
    return {path: value_at(path, model, training) for path in sorted({*space, *named})}


def trial_settings(
    settings: HpoSettings, params: Mapping[str, Any], rung: int = 0, lengths: Lengths | None = None
) -> TrainSettings:
    """Return the settings of a trial's training.

    Rungs differ only in where they stop, with ``rasda`` in batch and ranks, too.

    ``lengths`` (:func:`particleforge.hpo.budgets.lengths_of`) may be left out where budgets are in
    steps.

    pydantic's ValidationError if the parameters make no valid settings.

    The learning-rate schedule is that of the final training, warm-up included, shrunk to span the
    top rung if it has an end; ranks are the search's own, validation falls on every rung's end, and
    nothing ends a training before its rung's budget.
    """
    hpo = settings.hpo
    model, training = apply_parameters(params, settings.model, settings.training)
    lengths = lengths or lengths_in_steps(hpo, training)
    first = lengths.ends[0]
    every = training.valid_every_steps if first % training.valid_every_steps == 0 else first
    own = {
        "ranks": dag.ranks(hpo, rung),
        "elements_per_batch": training.elements_per_batch * dag.growth(hpo, rung),
        **dict.fromkeys(STEPS_FOR),
        "max_steps": lengths.schedule,
        "schedule_steps": None,
        "warmup_steps": lengths.warmup,
        "valid_every_steps": every,
        "early_stopping_patience": 0,
    }
    return TrainSettings(
        seed=settings.seed, model=model, training=TrainingConfig(**{**training.model_dump(), **own})
    )


def encoded_width(space: Mapping[str, ParameterConfig]) -> int:
    """Return the columns of an encoded point: one per number, one per choice of a categorical."""
    return sum(len(parameter.choices or (None,)) for parameter in space.values())


def encode(
    space: Mapping[str, ParameterConfig],
    points: Sequence[Mapping[str, Any]],
    configured: Mapping[str, Any] = _NONE,
) -> FloatArray:
    """Return points in the unit cube, for models that learn from numbers.

    The shape is (points, :func:`encoded_width`).

    Columns are in order of the parameters' names: a number on its own scale (of n steps the k-th at
    (k + 1/2) / n), a categorical as one column per choice. A parameter that is inactive, or a
    choice that the space lacks, lies in the middle; numbers out of range lie on the edge.
    ``configured`` holds the values of what a point lacks.
    """
    active = active_parameters(space, points, configured)
    blocks = [np.empty((len(points), 0))]
    for name, parameter in sorted(space.items()):
        if parameter.choices is not None:
            n = len(parameter.choices)
            index: dict[Any, int] = {choice: k for k, choice in enumerate(parameter.choices)}
            rows = np.vstack([np.eye(n), np.full((1, n), 1 / n)])
            blocks.append(rows[[index.get(point.get(name), n) for point in active]])
        else:
            values = np.array([point.get(name, np.nan) for point in active], dtype=float)
            blocks.append(np.nan_to_num(_to_unit(parameter, values), nan=0.5)[:, None])
    return np.concatenate(blocks, axis=1)


def unit_points_to_params(
    space: Mapping[str, ParameterConfig], points: FloatArray, configured: Mapping[str, Any] = _NONE
) -> list[dict[str, Any]]:
    """Return the valid points nearest to points of the unit cube.

    Their shape is (points, :func:`encoded_width`).

    The inverse of :func:`encode`; uniform coordinates give every value of a discrete parameter the
    same chance (on a logarithmic scale, that of its share of the scale). Inactive parameters are
    left out; ``configured`` holds the values of settings outside the space that conditions name.
    """
    columns: list[list[Any]] = []
    start = 0
    for _, parameter in sorted(space.items()):
        if parameter.choices is not None:
            stop = start + len(parameter.choices)
            columns.append([parameter.choices[k] for k in points[:, start:stop].argmax(axis=1)])
        else:
            stop = start + 1
            columns.append(_from_unit(parameter, points[:, start]).tolist())
        start = stop
    names = sorted(space)
    rows = zip(*columns, strict=True) if columns else [()] * len(points)
    return active_parameters(
        space, [dict(zip(names, row, strict=True)) for row in rows], configured
    )


def one_hot(space: Mapping[str, ParameterConfig], uniforms: FloatArray) -> FloatArray:
    """Return points of the unit cube as :func:`encode` lays them out.

    Each is made from one coordinate per parameter, in order of the names.
    """
    blocks = [np.empty((len(uniforms), 0))]
    for column, (_, parameter) in zip(uniforms.T, sorted(space.items()), strict=True):
        n = len(parameter.choices or ())
        blocks.append(
            np.eye(n)[np.minimum((column * n).astype(int), n - 1)] if n else column[:, None]
        )
    return np.concatenate(blocks, axis=1)


def _edges(parameter: ParameterConfig) -> tuple[float, float, float]:
    """Return the ends of a number's scale, and the step of a discrete one or 0.

    Discrete values lie in the middle of their intervals.
    """
    assert parameter.low is not None
    assert parameter.high is not None
    step = (
        (parameter.step or (1.0 if parameter.type == "int" else 0.0)) if parameter.n_levels else 0.0
    )
    low, high = parameter.low - step / 2, parameter.high + step / 2
    return (math.log(low), math.log(high), step) if parameter.log else (low, high, step)


def _to_unit(parameter: ParameterConfig, values: FloatArray) -> FloatArray:
    low, high, _ = _edges(parameter)
    inside = np.clip(values, parameter.low, parameter.high)
    return ((np.log(inside) if parameter.log else inside) - low) / (high - low)


def _from_unit(parameter: ParameterConfig, unit: FloatArray) -> NDArray[Any]:
    assert parameter.low is not None
    low, high, step = _edges(parameter)
    values = low + np.clip(unit, 0, 1) * (high - low)
    values = np.exp(values) if parameter.log else values
    if step:
        levels = np.clip(np.rint((values - parameter.low) / step), 0, parameter.n_levels - 1)
        decimals = [Decimal(str(number)).as_tuple().exponent for number in (parameter.low, step)]
        # 0.3, not 0.30000000000000004
        values = np.round(parameter.low + levels * step, -min(0, *map(int, decimals)))
    values = np.clip(values, parameter.low, parameter.high)
    return values.astype(np.int64) if parameter.type == "int" else values
