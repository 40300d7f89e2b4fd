"""Run-level settings of the simulation."""

from pydantic import Field

from particleforge.config.base import Block


class SimulationConfig(Block):
    """How many events are simulated, and how they are spread over files."""

    events_per_sample: int = Field(1000, ge=1, description="events of a sample with fraction 1")
    events_per_shard: int = Field(250, ge=1, description="events per file, one job each")
    files_per_dataset_shard: int = Field(
        1,
        ge=1,
        description="simulated files that one job turns into one shard of the dataset; selection and reconstruction of it are one job each",
    )
