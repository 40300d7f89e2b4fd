"""The search space: one parameter per dotted path of a setting, its checks, and how its values become settings."""

import difflib
from collections.abc import Mapping
from decimal import Decimal
from itertools import combinations, product
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from particleforge.config.base import Block
from particleforge.config.model import ModelConfig
from particleforge.config.training import EXECUTION, TrainingConfig

DECIDED_BY_SEARCH = frozenset(
    f"training.{name}"
    for name in EXECUTION
    | {"max_steps", "schedule_steps", "valid_every_steps", "log_every_steps", "early_stopping_patience", "init_from", "max_train_events"}
)
_VALUES_MAX = 64  # values of one integer parameter that are checked one by one


class ParameterConfig(Block):
    """One dimension of the search space; its key is the dotted path of a setting, e.g. ``training.learning_rate``."""

    type: Literal["float", "int", "categorical"]
    low: float | None = Field(None, description="smallest value, of a float or int")
    high: float | None = Field(None, description="largest value, of a float or int")
    log: bool = Field(False, description="sample on a logarithmic scale")
    step: float | None = Field(None, gt=0, description="distance between values")
    choices: tuple[bool | int | float | str, ...] | None = Field(None, description="values of a categorical")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "categorical":
            if not self.choices or self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("type categorical needs choices and none of low, high, log, step")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError(f"choices are given twice in {list(self.choices)}")
        elif self.choices is not None or self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(
                f"type {self.type} needs low < high and no choices, got low={self.low}, high={self.high}, choices={self.choices}; "
                "a key that another file set is taken back with null"
            )
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")
        elif self.type == "int" and any(value is not None and value % 1 for value in (self.low, self.high, self.step)):
            raise ValueError(f"type int needs whole numbers, got low={self.low}, high={self.high}, step={self.step}")
        elif self.step is not None and (Decimal(str(self.high)) - Decimal(str(self.low))) % Decimal(str(self.step)):
            raise ValueError(f"high - low must be a multiple of step, got low={self.low}, high={self.high}, step={self.step}")
        return self

    def values(self) -> tuple[Any, ...]:
        """Return all values of a discrete parameter; the two ends of a continuous one or of one with very many values."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        if self.type == "float":
            return (self.low, self.high)
        grid = range(int(self.low), int(self.high) + 1, int(self.step or 1))
        return tuple(grid) if len(grid) <= _VALUES_MAX else (grid[0], grid[-1])

    def widens(self, older: Self) -> bool:
        """Return whether every value of ``older`` is still a value of this parameter, drawn on the same scale."""
        if (self.type, self.log, self.step) != (older.type, older.log, older.step):
            return False
        if self.choices is not None and older.choices is not None:
            return set(older.choices) <= set(self.choices)
        assert self.low is not None
        assert self.high is not None
        assert older.low is not None
        assert older.high is not None
        on_grid = self.step is None or (Decimal(str(older.low)) - Decimal(str(self.low))) % Decimal(str(self.step)) == 0
        return on_grid and self.low <= older.low and older.high <= self.high


def apply_parameters(values: Mapping[str, Any], model: ModelConfig, training: TrainingConfig) -> tuple[ModelConfig, TrainingConfig]:
    """Return the blocks with the settings at the dotted paths replaced; pydantic's ValidationError if a value is not allowed."""
    blocks: dict[str, Any] = {"model": model.model_dump(), "training": training.model_dump()}
    for path, value in values.items():
        *parents, leaf = path.split(".")
        holder = blocks
        for name in parents:
            holder = holder[name]
        holder[leaf] = value
    return ModelConfig(**blocks["model"]), TrainingConfig(**blocks["training"])


def check_space(space: Mapping[str, ParameterConfig], model: ModelConfig, training: TrainingConfig) -> None:
    """Raise a ValueError unless every value, and every pair of values, of the space makes valid settings.

    Pairs find what single values cannot, e.g. a number of heads that does not divide a width. The other searched
    parameters keep their first value meanwhile, so whatever is refused is a point of the space. Of a continuous
    parameter the ends are tried.
    """
    values = {path: parameter.values() for path, parameter in space.items()}
    first = {path: choices[0] for path, choices in values.items()}
    points = [{path: value} for path in values for value in values[path]]
    for one, other in combinations(values, 2):
        if one.split(".")[0] == other.split(".")[0]:  # blocks are validated on their own
            points += [{one: value, other: other_value} for value, other_value in product(values[one], values[other])]
    for point in points:
        try:
            apply_parameters({**first, **point}, model, training)
        except ValidationError as error:
            shown = ", ".join(f"{path} = {value!r}" for path, value in point.items())
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"hpo.space: {shown} is not allowed: {message}") from None


def check_paths(space: Mapping[str, ParameterConfig]) -> None:
    """Raise a ValueError unless every path names a setting that may be searched, with values of its type."""
    known = _leaf_types()
    for path, parameter in space.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
            hint = f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"
            raise ValueError(f"hpo.space: no setting '{path}' that could be searched{hint}")
        if known[path] is int and parameter.type == "float":
            raise ValueError(f"hpo.space.{path}: the setting is an int, so type must be int or categorical, not float")
        if known[path] not in (int, float) and parameter.type != "categorical":
            raise ValueError(f"hpo.space.{path}: the setting is no number, so type must be categorical, not {parameter.type}")


def _leaf_types() -> dict[str, Any]:
    """Return the type of every setting that may be searched, by dotted path."""
    found: dict[str, Any] = {}

    def walk(prefix: str, block: type[BaseModel]) -> None:
        for name, field in block.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(f"{prefix}.{name}", field.annotation)
            else:
                found[f"{prefix}.{name}"] = field.annotation

    walk("model", ModelConfig)
    walk("training", TrainingConfig)
    return {path: annotation for path, annotation in found.items() if path not in DECIDED_BY_SEARCH}
