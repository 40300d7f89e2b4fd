"""Unpack the job's files and settings, call the package."""

from functools import partial
from pathlib import Path

from particleforge.config.settings import HpoSettings
from particleforge.hpo.slot import run_hpo_slot
from particleforge.logs import job_log
from particleforge.training.launch import Placement, run_training

with job_log(snakemake.log[0]):
    run_hpo_slot(
        HpoSettings.model_validate(snakemake.params.settings),
        (
            int(snakemake.wildcards.rung),
            int(snakemake.wildcards.slot),
        ),
        manifest=Path(snakemake.input.manifest),
        work_dir=Path(snakemake.params.work),
        output=Path(snakemake.output[0]),
        train=partial(run_training, placement=Placement.of(snakemake.resources)),
        parents=list(map(Path, snakemake.input.parents)),
        warm_start=list(map(Path, snakemake.input.warm_start)),
    )
