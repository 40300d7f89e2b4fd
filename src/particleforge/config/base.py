"""What all blocks of the configuration share."""

from collections.abc import Sized
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SECRET = "secret"  # type of an error whose message must not repeat the value

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


def is_empty(values: Sized) -> bool:
    """Tell whether a value is left out where the configuration is written down."""
    return not values


class Block(BaseModel):
    """A block of the configuration: no unknown keys, and no changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
