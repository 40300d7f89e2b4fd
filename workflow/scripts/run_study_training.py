"""Unpack the job's files and settings, call the package."""

from functools import partial
from pathlib import Path

from particleforge.logs import job_log
from particleforge.studies.points import StudyPoint
from particleforge.studies.train import run_study_training
from particleforge.training.launch import Placement, run_training

with job_log(snakemake.log[0]):
    run_study_training(
        StudyPoint.model_validate(snakemake.params.point),
        Path(snakemake.input.manifest),
        next(map(Path, snakemake.input.source), None),
        Path(snakemake.params.work),
        Path(snakemake.output[0]),
        partial(run_training, placement=Placement.of(snakemake.resources)),
    )
