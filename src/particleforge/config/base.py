"""What all blocks of the configuration share."""

import math
from collections.abc import Iterable, Sized
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from particleforge.addresses import holds_secret, is_readable, masked

SECRET = "secret"  # type of an error whose message must not repeat the value
_NO_SECRET = (
    "holds a password, token or key, which logs and records would repeat; take it out: databases"
    " read ~/.pgpass or PGPASSWORD, web servers are given what ~/.netrc has for them (an @ or :"
    " that is part of a name is written %40 or %3A)"
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


def is_empty(values: Sized) -> bool:
    """Tell whether a value is left out where the configuration is written down."""
    return not values


class Block(BaseModel):
    """A block of the configuration: no unknown keys, no booleans for numbers, no later change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # results_dir: 2026
        hide_input_in_errors=True,  # which may be a secret; ``explain`` shows what may be shown
    )

    @field_validator("*", mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        is_list = get_origin(annotation) is tuple and str in _types(annotation)
        return (value,) if is_list and isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        texts = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(text, str) and "://" in text and masked(text) != text for text in texts):
            raise PydanticCustomError(SECRET, _NO_SECRET)
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if _holds_boolean(value) and not _takes_booleans(cls, str(info.field_name)):
            raise PydanticCustomError("boolean", "must not be a boolean")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_text_of_what_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        own = not _holds_blocks(cls, str(info.field_name))  # else they name the key
        if own and any(isinstance(x, float) and not math.isfinite(x) for x in _items(value)):
            raise PydanticKnownError("finite_number")
        return value


def _items(value: Any) -> Iterable[Any]:
    """Yield what lists and blocks hold, to any depth, or the value itself."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _items(item)
    else:
        yield value


def _holds_boolean(value: Any) -> bool:
    return any(isinstance(item, bool) for item in _items(value))


@cache
def _holds_blocks(block: type[Block], field: str) -> bool:
    return any(
        isinstance(kind, type) and issubclass(kind, BaseModel)
        for kind in _types(block.model_fields[field].annotation)
    )


@cache
def _takes_booleans(block: type[Block], field: str) -> bool:
    """Return whether a field takes booleans, or what another block checks."""
    kinds = _types(block.model_fields[field].annotation)
    return _holds_blocks(block, field) or any(kind in (bool, Any) for kind in kinds)


def _types(annotation: Any) -> Iterable[Any]:
    """Yield an annotation and all types within it."""
    yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)


def _path(text: str) -> str:
    if "{" in text or "}" in text:
        raise ValueError("must have no { or }, which would be wildcards of the workflow")
    if not text.isprintable():
        raise ValueError("must have no control characters")
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError as error:  # ~name of nobody
        raise ValueError(f"{error}") from None


PathText = Annotated[str, AfterValidator(_path)]
"""A path as it is written, ``~`` expanded."""


def _address(text: str) -> str:
    if holds_secret(text):
        raise PydanticCustomError(SECRET, _NO_SECRET)
    if "://" in text and not is_readable(text):
        raise PydanticCustomError(
            SECRET,
            "cannot be read as an address (not repeated here, as it may hold a password); correct"
            " it: scheme://host:port/path",
        )
    return text


AddressText = Annotated[str, AfterValidator(_address)]
"""An address, or a path, without a secret in it."""
