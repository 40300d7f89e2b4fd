"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.checks.dataset import compare_samples
from particleforge.config.settings import CompareSamplesSettings
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    compare_samples(
        CompareSamplesSettings.model_validate(snakemake.params.settings),
        verdicts=list(map(Path, snakemake.input)),
        work_dir=Path(snakemake.params.work),
        output=Path(snakemake.output[0]),
    )
