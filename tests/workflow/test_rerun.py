"""Results are extended, not made again: which jobs run is counted, what exists keeps its bytes, and
status agrees with the plan.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest
import yaml
from chain import BIN, PATIENCE_S, ROOT, environment, planned_jobs
from test_kill import job_process

SHARD_STAGES = ("sim", "dataset", "select")
SMALLER = {"8000": "8", "6000": "36"}  # numbers of docs/rerunning.md in the tiny chain


def documented():
    """Return (command, rules that run) of each row of the table of tasks."""
    text = (ROOT / "docs/rerunning.md").read_text().split("## I want to")[1].split("\n## ")[0]
    rows = [
        re.split(r" \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("|")
    ][2:]
    return [(command.strip("`"), set(re.findall(r"`(\w+)`", runs))) for _, command, runs in rows]


def status(chain, *arguments, detector="clic"):
    done = subprocess.run(
        [BIN / "particleforge", "status", "--preset", "tiny", "--detector", detector, *arguments],
        cwd=chain.folder,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def jobs_of(text):
    """Return the jobs per rule that a status announces."""
    announced = re.search(r"^\d+ jobs to run: ([\w ,\n]+)", text, flags=re.MULTILINE)
    return (
        {
            rule: int(count)
            for rule, count in re.findall(r"(\w+) (\d+)(?:,|\n)", announced[1].split("\n\n")[0])
        }
        if announced
        else {}
    )


def row(text, stage, detector="clic"):
    """Return outputs, jobs to run and reasons of one stage."""
    return re.search(
        rf"^{detector} +{stage} +(\d+/\d+) +(\S+) *(.*)$", text, flags=re.MULTILINE
    ).groups()


def shard_files(chain):
    """Return bytes and modification time of every file of a shard."""
    files = [path for stage in SHARD_STAGES for path in sorted((chain.results / stage).glob("*/*"))]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def everything(chain):
    return {path: path.stat().st_mtime_ns for path in chain.folder.rglob("*")}


def edit_detector(chain, change):
    path = chain.folder / "config/detectors/clic.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.parametrize(
    ("command", "rules"), documented(), ids=[command for command, _ in documented()]
)
def test_documented_commands_run_what_the_table_says(chain, command, rules):
    for number, smaller in SMALLER.items():
        command = command.replace(number, smaller)
    words = shlex.split(command)
    cut = words.index("--config") if "--config" in words else len(words)
    assert set(chain.planned(*words[:cut], config=tuple(words[cut + 1 :]))) - {words[0]} == rules


def test_each_stage_runs_alone_where_all_before_it_exists(chain, tmp_path):
    copy = chain.copy(tmp_path / "run")
    stages = {
        "validate": ("validate", {"validate_model"}),
        "train": ("train", {"train_model"}),
        "hpo": ("hpo", {"run_hpo_slot", "select_best_trial"}),
        "preprocess": ("shards", {"write_shards"}),
        "check_data": (
            "checks",
            {"check_dataset", "compare_samples", "write_shards", "check_shards"},
        ),
        "dataset": ("dataset", {"build_dataset"}),
    }
    for target, (
        folder,
        rules,
    ) in stages.items():  # from the last on, so that what comes before is there
        shutil.rmtree(copy.results / folder)
        assert set(copy.planned(target)) - {target} == rules


def test_a_new_sample_and_more_shards_leave_existing_files_alone(chain, tmp_path):
    def grow(content):
        samples = content["samples"]
        samples["more_qq"] = {**samples["qq"], "label": "more", "fraction": 1 / 3}
        samples["qq"]["fraction"] = samples["ww"]["fraction"] = 2 / 3

    copy = chain.copy(tmp_path / "run")
    before = shard_files(copy)
    edit_detector(copy, grow)
    # a third shard of ttbar, one of the new sample
    larger = ("simulation={events_per_sample: 36}",)
    done = planned_jobs(copy.run("select", config=larger))
    assert done == {
        "simulate_events": 2,
        "build_dataset": 2,
        "select_events": 2,
        "gather_cutflows": 1,
        "select": 1,
    }
    after = shard_files(copy)
    assert {path: after[path] for path in before} == before
    made = {
        str(path.relative_to(copy.results))
        for path in set(after) - set(before)
        if path.suffix in (".root", ".parquet")
    }
    assert made == {
        f"{stage}/{shard}.{'root' if stage == 'sim' else 'parquet'}"
        for stage in SHARD_STAGES
        for shard in ("ttbar/00002", "more_qq/00000")
    }
    rest = copy.planned(config=larger)
    assert not set(rest) & {"simulate_events", "build_dataset", "select_events", "gather_cutflows"}
    assert (rest["write_shards"], rest["run_hpo_slot"], rest["reconstruct_events"]) == (1, 3, 8)
    assert jobs_of(status(copy, "--set", "simulation.events_per_sample=36")) == rest


def test_a_longer_final_training_goes_on_from_its_checkpoint(chain, tmp_path):
    copy = chain.copy(tmp_path / "run")
    done = planned_jobs(copy.run("train", config=("training={max_steps: 8}",)))
    assert done == {"train_model": 1, "train": 1}
    log = (copy.results / "logs/train_model.log").read_text()
    assert "step 4 of 8 is there already; going on from it" in log
    rows = pq.read_table(chain.results / "train/metrics.parquet").to_pylist()
    longer = pq.read_table(copy.results / "train/metrics.parquet").to_pylist()
    assert [row for row in longer if row["step"] <= 4] == rows, (
        "speeds too, so these steps were not made again"
    )
    assert max(row["step"] for row in longer) == 8


def test_status_of_finished_results_writes_nothing(chain):
    before = everything(chain)
    text = status(chain)
    assert everything(chain) == before
    assert text.splitlines()[-1] == "nothing to run"
    assert row(text, "reconstruct") == ("12/12", "-", "")


def test_status_and_plan_agree_on_files_that_changed_and_name_the_log_of_a_failure(chain, tmp_path):
    copy = chain.copy(tmp_path / "run")
    (copy.results / "sim/ww/00000.root").write_bytes(b"something else")
    (copy.results / "select/ttbar/00000.parquet").unlink()
    (copy.results / "sim/ttbar/00001.root").unlink()
    os.utime(copy.results / "sim/qq/00001.root", (1, 1))
    text = status(copy)
    assert jobs_of(text) == copy.planned()
    assert row(text, "simulate") == (
        "5/6",
        "1",
        "1 its script or rule changed, 1 missing, but not needed",
    )
    assert row(text, "dataset") == ("6/6", "2", "1 after simulate, 1 newer input from simulate")
    assert row(text, "select")[:2] == ("13/14", "4")
    assert "1 missing" in row(text, "select")[2]
    assert row(text, "preprocess") == ("5/5", "1", "after select")
    copy.run("results/clic/dataset/ww/00000.parquet", check=False)
    text = status(copy)
    assert jobs_of(text) == copy.planned()
    assert "1 failed" in row(text, "dataset")[2]
    assert re.search(
        r"^failed: build_dataset, results/clic/logs/build_dataset/ww/00000\.log: .*00000\.root",
        text,
        flags=re.MULTILINE,
    )


def test_status_and_plan_agree_on_settings_and_samples_that_changed(chain, tmp_path):
    copy = chain.copy(tmp_path / "run")
    edit_detector(copy, lambda content: content["samples"].pop("ww"))
    text = status(copy, "--set", "export.opset=21")
    assert jobs_of(text) == copy.planned(config=("export={opset: 21}",))
    assert row(text, "simulate") == ("4/4", "-", "")
    assert row(text, "select")[2].startswith("settings: samples.ww: ")
    assert row(text, "check_data")[2].startswith("1 other input files than before")
    assert row(text, "preprocess")[2] == "after check_data"
    text = status(chain, "--set", "export.opset=21", "--set", "validation.n_bootstrap=11")
    assert re.fullmatch(r"settings: export\.opset: \d+ -> 21", row(text, "export")[2])
    assert row(text, "validate")[2] == "after reconstruct"


def test_status_of_two_detectors_wants_nothing_of_the_finished_one(chain):
    text = status(chain, detector="clic,cld")
    assert (
        jobs_of(text)
        == chain.planned(config=("detector=[clic, cld]",))
        == chain.planned(config=("detector=cld",))
    )
    assert row(text, "simulate") == ("6/6", "-", "")
    assert row(text, "simulate", "cld")[2] == "missing"


def test_status_sees_a_workflow_at_work_and_one_that_was_killed(chain, tmp_path):
    copy = chain.copy(tmp_path / "run")
    command = copy.command("-R", "build_report")
    started = {
        "cwd": copy.folder,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": environment(),
    }
    workflow = subprocess.Popen(command, start_new_session=True, **started)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while (
            job := job_process(workflow.pid, "build_report")
        ) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        job.suspend()
        before = everything(copy)
        text = status(copy)
        assert everything(copy) == before
        assert jobs_of(text) == copy.planned()
        assert row(text, "report") == ("0/1", "1", "unfinished")
        assert "unfinished: build_report, results/clic/logs/build_report.log" in text
        assert text.splitlines()[-1].startswith("locked: ")
    finally:
        os.killpg(workflow.pid, signal.SIGKILL)
        workflow.wait()
    assert row(status(copy), "report") == ("0/1", "1", "unfinished")


def test_status_of_three_detectors_fits_one_screen_and_needs_no_results(chain, tmp_path):
    shutil.copytree(chain.folder / "config", tmp_path / "config")
    new = type(chain)(tmp_path)
    text = status(new, detector="clic,cld,cms_like")
    # five more for logs of failures and a lock still make one screen
    assert len(text.splitlines()) <= 38
    assert max(map(len, text.splitlines())) <= 120
    assert [path.name for path in tmp_path.iterdir()] == ["config"]
