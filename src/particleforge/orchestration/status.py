"""What exists, what is stale and why, and what would run: the answer of ``particleforge status``,
in one screen.

Inputs -> outputs: the Snakefile, the working folder and overrides of the configuration -> a table
with one row per detector and stage, the jobs per rule that a run would start, and the logs of those
that failed or were stopped.

Snakemake decides what is stale: its Python API plans a dry run, with the settings of the shipped
profiles, and its reasons are put into words. So status and ``snakemake -n`` agree. Once a job has a
reason to run, Snakemake looks for no other in the jobs that follow from it; those are "after" it
here.

Invariant: nothing is written below the working folder and nothing locked, also while a workflow
runs.
"""

import ast
import logging
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from particleforge.config.home import find_config_dir
from particleforge.config.load import differences, load_run
from particleforge.errors import UserError
from particleforge.logs import ended_well, last_error

_WIDTH = 120
_LOGS_SHOWN = 3
_CHANGES_SHOWN = 3
_FAILED, _UNFINISHED, _MISSING = "failed", "unfinished", "missing"


@dataclass
class StageStatus:
    """One stage of one detector: output files that exist and that should, jobs to run, and how many
    of these for which reason.
    """

    made: int = 0
    expected: int = 0
    to_run: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def why(self) -> str:
        """Return the reasons, with the number of jobs if there are several."""
        if len(self.reasons) == 1:
            return next(iter(self.reasons))
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())


@dataclass
class Status:
    """State of a working folder: stages by (detector, name), jobs to run by rule, and a line for
    each job that went wrong.
    """

    stages: dict[tuple[str, str], StageStatus] = field(default_factory=dict)
    jobs: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    locked: bool = False

    def text(self) -> str:
        """Return the status as lines for a terminal."""
        rows = [("detector", "stage", "outputs", "to run", "why")]
        for (detector, stage), found in self.stages.items():
            rows.append(
                (
                    detector,
                    stage,
                    f"{found.made}/{found.expected}",
                    str(found.to_run or "-"),
                    found.why(),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                (
                    d.ljust(widths[0]),
                    s.ljust(widths[1]),
                    o.rjust(widths[2]),
                    n.rjust(widths[3]),
                    why,
                )
            )
            for d, s, o, n, why in rows
        ]
        counted = ", ".join(f"{rule}\N{NO-BREAK SPACE}{count}" for rule, count in self.jobs.items())
        summary = f"{self.jobs.total()} jobs to run: {counted}" if self.jobs else "nothing to run"
        lines += [
            line.replace("\N{NO-BREAK SPACE}", " ")
            for line in textwrap.wrap(summary, _WIDTH, subsequent_indent="  ")
        ]
        lines += self.troubles[:_LOGS_SHOWN]
        if len(self.troubles) > _LOGS_SHOWN:
            lines.append(
                f"and {len(self.troubles) - _LOGS_SHOWN} more that failed or did not finish"
            )
        if self.locked:
            lines.append(
                "locked: a workflow is at work here; if none is, one was killed, and `snakemake"
                " --unlock` frees the folder"
            )
        return "\n".join(
            line.rstrip() if len(line) <= _WIDTH else f"{line[: _WIDTH - 4]} ..." for line in lines
        )


def read_status(snakefile: Path, overrides: Mapping[str, Any]) -> Status:
    """Return the status of the working folder, with ``overrides`` laid over its configuration.

    UserError if there is no such Snakefile, the configuration is wrong or the workflow cannot be
    planned.
    """
    if not snakefile.is_file():
        raise UserError(
            f"--snakefile {snakefile}: no such file; give the Snakefile of the workflow"
        )
    run = load_run(find_config_dir(Path("config"), snakefile.parent / "config"), overrides, "--set")
    with _planned(snakefile, overrides) as dag:
        status, to_run = Status(locked=dag.workflow.persistence.locked), set(dag.needrun_jobs())
        rules = {rule.name: number for number, rule in enumerate(dag.workflow.rules)}
        # the report may show a scan that starts from another detector
        order = [
            *run.detector,
            run.scans.fine_tuning.from_detector,
        ]
        jobs = [
            (order.index(job.wildcards.detector), rules[job.rule.name], str(job.output[0]), job)
            for job in dag.jobs
            if job.output
        ]
        for *_, job in sorted(jobs, key=lambda entry: entry[:3]):
            stage = status.stages.setdefault((job.wildcards.detector, _stage(job)), StageStatus())
            absent = [path for path in job.output if not Path(path).exists()]
            stage.expected += len(job.output)
            stage.made += len(job.output) - len(absent)
            reason = ""
            if absent or dag.reason(job).forced:
                reason = _state(dag, job)
                if reason != _MISSING:
                    status.troubles.append(
                        f"{reason}: {job.rule.name}, {job.log[0]}: {last_error(job.log[0])}".removesuffix(
                            ": "
                        )
                    )
            if job in to_run:
                status.jobs[job.rule.name] += 1
                stage.to_run += 1
                stage.reasons[reason or _change(dag, job)] += 1
            elif reason:  # what is made of it exists and is not older than what it was made from
                stage.reasons[f"{reason}, but not needed"] += 1
    return status


