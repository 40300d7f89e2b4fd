"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import SelectSettings
from particleforge.logs import job_log
from particleforge.selection.select import select_events

with job_log(snakemake.log[0]):
    select_events(
        SelectSettings.model_validate(snakemake.params.settings),
        Path(snakemake.input[0]),
        Path(snakemake.output.events),
        Path(snakemake.output.cutflow),
    )
