"""One line for a mistake in the configuration: source, key, what is wrong, what is allowed.

Layers are merged first and validated once, so a mistake belongs to the merge. It is laid to the
last layer that set the key; for a conflict of several keys, to the last layer that set one of those
that the message names; else to the last that set anything in the block.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from particleforge.config.base import SECRET
from particleforge.errors import did_you_mean

Layer = tuple[str, Mapping[str, Any]]  # where it comes from, and what it sets
Location = tuple[Any, ...]

_HINT = re.compile(r"; (?:did you mean|there are:|allowed:)")
_WORD = re.compile(r"[A-Za-z_][\w.]*\w")
_SPACE = ("hpo", "space")  # keys there hold dots


def explain(
    error: ValidationError, model: type[BaseModel], layers: Sequence[Layer], lacking: str
) -> str:
    """Turn one of pydantic's errors into one line; missing keys belong to ``lacking``."""
    errors = error.errors()  # an unknown key first: it may be a missing one, misspelled
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    location = tuple(part for part in first["loc"] if part != "[key]")
    kind = first["type"]
    if kind != "missing":
        location = _known(location, layers)  # without the member of a union
    message = first["msg"].removeprefix("Value error, ")
    source = _source(location[:-1] if kind == "missing" else location, message, layers) or lacking
    key = ".".join(map(str, location)) or "(top level)"
    if kind == "extra_forbidden":
        holder = _model_at(model, location[:-1])
        allowed = sorted(holder.model_fields) if holder else []
        return (
            f"{source}: {key}: unknown key; allowed:"
            f" {', '.join(allowed)}{did_you_mean(str(location[-1]), allowed)}"
        )
    if kind == "missing":
        return f"{source}: {key}: required key is missing; add it"
    value = first["input"]
    shown = "" if isinstance(value, Mapping) or kind == SECRET else f" (got {_short(value)})"
    hint = ""
    if isinstance(value, str):
        expected = str(first.get("ctx", {}).get("expected", ""))
        hint = did_you_mean(value, expected.replace("'", "").replace(" or ", ", ").split(", "))
    return f"{source}: {key}: {message}{shown}{hint}"


def inner_model(annotation: Any) -> Any:
    """Return the model in ``tuple[Model, ...]``, ``dict[str, Model]`` and the like, or the same."""
    for argument in getattr(annotation, "__args__", ()):
        found = inner_model(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return annotation


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """Return the model that a validation error's location lies in."""
    current: Any = model
    for part in location:
        if isinstance(part, int) or not (
            isinstance(current, type) and issubclass(current, BaseModel)
        ):
            continue
        if part not in current.model_fields:
            return current
        current = inner_model(current.model_fields[part].annotation)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _source(location: Location, message: str, layers: Sequence[Layer]) -> str | None:
    involved = set(_involved(location, message, layers))
    sharpest = [
        path
        for path in involved
        if not any(other != path and other[: len(path)] == path for other in involved)
    ]
    ways = [sharpest, *([location[:length]] for length in range(len(location), 0, -1))]
    for paths in ways:
        for source, layer in reversed(layers):
            if any(_holds(layer, path) for path in paths):
                return source
    return None


def _involved(location: Location, message: str, layers: Sequence[Layer]) -> Iterator[Location]:
    """Yield the keys that a message about a whole block names, of those that some layer sets."""
    if not any(isinstance(_at(layer, location), Mapping) for _, layer in layers):
        return  # a single value
    for word in _WORD.findall(_HINT.split(message)[0]):
        parts = tuple(word.split("."))
        for path in (parts, location + parts, (*location, word), (*_SPACE, word)):
            if any(_holds(layer, path) for _, layer in layers):
                yield path


def _known(location: Location, layers: Sequence[Layer]) -> Location:
    """Return the longest beginning of a location that some layer has."""
    lengths = range(len(location), 0, -1)
    return next(
        (
            location[:length]
            for length in lengths
            if any(_holds(layer, location[:length]) for _, layer in layers)
        ),
        location,
    )


_ABSENT = object()


def _at(layer: Any, location: Location) -> Any:
    """Return what a layer has at a location, or ``_ABSENT``."""
    for part in location:
        if isinstance(layer, Mapping):
            layer = layer.get(part, _ABSENT)
        elif isinstance(layer, list | tuple) and isinstance(part, int) and part < len(layer):
            layer = layer[part]
        else:
            return _ABSENT
    return layer


def _holds(layer: Mapping[str, Any], location: Location) -> bool:
    return _at(layer, location) is not _ABSENT
