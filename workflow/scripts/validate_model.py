"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import ValidateSettings
from particleforge.logs import job_log
from particleforge.validation.validate import validate_model

with job_log(snakemake.log[0]):
    validate_model(
        ValidateSettings.model_validate(snakemake.params.settings),
        selected=list(map(Path, snakemake.input.selected)),
        reconstructed=list(map(Path, snakemake.input.reconstructed)),
        metrics=Path(snakemake.output.metrics),
        histograms=Path(snakemake.output.histograms),
        plots=Path(snakemake.output.plots),
    )
