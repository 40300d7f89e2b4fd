"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import SelectBestSettings
from particleforge.hpo.best import select_best_trial
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    select_best_trial(
        SelectBestSettings.model_validate(snakemake.params.settings),
        list(map(Path, snakemake.input.slots)),
        Path(snakemake.params.work),
        Path(snakemake.input.manifest),
        Path(snakemake.output.best),
        Path(snakemake.output.trials),
        {
            name: Path(file)
            for name, file in snakemake.output.items()
            if name not in ("best", "trials")
        },
        list(map(Path, snakemake.input.confirmations)),
    )
