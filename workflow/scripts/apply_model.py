"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import DatasetSettings, ReconstructSettings
from particleforge.logs import job_log
from particleforge.reconstruction.reconstruct import reconstruct_file

with job_log(snakemake.log[0]):
    settings = snakemake.params.settings
    reconstruct_file(
        ReconstructSettings.model_validate(settings["reconstruct"]),
        DatasetSettings.model_validate(settings["dataset"]),
        Path(snakemake.input.file),
        model=Path(snakemake.input.model),
        output=Path(snakemake.output.events),
        edm4hep=Path(snakemake.output.edm4hep),
    )
