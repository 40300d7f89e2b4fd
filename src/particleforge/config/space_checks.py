"""Checks of a search space: its paths name settings, and its values make valid ones."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, count, islice, product
from types import NoneType, UnionType
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from particleforge.config.base import Block
from particleforge.config.model import ModelConfig
from particleforge.config.space import (
    ParameterConfig,
    Value,
    active_in,
    grid_points,
    parents_first,
    value_at,
    with_values,
)
from particleforge.config.training import EXECUTION, TrainingConfig

DECIDED_BY_SEARCH = frozenset(
    f"training.{name}"
    for name in EXECUTION
    | {
        *("max_steps", "schedule_steps", "events_seen", "schedule_events"),
        "valid_every_steps",
        "log_every_steps",
        "early_stopping_patience",
        "init_from",
        "max_train_events",
    }
)
GRID_POINTS_MAX = 10_000
_PAIRED_VALUES_MAX = 8  # of one parameter that are tried with all of another: ends, and between


def check_space(
    space: Mapping[str, ParameterConfig], model: ModelConfig, training: TrainingConfig
) -> None:
    """Raise a ValueError unless every value of the space, and every pair, makes valid settings.

    Pairs find what single values cannot, e.g. a number of heads that does not divide a width. The
    other searched parameters keep their first value meanwhile, or one that a condition needs, so
    whatever is refused is a point of the space. Of a continuous parameter the ends are tried; in
    pairs, of one with many values only some.
    """
    order = parents_first(space)
    values = {path: parameter.values() for path, parameter in space.items()}
    first = {path: own[0] for path, own in values.items()}
    outside = {path for parameter in space.values() for path in parameter.when} - set(space)
    configured = {path: value_at(path, model, training) for path in outside}
    refused = _refusals(model, training)
    # blocks are validated apart
    pairs = [
        pair for pair in combinations(space, 2) if pair[0].split(".")[0] == pair[1].split(".")[0]
    ]
    for paths in [*((path,) for path in space), *pairs]:
        needed = _needed(space, paths)
        tried = [needed.get(path, values[path]) for path in paths]
        if len(paths) > 1:
            tried = [_some(own) for own in tried]
        if not all(needed.values()):
            continue
        around = {**first, **{path: known[0] for path, known in needed.items() if path in space}}
        for chosen in product(*tried):
            own = dict(zip(paths, chosen, strict=True))
            point = active_in(space, order, {**configured, **around, **own})
            if own.keys() <= point.keys() and (message := refused(point)):
                at = ", ".join(f"{path} = {value!r}" for path, value in own.items())
                raise ValueError(f"hpo.space: {at} is not allowed: {message}")


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return at most ``_PAIRED_VALUES_MAX`` of the values, the first and the last among them."""
    last, n = len(values) - 1, _PAIRED_VALUES_MAX
    return values if last < n else tuple(values[k * last // (n - 1)] for k in range(n))


def _refusals(
    model: ModelConfig, training: TrainingConfig
) -> Callable[[Mapping[str, Any]], str | None]:
    """Return a function that says why the settings of a point are not allowed, or None.

    Of many points most differ in one block only, and many not at all: each block is validated once.
    """
    blocks = {"model": model.model_dump(), "training": training.model_dump()}
    kinds: dict[str, type[Block]] = {"model": ModelConfig, "training": TrainingConfig}
    known: set[tuple[str, Any]] = set()

    def refused(point: Mapping[str, Any]) -> str | None:
        for name, kind in kinds.items():
            own = {path: value for path, value in point.items() if path.startswith(f"{name}.")}
            key = (name, tuple((path, type(value), value) for path, value in own.items()))
            if key in known:
                continue
            known.add(key)
            try:
                kind.model_validate(with_values(blocks, own)[name])
            except ValidationError as error:
                return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        return None

    return refused


def check_grid(
    space: Mapping[str, ParameterConfig],
    n_continuous: int,
    n_wanted: int,
    model: ModelConfig,
    training: TrainingConfig,
) -> None:
    """Raise a ValueError unless the grid has ``n_wanted`` points or more, but not far too many."""
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
            f"hpo.first_rung_slots: {n_wanted} configurations are wanted, but the"
            f" grid of hpo.sampler with hpo.grid_points = {n_continuous} has {n} points; lower the"
            " one or widen the other"
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


def check_paths(space: Mapping[str, ParameterConfig]) -> None:
    """Raise a ValueError unless every path names a setting that may be searched.

    Its values must be of its type, and so must those of conditions.
    """
    settings = _settings()
    searchable = {path: field for path, field in settings.items() if path not in DECIDED_BY_SEARCH}
    for path, parameter in space.items():
        if path not in searchable:
            raise ValueError(
                f"hpo.space: no setting '{path}' that could be searched{_nearest(path, searchable)}"
            )
        annotation = _without_none(searchable[path].annotation)
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


def _without_none(annotation: Any) -> Any:
    """Return the type of a setting that may also be null."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return kinds[0] if isinstance(annotation, UnionType) and len(kinds) == 1 else annotation


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
