"""What all blocks of the configuration share."""

from pydantic import BaseModel, ConfigDict

SECRET = "secret"  # type of an error whose message must not repeat the value


class Block(BaseModel):
    """A block of the configuration: no unknown keys, and no changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
