"""The search space: one parameter per name, and how its values become settings.

A space is a mapping of names to parameters; in the configuration the names are dotted paths of
settings. A parameter with conditions (``when``) is active in a point only while they hold;
inactive, it is no part of the point.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import Block
from particleforge.config.model import ModelConfig
from particleforge.config.training import TrainingConfig

_VALUES_MAX = 64  # values of one discrete parameter that are checked one by one
_ON_GRID = 1e-8  # distance from a multiple of the step that rounding explains

Value = bool | int | float | str
Params = dict[str, Any]
_NONE: Mapping[str, Any] = MappingProxyType({})


class ParameterConfig(Block):
    """One dimension of the search space.

    Its key is the dotted path of a setting, e.g. ``training.learning_rate``.
    """

    type: Literal["float", "int", "categorical"]
    low: float | None = Field(None, description="smallest value, of a float or int")
    high: float | None = Field(None, description="largest value, of a float or int")
    log: bool = Field(False, description="sample on a logarithmic scale")
    step: float | None = Field(None, gt=0, description="distance between values")
    choices: tuple[Value, ...] | None = Field(None, description="values of a categorical")
    when: dict[str, tuple[Value, ...]] = Field(
        default_factory=dict,
        description=(
            "searched only while each of these settings has one of the values listed for it"
        ),
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "categorical":
            if (
                not self.choices
                or self.low is not None
                or self.high is not None
                or self.log
                or self.step is not None
            ):
                raise ValueError("type categorical needs choices and none of low, high, log, step")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError(f"choices are given twice in {list(self.choices)}")
        elif (
            self.choices is not None
            or self.low is None
            or self.high is None
            or self.low >= self.high
        ):
            raise ValueError(
                f"type {self.type} needs low < high and no choices, got low={self.low},"
                f" high={self.high}, choices={self.choices}; a key that another file set is taken"
                " back with null"
            )
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")
        elif self.type == "int" and any(
            value is not None and value % 1 for value in (self.low, self.high, self.step)
        ):
            raise ValueError(
                f"type int needs whole numbers, got low={self.low}, high={self.high},"
                f" step={self.step}"
            )
        elif self.step is not None and (_exact(self.high) - _exact(self.low)) % _exact(self.step):
            raise ValueError(
                f"high - low must be a multiple of step, got low={self.low}, high={self.high},"
                f" step={self.step}"
            )
        if not all(self.when.values()):
            raise ValueError(
                f"when needs at least one value of each setting, got {dict(self.when)}"
            )
        return self

    def values(self) -> tuple[Any, ...]:
        """Return all values of a discrete parameter.

        Of a continuous one, or one with very many values, they are the two ends.
        """
        if self.choices is not None or self.n_levels <= _VALUES_MAX:
            return self.levels(2)
        ends = (self.low, self.high)
        return tuple(map(int, ends)) if self.type == "int" else ends  # type: ignore[arg-type]

    def levels(self, n_continuous: int) -> tuple[Any, ...]:
        """Return all values of a discrete parameter, or some of a continuous one, evenly spaced."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        n = self.n_levels or n_continuous
        places = [Fraction(k, n - 1) for k in range(n)] if n > 1 else [Fraction(1, 2)]
        if self.n_levels:
            low, span = _exact(self.low), _exact(self.high) - _exact(self.low)
            return tuple(
                (int if self.type == "int" else float)(low + span * place) for place in places
            )
        if self.log:
            return tuple(
                min(self.high, max(self.low, self.low * (self.high / self.low) ** float(place)))
                for place in places
            )
        return tuple(self.low + (self.high - self.low) * float(place) for place in places)

    @property
    def n_levels(self) -> int:
        """Number of values of a discrete parameter, 0 of a continuous one."""
        if self.choices is not None:
            return len(self.choices)
        step = self.step or (1 if self.type == "int" else None)
        return 0 if step is None else int((_exact(self.high) - _exact(self.low)) / _exact(step)) + 1

    def contains(self, value: Any) -> bool:
        """Return whether ``value`` is one of the parameter's."""
        if self.choices is not None:
            return value in self.choices
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (self.type == "int" and value % 1)
        ):
            return False
        assert self.low is not None
        assert self.high is not None
        level = (value - self.low) / (self.step or 1)
        return self.low <= value <= self.high and (
            self.step is None or abs(level - round(level)) < _ON_GRID
        )

    def widens(self, older: Self) -> bool:
        """Return whether each value of ``older`` is one of this parameter, on the same scale."""
        if (self.type, self.log, self.step) != (older.type, older.log, older.step):
            return False
        if not all(
            set(older.when.get(parent, ())) and set(older.when[parent]) <= set(values)
            for parent, values in self.when.items()
        ):
            return False  # it would be searched in fewer places
        if self.choices is not None and older.choices is not None:
            return set(older.choices) <= set(self.choices)
        on_grid = (
            self.step is None or (_exact(older.low) - _exact(self.low)) % _exact(self.step) == 0
        )
        return (
            on_grid
            and _exact(self.low) <= _exact(older.low)
            and _exact(older.high) <= _exact(self.high)
        )


