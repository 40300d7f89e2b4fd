"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import ShardSettings
from particleforge.logs import job_log
from particleforge.preprocessing.shards import write_shards

with job_log(snakemake.log[0]):
    write_shards(
        ShardSettings.model_validate(snakemake.params.settings),
        list(map(Path, snakemake.input.selected)),
        Path(snakemake.output.manifest).parent,
    )
