"""Unpack the job's files and settings, call the package."""

from functools import partial
from pathlib import Path

from particleforge.config.settings import SelectBestSettings
from particleforge.hpo.confirm import confirm_trial
from particleforge.logs import job_log
from particleforge.training.launch import Placement, run_training

with job_log(snakemake.log[0]):
    confirm_trial(
        SelectBestSettings.model_validate(snakemake.params.settings),
        list(map(Path, snakemake.input.slots)),
        Path(snakemake.params.work),
        Path(snakemake.input.manifest),
        int(snakemake.wildcards.place),
        int(snakemake.wildcards.seed),
        Path(snakemake.output[0]),
        partial(run_training, placement=Placement.of(snakemake.resources)),
    )