def _exact(value: float | None) -> Fraction:
    """Return a number as it is written, so that steps of 0.1 are exact."""
    return Fraction(str(value))


def parents_first(space: Mapping[str, ParameterConfig]) -> list[str]:
    """Return the names, each after those that its conditions name.

    ValueError if conditions go in a circle.
    """
    graph = {
        name: sorted(parent for parent in space[name].when if parent in space)
        for name in sorted(space)
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ValueError(
            f"hpo.space: conditions go in a circle: {' <- '.join(error.args[1])}"
        ) from None


def active_parameters(
    space: Mapping[str, ParameterConfig],
    points: Sequence[Mapping[str, Any]],
    configured: Mapping[str, Any] = _NONE,
) -> list[Params]:
    """Return of each point the parameters that are active in it, in order of their names.

    ``configured`` holds the values of what a point lacks. A parameter is active if each setting
    that its conditions name has a listed value and, if it is a parameter, is active itself.
    """
    order = parents_first(space)
    if not any(parameter.when for parameter in space.values()):
        return [
            {name: point[name] if name in point else configured[name] for name in sorted(space)}
            for point in points
        ]
    found = [active_in(space, order, {**configured, **point}) for point in points]
    return [{name: active[name] for name in sorted(active)} for active in found]


def active_in(
    space: Mapping[str, ParameterConfig], order: Sequence[str], full: Mapping[str, Any]
) -> Params:
    """Return the active parameters, in ``order``: parents first."""
    active: Params = {}
    for name in order:
        if not space[name].when or _holds(space, name, active, full):
            active[name] = full[name]
    return active


def apply_parameters(
    values: Mapping[str, Any], model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the blocks with the settings at the dotted paths replaced.

    Pydantic's ValidationError if a value is not allowed.
    """
    blocks = with_values({"model": model.model_dump(), "training": training.model_dump()}, values)
    return ModelConfig(**blocks["model"]), TrainingConfig(**blocks["training"])


def with_values(blocks: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with those at dotted paths replaced; ``blocks`` stays as it is."""
    found, own = dict(blocks), set()
    for path, value in values.items():
        *parents, leaf = path.split(".")
        holder, place = found, ""
        for name in parents:
            place += f"{name}."
            if place not in own:
                holder[name] = dict(holder[name])
                own.add(place)
            holder = holder[name]
        holder[leaf] = value
    return found


def _holds(
    space: Mapping[str, ParameterConfig],
    name: str,
    active: Mapping[str, Any],
    outside: Mapping[str, Any],
) -> bool:
    """Return whether a parameter's conditions hold.

    The active parameters and the values of settings outside the space are given.
    """
    where = (
        (active if parent in space else outside, parent, values)
        for parent, values in space[name].when.items()
    )
    return all(parent in known and known[parent] in values for known, parent, values in where)


def grid_points(
    space: Mapping[str, ParameterConfig], n_continuous: int, configured: Mapping[str, Any] = _NONE
) -> Iterator[Params]:
    """Yield each grid point once: all discrete values, ``n_continuous`` of continuous ones."""
    order = parents_first(space)
    values = {name: space[name].levels(n_continuous) for name in order}

    def walk(depth: int, point: Params) -> Iterator[Params]:
        if depth == len(order):
            yield {name: point[name] for name in sorted(point)}
            return
        name = order[depth]
        for own in (
            [{name: value} for value in values[name]]
            if _holds(space, name, point, configured)
            else [{}]
        ):
            yield from walk(depth + 1, {**point, **own})

    return walk(0, {})


def value_at(path: str, model: ModelConfig, training: TrainingConfig) -> Any:
    """Return the configured value of the setting at a dotted path."""
    block, *names = path.split(".")
    value: Any = {"model": model, "training": training}[block]
    for name in names:
        value = getattr(value, name)
    return value
