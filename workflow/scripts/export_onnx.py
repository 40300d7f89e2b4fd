"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import ExportSettings
from particleforge.export.onnx_model import export_onnx
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    export_onnx(
        ExportSettings.model_validate(snakemake.params.settings),
        Path(snakemake.input.model),
        Path(snakemake.input.manifest),
        Path(snakemake.output.onnx),
        Path(snakemake.output.parity),
        Path(snakemake.output.card),
    )
