"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import DatasetSettings
from particleforge.dataset.build import build_dataset
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    build_dataset(
        DatasetSettings.model_validate(snakemake.params.settings),
        list(map(Path, snakemake.input)),
        Path(snakemake.output[0]),
    )
