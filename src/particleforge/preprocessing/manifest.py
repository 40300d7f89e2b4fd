"""What is read of the files that describe training shards: manifest and normalisation.

``shards`` writes them; checks and trainings hold them to these models.
"""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from particleforge.stored import Stored


class FeatureEntry(BaseModel):
    """A feature of an element type, in the manifest."""

    name: str
    transform: Literal["log", "log1p", "asinh", "none"]


class ClassEntry(BaseModel):
    """A particle class, in the manifest; "none" has but a name."""

    name: str
    pdg: int | None = None
    charged: bool | None = None
    mass_gev: float | None = Field(None, ge=0, allow_inf_nan=False)


class ShardEntry(BaseModel):
    """A shard, in the manifest."""

    file: str = Field(pattern=r"^[a-z]+/[^/]+\.parquet$")
    n_events: int = Field(ge=0)
    n_elements: int = Field(ge=0)
    sha256: str


class SplitEntry(BaseModel):
    """A split, in the manifest."""

    n_events: int = Field(ge=0)
    n_elements: int = Field(ge=0)
    shards: list[ShardEntry]

    @model_validator(mode="after")
    def _names_each_shard_once(self) -> Self:
        files = [shard.file for shard in self.shards]
        if repeated := [name for name, number in Counter(files).items() if number > 1]:
            raise ValueError(f"names {', '.join(repeated)} twice")
        return self


class Manifest(Stored):
    """What is read of the manifest of training shards."""

    KIND = "manifest"
    REMEDY = "rerun write_shards"
    MAY_LACK_KIND = True
    schema_version: int
    elements: dict[str, list[FeatureEntry]]
    n_features: int
    classes: list[ClassEntry] = Field(min_length=2)
    # of the events of the train split; None where all events weigh the same
    mean_weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    splits: dict[str, SplitEntry]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        widest = max(map(len, self.elements.values()), default=0)
        if self.n_features != widest:
            raise ValueError(f"n_features is {self.n_features}, elements have up to {widest}")
        return self


class Moments(BaseModel):
    """Mean and standard deviation of the features of an element type."""

    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class Normalisation(Stored):
    """What is read of the normalisation beside a manifest."""

    KIND = "normalisation"
    REMEDY = "rerun write_shards"
    MAY_LACK_KIND = True
    track: Moments
    cluster: Moments | None = None
    hit: Moments | None = None
