"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import SelectBestSettings
from particleforge.hpo.best import select_best_trial
from particleforge.logs import job_log
from particleforge.paths import HPO_PLOTS

with job_log(snakemake.log[0]):
    select_best_trial(
        SelectBestSettings.model_validate(snakemake.params.settings),
        list(map(Path, snakemake.input.slots)),
        Path(snakemake.params.work),
        Path(snakemake.input.manifest),
        Path(snakemake.output.best),
        Path(snakemake.output.trials),
        {name: Path(snakemake.output[name]) for name in HPO_PLOTS},
        list(map(Path, snakemake.input.confirmations)),
    )
