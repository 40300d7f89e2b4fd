"""The search space: one parameter per name, its checks, and how its values become settings.

A space is a mapping of names to parameters; in the configuration the names are dotted paths of
settings. A parameter with conditions (``when``) is active in a point only while they hold;
inactive, it is no part of the point.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, count, islice, product
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from particleforge.config.base import Block
from particleforge.config.model import ModelConfig
from particleforge.config.training import EXECUTION, TrainingConfig

DECIDED_BY_SEARCH = frozenset(
    f"training.{name}"
    for name in EXECUTION
    | {
        "max_steps",
        "schedule_steps",
        "valid_every_steps",
        "log_every_steps",
        "early_stopping_patience",
        "init_from",
        "max_train_events",
    }
)
GRID_POINTS_MAX = 10_000
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

        The two ends of a continuous one or of one with very many values.
        """
        if self.choices is not None or self.n_levels <= _VALUES_MAX:
            return self.levels(2)
        ends = (self.low, self.high)
        return tuple(map(int, ends)) if self.type == "int" else ends  # type: ignore[arg-type]

    def levels(self, n_continuous: int) -> tuple[Any, ...]:
        """Return all values of a discrete parameter, or some of a continuous one.

        Those lie at equal distances on its scale.
        """
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
    found = []
    for point in points:
        full: Params = {**configured, **point}
        active: Params = {}
        for name in order:
            if _holds(space, name, active, full):
                active[name] = full[name]
        found.append({name: active[name] for name in sorted(active)})
    return found


def apply_parameters(
    values: Mapping[str, Any], model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the blocks with the settings at the dotted paths replaced.

    Pydantic's ValidationError if a value is not allowed.
    """
    blocks: dict[str, Any] = {"model": model.model_dump(), "training": training.model_dump()}
    for path, value in values.items():
        *parents, leaf = path.split(".")
        holder = blocks
        for name in parents:
            holder = holder[name]
        holder[leaf] = value
    return ModelConfig(**blocks["model"]), TrainingConfig(**blocks["training"])


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
    """Yield each point of the grid once.

    It has all values of discrete parameters and ``n_continuous`` of continuous ones.
    """
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


def check_space(
    space: Mapping[str, ParameterConfig], model: ModelConfig, training: TrainingConfig
) -> None:
    """Raise a ValueError unless all values, and all pairs of values, make valid settings.

    Pairs find what single values cannot, e.g. a number of heads that does not divide a width. The
    other searched parameters keep their first value meanwhile, or one that a condition needs, so
    whatever is refused is a point of the space. Of a continuous parameter the ends are tried.
    """
    first = {path: parameter.values()[0] for path, parameter in space.items()}
    outside = {path for parameter in space.values() for path in parameter.when} - set(space)
    configured = {path: value_at(path, model, training) for path in outside}
    # blocks are validated apart
    pairs = [
        pair for pair in combinations(space, 2) if pair[0].split(".")[0] == pair[1].split(".")[0]
    ]
    for paths in [*((path,) for path in space), *pairs]:
        needed = _needed(space, paths)
        tried = [needed.get(path, space[path].values()) for path in paths]
        if not all(needed.values()):
            continue
        around = {**first, **{path: values[0] for path, values in needed.items() if path in space}}
        for chosen in product(*tried):
            own = dict(zip(paths, chosen, strict=True))
            (point,) = active_parameters(space, [{**around, **own}], configured)
            if set(own) <= set(point):
                _check_point(point, own, model, training)


def check_grid(
    space: Mapping[str, ParameterConfig],
    n_continuous: int,
    n_wanted: int,
    model: ModelConfig,
    training: TrainingConfig,
) -> None:
    """Raise a ValueError unless the grid has ``n_wanted`` points, or if it has far too many.

    Too many are more than any search visits.
    """
    named = {*space, *(parent for parameter in space.values() for parent in parameter.when)}
    small = all(parameter.n_levels <= GRID_POINTS_MAX for parameter in space.values())
    points = (
        grid_points(space, n_continuous, {path: value_at(path, model, training) for path in named})
        if small
        else count()
    )
    n = sum(1 for _ in islice(points, GRID_POINTS_MAX + 1))
    if n > GRID_POINTS_MAX:
        raise ValueError(
            f"hpo.sampler: the grid has more than {GRID_POINTS_MAX} points; fix parameters with"
            " null, or give steps or choices"
        )
    if n < n_wanted:
        raise ValueError(
            f"hpo.first_rung_slots: {n_wanted} configurations are wanted in all brackets, but the"
            f" grid has {n} points; lower the one or widen the other"
        )


def _needed(
    space: Mapping[str, ParameterConfig], paths: Sequence[str]
) -> dict[str, tuple[Value, ...]]:
    """Return the values that settings may have while the parameters at ``paths`` are all active."""
    needed: dict[str, tuple[Value, ...]] = {}
    waiting = list(paths)
    while waiting:
        for parent, values in space[waiting.pop()].when.items():
            needed[parent] = tuple(value for value in values if value in needed.get(parent, values))
            waiting += [parent] if parent in space else []
    return needed


def _check_point(
    point: Params, shown: Params, model: ModelConfig, training: TrainingConfig
) -> None:
    try:
        apply_parameters(point, model, training)
    except ValidationError as error:
        at = ", ".join(f"{path} = {value!r}" for path, value in shown.items())
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"hpo.space: {at} is not allowed: {message}") from None


def check_paths(space: Mapping[str, ParameterConfig]) -> None:
    """Raise a ValueError unless every path names a searchable setting, with values of its type.

    The same goes for conditions.
    """
    settings = _settings()
    searchable = {path: field for path, field in settings.items() if path not in DECIDED_BY_SEARCH}
    for path, parameter in space.items():
        if path not in searchable:
            raise ValueError(
                f"hpo.space: no setting '{path}' that could be searched{_nearest(path, searchable)}"
            )
        annotation = searchable[path].annotation
        if annotation is int and parameter.type == "float":
            raise ValueError(
                f"hpo.space.{path}: the setting is an int, so type must be int or categorical, not"
                " float"
            )
        if annotation not in (int, float) and parameter.type != "categorical":
            raise ValueError(
                f"hpo.space.{path}: the setting is no number, so type must be categorical, not"
                f" {parameter.type}"
            )
        for parent, values in parameter.when.items():
            if parent not in settings:
                raise ValueError(
                    f"hpo.space.{path}.when: no setting '{parent}'{_nearest(parent, settings)}"
                )
            impossible = [
                value for value in values if not _can_be(parent, value, space, settings[parent])
            ]
            if impossible:
                raise ValueError(f"hpo.space.{path}.when: {parent} can never be {impossible[0]!r}")
    parents_first(space)


def _can_be(
    path: str, value: Value, space: Mapping[str, ParameterConfig], field: FieldInfo
) -> bool:
    if path in space:
        return space[path].contains(value)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _nearest(path: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"


def _settings() -> dict[str, FieldInfo]:
    """Return every setting of model and training by dotted path."""
    found: dict[str, FieldInfo] = {}

    def walk(prefix: str, block: type[BaseModel]) -> None:
        for name, field in block.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(f"{prefix}.{name}", field.annotation)
            else:
                found[f"{prefix}.{name}"] = field

    walk("model", ModelConfig)
    walk("training", TrainingConfig)
    return found
