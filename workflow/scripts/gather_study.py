"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import StudySettings
from particleforge.logs import job_log
from particleforge.studies.gather import gather_study

with job_log(snakemake.log[0]):
    gather_study(
        StudySettings.model_validate(snakemake.params.settings),
        snakemake.wildcards.study,
        list(map(Path, snakemake.input)),
        Path(snakemake.output.summary),
        Path(snakemake.output.table),
        Path(snakemake.output.plots),
    )
