"""Unpack the job's files and settings, call the package."""

from functools import partial
from pathlib import Path

from particleforge.logs import job_log
from particleforge.scans.points import ScanPoint
from particleforge.scans.train import run_scan_training
from particleforge.training.launch import Placement, run_training

with job_log(snakemake.log[0]):
    run_scan_training(
        ScanPoint.model_validate(snakemake.params.point),
        Path(snakemake.input.manifest),
        next(map(Path, snakemake.input.source), None),
        Path(snakemake.params.work),
        Path(snakemake.output[0]),
        partial(run_training, placement=Placement.of(snakemake.resources)),
    )
