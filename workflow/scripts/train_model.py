"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import TrainSettings
from particleforge.logs import job_log
from particleforge.training.launch import Placement
from particleforge.training.train import train_model

with job_log(snakemake.log[0]):
    train_model(
        TrainSettings.model_validate(snakemake.params.settings),
        Path(snakemake.input.manifest),
        Path(snakemake.params.work),
        Path(snakemake.output.model),
        Path(snakemake.output.last),
        Path(snakemake.output.metrics),
        Path(snakemake.output.tensorboard),
        Path(snakemake.input.best),
        Placement.of(snakemake.resources),
    )
