"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import SimulateSettings
from particleforge.logs import job_log
from particleforge.simulation.simulate import simulate_events

with job_log(snakemake.log[0]):
    simulate_events(
        SimulateSettings.model_validate(snakemake.params.settings),
        snakemake.wildcards.shard,
        Path(snakemake.output[0]),
    )
