"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import ExportSettings
from particleforge.export.onnx_model import export_onnx
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    export_onnx(
        ExportSettings.model_validate(snakemake.params.settings),
        detector=snakemake.wildcards.detector,
        checkpoint=Path(snakemake.input.model),
        manifest=Path(snakemake.input.manifest),
        onnx=Path(snakemake.output.onnx),
        parity=Path(snakemake.output.parity),
        model_card=Path(snakemake.output.card),
    )
