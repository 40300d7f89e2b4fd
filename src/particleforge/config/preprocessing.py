"""Form of the training shards."""

from pydantic import Field

from particleforge.config.base import Block


class PreprocessingConfig(Block):
    """How selected events become shards."""

    events_per_shard: int = Field(
        1000,
        ge=1,
        description="largest number of events per shard; bounds memory; shards are of even size",
    )
