"""What docs/sites.md says that the plugin for Slurm makes of the states of jobs.

Its function that looks at jobs runs here on answers of our own. A job that it neither hands back
nor reports is one that it never looks at again.
"""

import asyncio
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin

ROOT = Path(__file__).parents[2]
JOB = SimpleNamespace(external_jobid="7", aux={"slurm_logfile": None})
ATTEMPTS = 3
Answer = dict[str, str] | None  # states by job, or no answer


class NoLimit:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        pass


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that looks at the job once and returns what became of it."""

    def once(*answers: Answer, requeue: bool = True, preempted_before: bool = False) -> str:
        told = iter(answers)

        async def answer(*_: object) -> tuple[Answer, float | None]:
            found = next(told)
            return found, None if found is None else 0.1

        monkeypatch.setattr(plugin, "query_job_status", answer)
        monkeypatch.setattr(plugin, "get_min_job_age", lambda: 300)
        monkeypatch.setattr(plugin, "is_query_tool_available", lambda _: False)
        found: list[str] = []
        settings = SimpleNamespace(
            status_attempts=ATTEMPTS, init_seconds_before_status_checks=20, requeue=requeue
        )
        executor = SimpleNamespace(
            workflow=SimpleNamespace(executor_settings=settings),
            logger=logging.getLogger("unheard"),
            **{"run_uuid": "run", "status_rate_limiter": NoLimit()},
            **{"get_status_command": lambda: "squeue", "next_seconds_between_status_checks": 20},
            **{"_status_query_calls": 0, "_status_query_failures": 0},
            **{"_status_query_total_seconds": 0.0, "_status_query_min_seconds": None},
            **{"_status_query_max_seconds": 0.0, "_status_query_cycle_rows": []},
            **{"_preemption_warning": preempted_before, "_failed_nodes": set()},
            report_job_success=lambda job: found.append("succeeded"),
            report_job_error=lambda job, **_: found.append("failed"),
        )

        async def collect() -> None:
            looked = plugin.Executor.check_active_jobs(executor, [JOB])
            found.extend(["kept" async for _ in looked])

        asyncio.run(collect())
        return " ".join(found) or "forgotten"

    return once


def test_a_job_is_forgotten_when_no_query_is_answered(look: Any) -> None:
    assert look(None, None, {"7": "RUNNING"}) == "kept"
    assert look(None, None, None) == "forgotten"


@pytest.mark.parametrize("preempted_before", [False, True])
def test_a_preempted_job_is_waited_for(look: Any, preempted_before: bool) -> None:
    assert look({"7": "PREEMPTED"}, preempted_before=preempted_before) == "kept"


def test_a_job_whose_node_failed_is_left_to_slurm_if_it_requeues(look: Any) -> None:
    assert look({"7": "NODE_FAIL"}) == "kept"
    assert look({"7": "NODE_FAIL"}, requeue=False) == "failed"


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "TIMEOUT", "CANCELLED", "FAILED"])
def test_states_of_a_failed_job(look: Any, state: str) -> None:
    assert look({"7": state}) == "failed"


def test_a_job_that_slurm_does_not_name_is_waited_for(look: Any) -> None:
    assert look({}) == "kept"


def test_the_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs/sites.md").read_text(encoding="utf-8")
    named = re.findall(r"`(slurm/test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 5
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test
