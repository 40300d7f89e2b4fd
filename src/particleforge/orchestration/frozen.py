"""The configuration and code of a run are frozen when it starts.

A job on a cluster parses the Snakefile anew when it starts, which may be days after the head of the
run did. It takes its configuration from what the head wrote down (``provenance.started``), not from
the files of that day, and its script compares the code.

Jobs learn of it through a key of ``--config`` that the head adds, since Snakemake hands
``--config`` to the jobs of every executor. Nothing is written before the run starts, so dry runs
and ``particleforge status`` leave no trace.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import validate
from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.provenance.started import TICKET_VARIABLE, Started, check_code, read_started

_KEY = "ticket_of_run"  # in --config of jobs


def frozen_configuration(
    overrides: Mapping[str, Any],
) -> tuple[RunConfig, dict[str, DetectorConfig]] | None:
    """Return what the run of this job was started with, by its ``--config``; None in the head.

    UserError if that run is over, or the code no longer understands it.
    """
    if _KEY not in overrides:
        return None
    ticket = os.environ[TICKET_VARIABLE] = str(overrides[_KEY])
    config = read_started(ticket)["config"]
    try:
        run = validate(RunConfig, config["run"], ticket)
        detectors = {
            name: validate(DetectorConfig, content, ticket)
            for name, content in config["detectors"].items()
        }
    except UserError:
        check_code()  # says more, if other code is why
        raise
    return run, detectors


def freeze(
    run: RunConfig, detectors: Mapping[str, DetectorConfig], snakemake_workflow: Any
) -> Started | None:
    """Take down what a run is started with, and let Snakemake hand the ticket to its jobs.

    Nothing in a job, which has its ticket.
    """
    settings = snakemake_workflow.config_settings
    if not snakemake_workflow.is_main_process:
        if _KEY not in settings.config:
            raise UserError(
                f"--config: lacks {_KEY}, which the head of a run gives to its jobs; use a version"
                " of Snakemake and an executor that hand --config on"
            )
        return None
    config = {
        "run": run.model_dump(mode="json"),
        "detectors": {name: found.model_dump(mode="json") for name, found in detectors.items()},
    }
    started = Started(run.results_dir, config, _workflow_files(snakemake_workflow))
    settings.config_args = [*settings.config_args, f"{_KEY}={started.ticket!r}"]
    return started


def _workflow_files(snakemake_workflow: Any) -> list[Path]:
    """Return the Snakefile, the files of rules beside those included so far, and the scripts."""
    included = [Path(f.get_path_or_uri(secret_free=True)) for f in snakemake_workflow.included]
    folders = dict.fromkeys(file.parent for file in included)
    rules = [file for folder in folders for file in folder.glob("*.smk")]
    homes = [folder.parent for folder in folders if folder.name == "rules"]
    scripts = [file for home in homes for file in (home / "scripts").glob("*.py")]
    return sorted({*included, *rules, *scripts})
