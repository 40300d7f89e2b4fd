"""The chain of records is followed to its ends, what differs within it is said, and what has
changed is found.
"""

import json

import pytest

from particleforge.errors import UserError
from particleforge.provenance.lineage import read_lineage, verify_lineage
from particleforge.provenance.lineage_text import lineage_text
from particleforge.provenance.record import Provenance, record_of


class Results:
    """A folder with two samples of two shards, selected, and a summary of them all."""

    def __init__(self, folder):
        self.folder = folder
        self.simulated = [
            self._simulate(sample, shard)
            for sample in ("qq", "ttbar")
            for shard in ("00000", "00001")
        ]
        self.selected = [self.select(path) for path in self.simulated]
        self.summary = self.write("summary.txt", "all")
        Provenance.of("gather", {"version": 1}, self.selected).record(self.summary)

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def _simulate(self, sample, shard):
        path = self.write(f"sim/{sample}/{shard}.root", f"{sample}{shard}")
        Provenance.of(
            "simulate", {"version": 3, "seed": 11, "sample_name": sample}, part={"shard": shard}
        ).record(path)
        return path

    def select(self, source, cut=1):
        path = self.write(
            f"select/{source.parent.name}/{source.stem}.txt", f"selected {source.read_text()} {cut}"
        )
        Provenance.of(
            "select", {"version": 1, "sample_name": source.parent.name, "cut": cut}, [source]
        ).record(path)
        return path


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def drawn(path):
    lineage = read_lineage(path)
    verify_lineage(lineage)
    return lineage_text(lineage), {lineage.name(item.path): item for item in lineage.problems()}


def test_shards_are_one_branch_that_ends_at_the_seeds(results, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text, problems = drawn(results.summary.relative_to(tmp_path))
    assert not problems
    lines = text.splitlines()
    assert lines[0] == f"{tmp_path}/results/"
    assert lines[1] == "summary.txt  OK"
    assert "└─ 4 files of select, e.g. select/qq/00000.txt  4 OK" in lines
    assert "   └─ 4 files of simulate, e.g. sim/qq/00000.root  4 OK" in lines
    assert "seed 11, shard 00000, 00001" in text
    assert "MIXED" not in text
    assert lines[-1] == "9 files and folders: 9 OK"


def test_unlike_settings_of_a_sample_and_unlike_commits_are_said(results):
    results.select(results.simulated[0], cut=2)
    record = record_of(results.selected[3])
    content = json.loads(record.read_text())
    content["circumstances"] |= {"git_commit": "f" * 40, "git_dirty": True}
    content["packages"]["numpy"] = "0.1"
    record.write_text(json.dumps(content))
    text, _ = drawn(results.summary)
    assert "MIXED settings of qq: " in text
    assert "(1, e.g. select/qq/00001.txt)" in text
    assert "of ttbar" not in text
    assert "MIXED commits: " in text
    assert f"{'f' * 12} (modified): 1" in text
    assert "MIXED packages: numpy 0.1, " in text


def test_environments_that_differ_in_other_packages_are_counted(results):
    record = record_of(results.selected[3])
    content = json.loads(record.read_text())
    content["circumstances"]["environment"] = "another"
    record.write_text(json.dumps(content))
    text, _ = drawn(results.summary)
    assert "2 environments, which differ in other packages only" in text
    assert "MIXED" not in text


def test_a_file_made_again_later_is_told_from_one_that_was_edited(results):
    results.select(results.simulated[0], cut=2)
    results.selected[1].write_text("edited")
    results.simulated[3].unlink()
    text, problems = drawn(results.summary)
    assert {name: (item.state, item.reason) for name, item in problems.items()} == {
        "select/qq/00000.txt": ("CHANGED", "made again since summary.txt read it"),
        "select/qq/00001.txt": ("CHANGED", "not what its stage wrote, nor what summary.txt read"),
        "sim/ttbar/00001.root": ("MISSING", "there is no such file any more"),
    }
    assert "4 files of select, e.g. select/qq/00000.txt  2 CHANGED, 2 OK" in text
    assert "CHANGED select/qq/00000.txt: made again since summary.txt read it" in text


def test_a_file_from_elsewhere_ends_the_chain_and_is_watched(tmp_path):
    source, table = tmp_path / "data" / "in.root", tmp_path / "own" / "out.parquet"
    for path in (source, table):
        path.parent.mkdir()
        path.write_text(path.name)
    Provenance.of("dataset", {"version": 1}, [source]).record(table)
    text, problems = drawn(table)
    assert f"└─ {source}  OK" in text
    assert "no record" in text
    assert not problems
    source.write_text("another")
    assert [item.reason for item in drawn(table)[1].values()] == [
        "changed since out.parquet read it"
    ]


def test_a_file_of_a_folder_has_the_chain_of_the_folder(results):
    plot = results.write("plots/jets.png", "picture")
    Provenance.of("validate", {"version": 1}, [results.summary]).record(plot.parent)
    assert drawn(plot)[0].splitlines()[1] == "plots  OK"
    with pytest.raises(UserError, match=r"nope\.png: no such file"):
        read_lineage(plot.with_name("nope.png"))


def test_a_branch_is_drawn_once(results):
    page = results.write("page.html", "page")
    Provenance.of("report", {"version": 1}, [results.summary, *results.selected]).record(page)
    text = drawn(page)[0]
    assert text.count("files of simulate") == 1
    assert "└─ 4 files of select, e.g. select/qq/00000.txt  4 OK  (see above)" in text


def test_slurm_jobs_are_named(results):
    model = results.write("best.pt", "weights")
    Provenance.of("train", {"version": 1}, [results.summary]).record(model)
    record = record_of(model)
    content = json.loads(record.read_text())
    told = {
        "job_id": "77",
        "array_job_id": "70",
        "array_task_id": "3",
        "node_list": "n[1-2]",
        "restart_count": "1",
    }
    content["circumstances"]["slurm"] = told
    record.write_text(json.dumps(content))
    assert "Slurm job 77 = 70_3 (on n[1-2], 1 restarts)" in drawn(model)[0]


def test_without_a_record_it_is_one_line(tmp_path):
    (tmp_path / "own.txt").touch()
    with pytest.raises(
        UserError, match=r"own\.txt: no provenance, as own\.txt\.provenance\.json is not beside it"
    ):
        read_lineage(tmp_path / "own.txt")
