"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import SelectBestSettings
from particleforge.hpo.best import select_best_trial
from particleforge.logs import job_log

with job_log(snakemake.log[0]):
    select_best_trial(
        SelectBestSettings.model_validate(snakemake.params.settings),
        slots=list(map(Path, snakemake.input.slots)),
        work_dir=Path(snakemake.params.work),
        manifest=Path(snakemake.input.manifest),
        best=Path(snakemake.output.best),
        trials=Path(snakemake.output.trials),
        plots={
            name: Path(file)
            for name, file in snakemake.output.items()
            if name not in ("best", "trials")
        },
        confirmations=list(map(Path, snakemake.input.confirmations)),
    )
