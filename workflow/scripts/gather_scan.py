"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import ScanSettings
from particleforge.logs import job_log
from particleforge.scans.gather import gather_scan

with job_log(snakemake.log[0]):
    gather_scan(
        ScanSettings.model_validate(snakemake.params.settings),
        snakemake.wildcards.scan,
        points=list(map(Path, snakemake.input)),
        summary=Path(snakemake.output.summary),
        table=Path(snakemake.output.table),
        plots=Path(snakemake.output.plots),
    )
