"""Run-level settings of where events come from: the simulation, or files that exist."""

from typing import Literal, Self

from pydantic import Field, model_validator

from particleforge.config.base import AddressText, Block

FILES_MAX = 100_000  # simulated files of one sample: their numbers have five digits


class FetchConfig(Block):
    """How files of other machines are brought here; each is one small job."""

    keep: bool = Field(
        True,
        description=(
            "keep fetched files; false: each is removed when its shard of the dataset is made"
        ),
    )
    attempts: int = Field(
        5, ge=1, description="tries of one file; each goes on where the one before it stopped"
    )
    wait_s: float = Field(
        2.0, ge=0, description="pause before the second try; it doubles with each further one"
    )
    timeout_s: float = Field(
        60.0,
        gt=0,
        description="a try ends when a server sends less than 64 KiB in so many seconds",
    )
    gb_max: float = Field(
        100.0,
        gt=0,
        description="size of one file beyond which fetching ends: a server may send without end",
    )
    zenodo_url: AddressText = Field(
        "https://zenodo.org",
        pattern=r"^https?://[^/\s]",
        description="address of the Zenodo that zenodo:// files are taken from",
    )


class SimulationConfig(Block):
    """Where events come from, how many are simulated, and how they are spread over files."""

    backend: Literal["parametric", "files"] = Field(
        "parametric",
        description=(
            "parametric: simulate the samples; files: read the files that samples.<name>.files"
            " names"
        ),
    )
    published: str | None = Field(
        None,
        description=(
            "file of config/published that describes a published data set; its samples take the"
            " place of the detector's"
        ),
    )
    fetch: FetchConfig = FetchConfig()
    events_per_sample: int = Field(
        1000,
        ge=1,
        le=10**11,
        description="events of a sample with fraction 1; of simulated samples only",
    )
    events_per_shard: int = Field(
        250, ge=1, le=10**7, description="events per simulated file, one job each"
    )
    files_per_dataset_shard: int = Field(
        1,
        ge=1,
        le=10_000,
        description=(
            "simulated or given files that one job turns into one shard of the dataset; selection"
            " and reconstruction of it are one job each"
        ),
    )

    @property
    def origin(self) -> str:
        """Where events come from, in words."""
        if self.backend == "parametric":
            return "generated with Pythia 8 and simulated by ParticleForge's parametric backend"
        if self.published is None:
            return "read from given files of simulated events"
        return f"read from the files of the published data set {self.published}"

    @model_validator(mode="after")
    def _files_can_be_numbered(self) -> Self:
        per_shard = self.events_per_shard * self.files_per_dataset_shard
        n_files = -(-self.events_per_sample // per_shard) * self.files_per_dataset_shard
        if n_files > FILES_MAX:
            raise ValueError(
                f"simulation.events_per_sample = {self.events_per_sample} with"
                f" simulation.events_per_shard = {self.events_per_shard} makes {n_files} files of a"
                f" sample, at most {FILES_MAX} can be; raise events_per_shard"
            )
        return self
