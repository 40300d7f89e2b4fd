"""What made a file is taken down completely, the reproducible part apart from the circumstances."""

import ast
import json
import logging
import os
import re
import subprocess
from pathlib import Path

import pytest

from particleforge.artefacts import sha256
from particleforge.errors import UserError
from particleforge.provenance import record as provenance
from particleforge.provenance.record import (
    Provenance,
    checksum,
    list_checksum,
    read_record,
    record_of,
)

ROOT = Path(__file__).parents[2]


def on_slurm(monkeypatch, tmp_path):
    """Make this process look like a task of a job array on two nodes, restarted once."""
    for name, value in {
        "SLURM_JOB_ID": "77",
        "SLURM_ARRAY_JOB_ID": "70",
        "SLURM_ARRAY_TASK_ID": "3",
    }.items():
        monkeypatch.setenv(name, value)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(
        '#!/bin/sh\necho "JobId=$4 JobName=x ReqNodeList=(null) NodeList=n[1-2] Restarts=1'
        ' Comment=a=b"\n'
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    provenance._slurm_job.cache_clear()


@pytest.fixture(autouse=True)
def forget_the_job():
    yield
    provenance._slurm_job.cache_clear()
    provenance.environment_hash.cache_clear()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a" / "in.txt"
    path.parent.mkdir()
    path.write_text("data")
    return path


def test_what_lies_in_the_file_is_reproducible(source, tmp_path, monkeypatch):
    first = Provenance.of("stage", {"x": 1}, [source]).plain()
    monkeypatch.chdir(tmp_path / "a")
    assert Provenance.of("stage", {"x": 1}, ["../a/in.txt"]).plain() == first
    assert first["inputs"] == {"a/in.txt": sha256(source)}
    assert str(tmp_path) not in json.dumps(first)
    assert first["settings_hash"] != Provenance.of("stage", {"x": 2}).plain()["settings_hash"]


def test_a_file_names_what_the_package_needs_directly():
    lines = (ROOT / "requirements.in").read_text().splitlines()
    needed = [re.split("[=<>]", line)[0] for line in lines if not line.startswith("#")]
    assert list(provenance.PACKAGES) == ["particleforge", *needed]
    assert provenance.package_versions().keys() == {"python", *provenance.PACKAGES}


def test_the_whole_environment_is_in_the_record_only(source, tmp_path, monkeypatch):
    def made():
        provenance.environment_hash.cache_clear()
        Provenance.of("stage", {}).record(source)
        told = read_record(record_of(source))
        return told["circumstances"].pop("environment"), Provenance.of("stage", {}).plain()

    before = made()
    other = tmp_path / "site" / "unrelated-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: Unrelated\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(other.parent))
    after = made()
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert after[0] not in json.dumps(after[1])


def test_inputs_of_like_names_are_all_named(tmp_path):
    paths = [tmp_path / stage / "ttbar" / "00000.parquet" for stage in ("select", "reco")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(str(path))
    found = Provenance.of("stage", {}, [*paths, *paths]).plain()["inputs"]
    assert list(found) == ["select/ttbar/00000.parquet", "reco/ttbar/00000.parquet"]


def test_the_record_says_who_when_and_where(source, tmp_path, monkeypatch):
    on_slurm(monkeypatch, tmp_path)
    output = tmp_path / "out" / "out.txt"
    output.parent.mkdir()
    output.write_text("made")
    made = Provenance.of("stage", {"x": 1, "seed": 5}, [source], part={"shard": "00001"})
    made.record(output)
    record = read_record(record_of(output))
    assert record["inputs"] == [{"file": "../a/in.txt", "sha256": sha256(source)}]
    assert record["output"] == {"sha256": sha256(output)}
    assert record["seed"] == 5
    assert record["part"] == {"shard": "00001"}
    assert record["packages"]["python"]
    told = record["circumstances"]
    assert told["host"]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert told["git_commit"] == (head.stdout.strip() or "unknown")
    assert told["wall_time_s"] > 0
    expected = {
        "job_id": "77",
        "array_job_id": "70",
        "array_task_id": "3",
        "restart_count": "1",
        "node_list": "n[1-2]",
    }
    assert told["slurm"].items() >= expected.items()


def test_a_folder_has_the_checksum_of_its_list(tmp_path):
    folder = tmp_path / "plots"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "sub" / "a.txt").write_text("a")
    expected = checksum(folder)
    assert expected == list_checksum(
        {"sub/a.txt": sha256(folder / "sub/a.txt"), "b.txt": sha256(folder / "b.txt")}
    )
    listed = subprocess.run(
        ["sha256sum", "b.txt", "sub/a.txt"], cwd=folder, capture_output=True, check=True
    ).stdout
    (tmp_path / "list").write_bytes(listed)
    assert sha256(tmp_path / "list") == expected
    (folder / ".snakemake_timestamp").touch()
    assert checksum(folder) == expected
    (folder / "sub" / "a.txt").write_text("c")
    assert checksum(folder) != expected


def test_an_input_that_is_only_glanced_at_is_not_read(source):
    Provenance.of("first", {}).record(source)
    expected = checksum(source)
    os.truncate(source, 0)
    assert list(Provenance.of("second", {}, glanced_at=[source]).inputs.values()) == [expected]
    record_of(source).unlink()
    assert list(Provenance.of("second", {}, glanced_at=[source]).inputs.values()) == [
        checksum(source)
    ]


def test_a_broken_record_is_one_line(source):
    record_of(source).write_text("{")
    with pytest.raises(UserError, match=r"in\.txt\.provenance\.json: not readable as JSON"):
        Provenance.of("second", {}, glanced_at=[source])


def test_a_package_outside_of_its_repository_has_no_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    installed = tmp_path / "site-packages" / "provenance.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance._git_state.__wrapped__() == ("unknown", False)


def test_stages_are_called_as_their_rules():
    package = Path(provenance.__file__).parents[1]
    calls = [
        node
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Provenance.of"
    ]
    rules = [
        rule
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)
        if "    script:" in rule
    ]
    stages = {ast.literal_eval(call.args[0]) for call in calls}
    # the rule apply_model makes what reconstruct_events makes, of another input
    assert stages == {rule.partition(":")[0] for rule in rules} - {"apply_model"}


