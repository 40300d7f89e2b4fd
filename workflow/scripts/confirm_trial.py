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
        slots=list(map(Path, snakemake.input.slots)),
        work_dir=Path(snakemake.params.work),
        manifest=Path(snakemake.input.manifest),
        place=int(snakemake.wildcards.place),
        seed=int(snakemake.wildcards.seed),
        output=Path(snakemake.output[0]),
        train=partial(run_training, placement=Placement.of(snakemake.resources)),
    )