def _stage(job: Any) -> str:
    """Return a job's stage: each has a file of rules."""
    return Path(job.rule.snakefile).stem


def _state(dag: Any, job: Any) -> str:
    """Return what is known of a job whose outputs are not all there: was it stopped, did it fail,
    or has it not been run?
    """
    records = dag.workflow.persistence
    if records._filter_incomplete_keys(
        [records._get_key(path) for path in job.output]
    ):  # the public form passes over absent files
        return _UNFINISHED
    return _FAILED if Path(job.log[0]).exists() and not ended_well(job.log[0]) else _MISSING


def _change(dag: Any, job: Any) -> str:
    """Return in words why Snakemake makes a job again whose outputs are there."""
    reason = dag.reason(job)
    if reason.updated_input:
        return f"newer input from {_last_origin(dag, job, reason.updated_input)}"
    if reason.params_changed:
        return f"settings: {_changed_settings(reason.params_changed)}"
    if reason.input_changed:
        return "other input files than before"
    if reason.code_changed:
        return "its script or rule changed"
    return f"after {_last_origin(dag, job, reason.updated_input_run)}"


def _last_origin(dag: Any, job: Any, files: set[str]) -> str:
    """Return the last stage, in order of the rules, that makes some of a job's inputs."""
    rules = [rule.name for rule in dag.workflow.rules]
    makers = [maker for maker, made in dag.dependencies[job].items() if not files.isdisjoint(made)]
    return _stage(max(makers, key=lambda maker: rules.index(maker.rule.name)))


def _changed_settings(change: Any) -> str:
    """Return which settings changed; Snakemake keeps parameters as their ``repr``."""
    if len(change.only_old) != 1 or len(change.only_new) != 1:
        return "changed"
    old, new = (
        ast.literal_eval(next(iter(values))) for values in (change.only_old, change.only_new)
    )
    changes = (
        differences(old, new)
        if isinstance(old, Mapping) and isinstance(new, Mapping)
        else [f"{old} -> {new}"]
    )
    return "; ".join(changes[:_CHANGES_SHOWN]) + ("; ..." if len(changes) > _CHANGES_SHOWN else "")


@contextmanager
def _planned(snakefile: Path, overrides: Mapping[str, Any]) -> Iterator[Any]:
    """Yield Snakemake's graph of jobs after a dry run; WorkflowErrors become UserErrors."""
    from snakemake import api, workflow
    from snakemake.exceptions import WorkflowError
    from snakemake.settings import types as settings
    from snakemake.settings.enums import Quietness, RerunTrigger

    class Records(workflow.FilePersistence):  # type: ignore[misc]
        """Snakemake's records of finished jobs, without what a dry run writes among them."""

        def __init__(self, **options: Any) -> None:
            known = Path(".snakemake/metadata").is_dir()
            super().__init__(**(options if known else {**options, "path": Path(scratch)}))

        def save_iocache(self) -> None:
            """Keep nothing."""

    output = settings.OutputSettings(
        dryrun=True, quiet={Quietness.RULES, Quietness.PROGRESS}, log_level_override=logging.ERROR
    )
    # not the software environment: whether a site's profile runs jobs in containers is unknown here
    triggers = RerunTrigger.all() - {RerunTrigger.SOFTWARE_ENV}
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            patch.object(workflow, "FilePersistence", Records),
            api.SnakemakeApi(output) as snakemake,
        ):
            planned = snakemake.workflow(
                settings.ResourceSettings(cores=1),
                settings.ConfigSettings(config=dict(overrides)),
                snakefile=snakefile.absolute(),
            )
            plan = planned.dag(settings.DAGSettings(force_incomplete=True, rerun_triggers=triggers))
            plan.execute_workflow(executor="dryrun")
            yield planned._workflow.dag
    except WorkflowError as error:
        raise UserError(f"{snakefile}: the workflow cannot be planned: {error}") from error
