"""Strings that stand for other values.

Snakemake's ``--config`` hands every nested value over as a string. Here, and nowhere else, such a
string is read as YAML where the setting's type is not plain text: ``null``, numbers, booleans,
lists. Where text is allowed beside other types, it stays text unless it reads as one of those.
"""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from particleforge.config.reader import Tree, parse_yaml
from particleforge.errors import UserError


def read_strings(content: Mapping[str, Any], model: type[BaseModel], source: str) -> Tree:
    """Return the content of a block with its strings read as the model's fields ask."""
    fields = model.model_fields
    return {
        key: _read(value, fields[key].annotation, f"{source}: {key}") if key in fields else value
        for key, value in content.items()
    }


def _read(value: Any, annotation: Any, source: str) -> Any:
    options = list(_options(annotation))
    if isinstance(value, str):
        value = _from_text(value, options, source)
    for option in options:
        if isinstance(value, Mapping):
            if isinstance(option, type) and issubclass(option, BaseModel):
                return read_strings(value, option, source)
            if get_origin(option) is dict:
                inner = get_args(option)[1]
                return {key: _read(own, inner, f"{source}.{key}") for key, own in value.items()}
        elif isinstance(value, list | tuple) and get_origin(option) is tuple:
            inner = get_args(option)[0]  # all of one type
            return [_read(own, inner, source) for own in value]
    return value


def _from_text(text: str, options: list[Any], source: str) -> Any:
    kinds = {kind for option in options for kind in _kinds(option)}
    if kinds == {str}:
        return text
    try:
        value = parse_yaml(text, source)
    except UserError:
        if str in kinds:
            return text
        raise
    if isinstance(value, str) or (str in kinds and type(value) not in kinds):
        return text
    return value


def _options(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, or the annotation itself."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for argument in get_args(annotation):
            yield from _options(argument)
    elif origin is Annotated:
        yield from _options(get_args(annotation)[0])
    else:
        yield annotation


def _kinds(option: Any) -> set[Any]:
    """Return the types that YAML has for one option."""
    origin = get_origin(option)
    if origin is Literal:
        return {type(value) for value in get_args(option)}
    if origin is tuple:
        return {list}
    if origin is dict or (isinstance(option, type) and issubclass(option, BaseModel)):
        return {dict}
    return {NoneType if option is None else option}
