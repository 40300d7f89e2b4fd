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
        manifest=Path(snakemake.input.manifest),
        source=next(map(Path, snakemake.input.source), None),
        work_dir=Path(snakemake.params.work),
        output=Path(snakemake.output[0]),
        train=partial(run_training, placement=Placement.of(snakemake.resources)),
    )
