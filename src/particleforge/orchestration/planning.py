"""What Snakemake would do in the working folder; the one user of its names that are not public.

Inputs -> outputs: a Snakefile, the working folder and overrides of the configuration -> ``Plan``:
every job with outputs, whether it would run, and why.

Snakemake's public ways (a dry run, a summary, logger plugins) tell reasons as words, of jobs to run
only, and make folders below ``.snakemake``. The names used here hold for ``VERSIONS``;
``tests/workflow/test_planning.py`` goes through them, and fails with any other Snakemake.

Invariant: nothing is written below the working folder and nothing locked, also while a workflow
runs. Snakemake keeps its records in a scratch folder here; only what it reads of them (finished and
unfinished jobs, locks) is that of the working folder.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particleforge.errors import UserError

VERSIONS = ("9.27",)  # of Snakemake, without the number of the patch
GIVEN = "given files"  # what no rule makes
_RECORDS = ("_metadata_path", "_incomplete_path", "_lockdir")


@dataclass(frozen=True)
class Reason:
    """Why Snakemake makes a job again whose outputs are there.

    ``newer`` and ``after`` name the last stage that makes some of the inputs which are newer, or
    will be; ``GIVEN`` if none does. ``settings`` are the parameters before and now that differ,
    each as its ``repr``.
    """

    newer: str = ""
    settings: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    other_inputs: bool = False
    other_code: bool = False
    after: str = ""


@dataclass(frozen=True)
class Job:
    """A job with outputs; ``is_begun`` if it was started and has not ended.

    Its stage is the name of the file that its rule stands in.
    """

    rule: str
    stage: str
    wildcards: Mapping[str, str]
    outputs: tuple[Path, ...]
    log: Path
    is_begun: bool
    is_due: bool
    reason: Reason


@dataclass(frozen=True)
class Plan:
    """The jobs, in order of the rules and of their outputs, and whether the folder is locked."""

    jobs: tuple[Job, ...]
    is_locked: bool


def read_plan(snakefile: Path, overrides: Mapping[str, Any]) -> Plan:
    """Return the plan of the working folder; a workflow that cannot be planned is a UserError."""
    with _graph(snakefile, overrides) as graph:
        order = [rule.name for rule in graph.workflow.rules]
        due = set(graph.needrun_jobs())
        jobs = [_job(graph, job, order, job in due) for job in graph.jobs if job.output]
        jobs.sort(key=lambda job: (order.index(job.rule), str(job.outputs[0])))
        return Plan(tuple(jobs), graph.workflow.persistence.locked)


def _job(graph: Any, job: Any, order: list[str], is_due: bool) -> Job:
    records = graph.workflow.persistence
    return Job(
        rule=job.rule.name,
        stage=_stage(job),
        wildcards=dict(job.wildcards.items()),
        outputs=tuple(map(Path, job.output)),
        log=Path(job.log[0]),
        is_begun=bool(  # the public form passes over absent files
            records._filter_incomplete_keys([records._get_key(path) for path in job.output])
        ),
        is_due=is_due,
        reason=_reason(graph, job, order),
    )


def _stage(job: Any) -> str:
    return Path(job.rule.snakefile).stem


def _reason(graph: Any, job: Any, order: list[str]) -> Reason:
    found = graph.reason(job)

    def last_maker(files: set[str]) -> str:
        if not files:
            return ""
        makers = [m for m, made in graph.dependencies[job].items() if not files.isdisjoint(made)]
        last = max(makers, key=lambda maker: order.index(maker.rule.name), default=None)
        return _stage(last) if last else GIVEN

    return Reason(
        newer=last_maker(found.updated_input),
        settings=(
            tuple(sorted(found.params_changed.only_old)),
            tuple(sorted(found.params_changed.only_new)),
        ),
        other_inputs=bool(found.input_changed),
        other_code=bool(found.code_changed),
        after=last_maker(found.updated_input_run),
    )


@contextmanager
def _graph(snakefile: Path, overrides: Mapping[str, Any]) -> Iterator[Any]:
    """Yield Snakemake's graph of jobs; its errors become UserErrors."""
    from snakemake import api
    from snakemake.exceptions import RuleException, WorkflowError
    from snakemake.settings import types as settings
    from snakemake.settings.enums import Quietness, RerunTrigger

    output = settings.OutputSettings(
        dryrun=True, quiet={Quietness.RULES, Quietness.PROGRESS}, log_level_override=logging.ERROR
    )
    # not the software environment: whether a site's profile runs jobs in containers is unknown here
    triggers = RerunTrigger.all() - {RerunTrigger.SOFTWARE_ENV}
    try:
        with tempfile.TemporaryDirectory() as scratch, api.SnakemakeApi(output) as snakemake:
            planned = snakemake.workflow(
                settings.ResourceSettings(cores=1),
                settings.ConfigSettings(config=dict(overrides)),
                snakefile=snakefile.absolute(),
            )
            planned.dag(settings.DAGSettings(force_incomplete=True, rerun_triggers=triggers))
            workflow = planned._workflow
            with chdir(scratch):  # it makes its folders of records where it stands
                workflow._prepare_dag(forceall=False, ignore_incomplete=False, lock_warn_only=True)
            for name in _RECORDS:
                own = Path(".snakemake", Path(getattr(workflow.persistence, name)).name)
                if own.is_dir():
                    setattr(workflow.persistence, name, str(own.absolute()))
            workflow._build_dag()
            yield workflow.dag
    except (WorkflowError, RuleException) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{snakefile}: the workflow cannot be planned: {told}") from error
