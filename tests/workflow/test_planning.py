"""The contract of ``orchestration.planning`` with Snakemake, whose own names it uses.

After an upgrade of Snakemake see what fails here, mend it, and add the version to
``planning.VERSIONS``.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from importlib.metadata import version

import pytest
from chain import BIN, PATIENCE_S, ROOT, environment

from particleforge.errors import UserError
from particleforge.orchestration.planning import GIVEN, VERSIONS, Reason, read_plan

SNAKEFILE = """
include: "stage.smk"
include: "begin.smk"
rule all:
    input: "c/x.txt",
"""
RULES = """
rule last:
    input: "b/x.txt", "given.txt",
    output: "c/x.txt",
    log: "logs/last.log",
    shell: "cat {input} > {output} 2> {log}"

rule second:
    input: expand("a/{name}.txt", name=config.get("names", ["x", "y"])),
    output: "b/{detector}.txt",
    params: settings={"depth": config.get("depth", 1)},
    log: "logs/second_{detector}.log",
    shell: "cat {input} > {output} 2> {log}"
"""
FIRST_RULE = """
rule first:
    output: "a/{name}.txt",
    log: "logs/first_{name}.log",
    shell: "SHELL > {output} 2> {log}"
"""
AGAIN = Reason(after="stage")


def write_rules(folder, shell="echo 1"):
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "stage.smk").write_text(RULES)
    (folder / "begin.smk").write_text(FIRST_RULE.replace("SHELL", shell))


def new_folder(folder):
    folder.mkdir()
    write_rules(folder)
    (folder / "given.txt").touch()
    return folder


def snakemake(folder):
    command = [BIN / "snakemake", "--cores", "1", "--quiet", "all"]
    pipe = subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, start_new_session=True
    )


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def planned(folder, **overrides):
    """Return the plan, and the reasons of the jobs that are due by their first output."""
    before = everything(folder)
    plan = read_plan(folder / "Snakefile", overrides)
    assert everything(folder) == before
    return plan, {str(job.outputs[0]): job.reason for job in plan.jobs if job.is_due}


@pytest.fixture
def new(tmp_path, monkeypatch):
    """A working folder where nothing has run."""
    folder = new_folder(tmp_path / "new")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = new_folder(tmp_path_factory.mktemp("planning") / "run")
    assert snakemake(folder).wait(PATIENCE_S) == 0
    return folder


@pytest.fixture
def finished(once, tmp_path, monkeypatch):
    """A working folder where all has run."""
    folder = tmp_path / "finished"
    shutil.copytree(once, folder)
    monkeypatch.chdir(folder)
    return folder


def test_it_holds_for_the_pinned_and_the_installed_snakemake():
    pinned = re.search(
        r"^snakemake==(.+)$", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE
    )
    for found in (pinned[1], version("snakemake")):
        assert found.rpartition(".")[0] in VERSIONS, (
            f"Snakemake {found}: orchestration/planning.py was not tried with it; see this file"
        )


def test_where_nothing_has_run_all_is_due_and_no_folder_is_made(new):
    plan, due = planned(new)
    assert list(due) == ["c/x.txt", "b/x.txt", "a/x.txt", "a/y.txt"]
    assert not plan.is_locked
    job = plan.jobs[-1]
    assert (job.rule, job.stage, job.wildcards) == ("first", "begin", {"name": "y"})
    assert (str(job.log), job.is_begun) == ("logs/first_y.log", False)


def test_where_all_has_run_nothing_is_due(finished):
    plan, due = planned(finished)
    assert (len(plan.jobs), due, plan.is_locked) == (4, {}, False)


def test_parameters_are_told_as_they_were_and_are(finished):
    _, due = planned(finished, depth=3)
    assert due == {
        "b/x.txt": Reason(settings=(("{'depth': 1}",), ("{'depth': 3}",))),
        "c/x.txt": AGAIN,
    }


def test_other_inputs_are_told(finished):
    assert planned(finished, names=["x"])[1] == {
        "b/x.txt": Reason(other_inputs=True),
        "c/x.txt": AGAIN,
    }


def test_another_rule_is_told(finished):
    write_rules(finished, "echo 2")
    assert planned(finished)[1] == {
        "a/x.txt": Reason(other_code=True),
        "a/y.txt": Reason(other_code=True),
        "b/x.txt": Reason(after="begin"),
        "c/x.txt": AGAIN,
    }


@pytest.mark.parametrize(("file", "maker"), [("b/x.txt", "stage"), ("given.txt", GIVEN)])
def test_a_newer_input_is_told_with_what_makes_it(finished, file, maker):
    (finished / file).write_text("edited")
    newest = max(everything(finished).values()) + 10**9
    os.utime(finished / file, ns=(newest, newest))
    assert planned(finished)[1] == {"c/x.txt": Reason(newer=maker)}


def test_a_job_at_work_is_begun_and_locks_the_folder(finished):
    write_rules(finished, "sleep 600; echo 2")
    workflow = snakemake(finished)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (begun := list((finished / ".snakemake/incomplete").iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        plan, due = planned(finished)
        assert plan.is_locked
        assert len(begun) == 1
        assert [job.rule for job in plan.jobs if job.is_begun] == ["first"]
        assert set(due) == {"a/x.txt", "a/y.txt", "b/x.txt", "c/x.txt"}
    finally:
        os.killpg(workflow.pid, signal.SIGKILL)
        workflow.wait()


def test_a_workflow_that_cannot_be_planned_is_one_line(new):
    (new / "begin.smk").write_text("")
    with pytest.raises(UserError, match=r"Snakefile: the workflow cannot be planned: Missing"):
        planned(new)