@pytest.mark.parametrize(
    ("events", "taken_s", "end"),
    [
        (1500, 31.4, r": 1,500 events, 12\.1 MB in 31 s$"),
        (None, 1500.0, r": 12\.1 MB in 25 min$"),
    ],
)
def test_one_line_says_what_was_made(source, caplog, monkeypatch, events, taken_s, end):
    caplog.set_level(logging.INFO, "particleforge")
    circumstances = {**provenance._circumstances(), "wall_time_s": taken_s}
    monkeypatch.setattr(provenance, "_circumstances", lambda: circumstances)
    folder = source.parent / "plots"
    folder.mkdir()
    source.write_bytes(bytes(12_000_000))
    (folder / "one.png").write_bytes(bytes(100_000))
    Provenance.of("first", {}).record(source, folder, n_events=events)
    (line,) = caplog.messages
    assert re.search(rf"^made {re.escape(str(source))}, plots{end}", line)


@pytest.mark.fault("input that its stage did not write so")
def test_an_input_that_is_not_what_its_record_says_is_told(source, caplog):
    Provenance.of("first", {}).record(source)
    Provenance.of("second", {}, [source])
    assert not [line for line in caplog.records if line.levelno > logging.INFO]
    source.write_text("Data")
    Provenance.of("second", {}, [source])
    assert f"{source}: is not what its stage wrote: its sha256 is {sha256(source)}" in caplog.text
    record_of(source).write_text("{")
    Provenance.of("second", {}, [source])
    assert f"{record_of(source)}: not readable as JSON" in caplog.text
