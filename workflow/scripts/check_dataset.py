"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.checks.dataset import check_dataset
from particleforge.config.settings import CheckDatasetSettings
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    check_dataset(
        CheckDatasetSettings.model_validate(snakemake.params.settings),
        shards=list(map(Path, snakemake.input)),
        work_dir=Path(snakemake.params.work),
        output=Path(snakemake.output[0]),
    )
