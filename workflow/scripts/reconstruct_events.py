"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import ReconstructSettings
from particleforge.logs import job_log
from particleforge.reconstruction.reconstruct import reconstruct_events

with job_log(snakemake.log[0]):
    reconstruct_events(
        ReconstructSettings.model_validate(snakemake.params.settings),
        events=Path(snakemake.input.events),
        model=Path(snakemake.input.model),
        output=Path(snakemake.output.events),
        edm4hep=Path(snakemake.output.edm4hep),
    )
