"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import TrainSettings
from particleforge.logs import job_log
from particleforge.training.launch import Placement
from particleforge.training.train import train_model

with job_log(snakemake.log[0]):
    train_model(
        TrainSettings.model_validate(snakemake.params.settings),
        manifest=Path(snakemake.input.manifest),
        work_dir=Path(snakemake.params.work),
        model=Path(snakemake.output.model),
        last=Path(snakemake.output.last),
        metrics=Path(snakemake.output.metrics),
        tensorboard=Path(snakemake.output.tensorboard),
        best_settings=Path(snakemake.input.best),
        placement=Placement.of(snakemake.resources),
    )
