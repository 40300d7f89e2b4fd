"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import CutflowSettings
from particleforge.logs import job_log
from particleforge.selection.cutflow import gather_cutflows

with job_log(snakemake.log[0]):
    gather_cutflows(
        CutflowSettings.model_validate(snakemake.params.settings),
        cutflows=list(map(Path, snakemake.input)),
        table=Path(snakemake.output.table),
        plot=Path(snakemake.output.plot),
    )
