"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import SelectSettings
from particleforge.logs import job_log
from particleforge.selection.select import select_events

with job_log(snakemake.log[0]):
    select_events(
        SelectSettings.model_validate(snakemake.params.settings),
        dataset=Path(snakemake.input[0]),
        output=Path(snakemake.output.events),
        cutflow=Path(snakemake.output.cutflow),
    )
