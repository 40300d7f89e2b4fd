"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.checks.shards import check_shards
from particleforge.config.settings import CheckShardsSettings
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    check_shards(
        CheckShardsSettings.model_validate(snakemake.params.settings),
        manifest=Path(snakemake.input.manifest),
        normalisation=Path(snakemake.input.normalisation),
        work_dir=Path(snakemake.params.work),
        output=Path(snakemake.output[0]),
    )
