"""What exists, what is stale and why, and what would run: ``particleforge status``.

Inputs -> outputs: the Snakefile, the working folder and overrides of the configuration -> a table
with one row per detector and stage, the jobs per rule that a run would start, and the logs of those
that failed or were stopped, in one screen.

Snakemake decides what is stale: it plans (``planning``) as for a dry run, with the settings of the
shipped profiles, and its reasons are put into words. So status and ``snakemake -n`` agree. Once a
job has a reason to run, Snakemake looks for no other in the jobs that follow from it; those are
"after" it here.

Invariant: nothing is written below the working folder and nothing locked, also while a workflow
runs.
"""

import ast
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from particleforge.config.home import find_config_dir
from particleforge.config.load import differences, load_run
from particleforge.errors import UserError
from particleforge.logs import ended_well, last_error
from particleforge.orchestration.planning import Job, Reason, read_plan
from particleforge.pages.terminal import table_lines

_WIDTH = 120
_LOGS_SHOWN = 3
_CHANGES_SHOWN = 3
_FAILED, _UNFINISHED, _MISSING = "failed", "unfinished", "missing"


@dataclass
class StageStatus:
    """One stage of one detector: outputs made and expected, jobs to run and why."""

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
    """State of a working folder.

    Stages by (detector, name), jobs to run by rule, and a line for each job that went wrong.
    """

    stages: dict[tuple[str, str], StageStatus] = field(default_factory=dict)
    jobs: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    locked: bool = False

    def text(self) -> str:
        """Return the status as lines for a terminal."""
        rows = [("detector", "stage", "outputs", "to run", "why")]
        for (detector, stage), found in self.stages.items():
            outputs = f"{found.made}/{found.expected}"
            rows.append((detector, stage, outputs, str(found.to_run or "-"), found.why()))
        lines = table_lines(rows, right={2, 3})
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
    plan = read_plan(snakefile, overrides)
    status = Status(locked=plan.is_locked)
    # the report may show a scan that starts from another detector
    order = [*run.detector, run.scans.fine_tuning.from_detector]
    for job in sorted(plan.jobs, key=lambda job: order.index(job.wildcards["detector"])):
        stage = status.stages.setdefault((job.wildcards["detector"], job.stage), StageStatus())
        absent = [path for path in job.outputs if not path.exists()]
        stage.expected += len(job.outputs)
        stage.made += len(job.outputs) - len(absent)
        reason = _state(job) if absent or job.is_begun else ""
        if reason not in ("", _MISSING):
            line = f"{reason}: {job.rule}, {job.log}: {last_error(job.log)}"
            status.troubles.append(line.removesuffix(": "))
        if job.is_due:
            status.jobs[job.rule] += 1
            stage.to_run += 1
            stage.reasons[reason or _change(job.reason)] += 1
        elif reason:  # what is made of it exists and is not older than what it was made from
            stage.reasons[f"{reason}, but not needed"] += 1
    return status


def _state(job: Job) -> str:
    """Return what is known of a job whose outputs are not all there: stopped, failed or not run."""
    if job.is_begun:
        return _UNFINISHED
    return _FAILED if job.log.exists() and not ended_well(job.log) else _MISSING


def _change(reason: Reason) -> str:
    """Return in words why Snakemake makes a job again whose outputs are there."""
    if reason.newer:
        return f"newer input from {reason.newer}"
    if any(reason.settings):
        return f"settings: {_changed_settings(*reason.settings)}"
    if reason.other_inputs:
        return "other input files than before"
    if reason.other_code:
        return "its script or rule changed"
    return f"after {reason.after}"


def _changed_settings(before: Sequence[str], now: Sequence[str]) -> str:
    """Return which settings changed."""
    if len(before) != 1 or len(now) != 1:
        return "changed"
    old, new = ast.literal_eval(before[0]), ast.literal_eval(now[0])
    changes = (
        differences(old, new)
        if isinstance(old, Mapping) and isinstance(new, Mapping)
        else [f"{old} -> {new}"]
    )
    return "; ".join(changes[:_CHANGES_SHOWN]) + ("; ..." if len(changes) > _CHANGES_SHOWN else "")
