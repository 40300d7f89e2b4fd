"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import FetchSettings
from particleforge.inputs.fetch import fetch_file
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    asked = snakemake.resources
    fetch_file(
        FetchSettings.model_validate(snakemake.params.settings),
        Path(snakemake.output[0]),
        attempts=asked.fetch_attempts,
        wait_s=asked.fetch_wait_ms / 1000,
        timeout_s=asked.fetch_timeout_ms / 1000,
        gb_max=asked.fetch_mb_max / 1000,
        on_bad_file=asked.on_bad_file,
    )
