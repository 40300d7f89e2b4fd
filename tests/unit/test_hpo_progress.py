"""The screen of ``particleforge hpo-status``: read from a study at work, without a lock and without
a trace.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from particleforge.cli import app
from particleforge.errors import UserError
from particleforge.hpo.journal import JOURNAL
from particleforge.hpo.progress import read_progress, read_work_folder
from particleforge.hpo.study import open_study

from .hpo_fixtures import FormulaTraining, Killed, Search, make_settings


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def half_done(folder: Path) -> Search:
    """First rung: one failed, one killed and not run again; one slot of the second rung."""
    search = Search(folder, make_settings(sampler="random"))
    search.train = FormulaTraining(
        fails=lambda spec: "diverged: loss is nan" if spec.work_dir.name == "0-00001" else "",
        dies_before=lambda spec, step: spec.work_dir.name == "0-00003",
    )
    for slot in range(3):
        search.run(0, slot)
    with pytest.raises(Killed):
        search.run(0, 3)
    search.run(1, 0)
    checkpoint = (
        search.work
        / open_study(search.settings, search.manifest, search.work).name
        / "0-00003/checkpoints/step_000000003_ab.pt"
    )
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    return search


def test_a_search_at_work(tmp_path: Path) -> None:
    search = half_done(tmp_path)
    found = read_progress(search.settings, search.manifest, search.work)
    assert [(r.rung, r.budget, r.slots, r.complete, r.running, r.failed) for r in found.rungs] == [
        (0, "5 steps", 4, 2, 1, 1),
        (1, "10 steps", 2, 1, 0, 0),
        (2, "20 steps", 1, 0, 0, 0),
    ]
    study = open_study(search.settings, search.manifest, search.work)
    top = next(t for t in study.trials() if t.rung == 1)
    assert found.best is not None
    assert (found.best.trial, found.best.loss, found.best.steps) == (top.number, top.value, 10)
    default = next(t for t in study.trials() if t.config == "c00000" and t.rung == 0)
    assert found.best.default_loss == (top.value if top.config == "c00000" else default.value)
    assert found.failures == {"diverged: loss is nan": [1]}
    assert [(t.trial, t.checkpoint_step) for t in found.running] == [(3, 3)]
    assert found.last[0].trial == top.number
    assert found.rank_hours == pytest.approx(4 / 3600)
    text = found.text()
    assert "4 of 7 slots ended (1 failed), 1 running" in text
    assert "1 x diverged: loss is nan (trial 1)" in text
    assert "checkpoint at 3" in text
    assert max(map(len, text.splitlines())) <= 120


def test_reading_takes_no_lock_leaves_no_trace_and_passes_over_half_a_record(
    tmp_path: Path,
) -> None:
    search = half_done(tmp_path)
    journal = search.work / JOURNAL
    before = read_progress(search.settings, search.manifest, search.work)
    for lock in ("claim.lock", f"{JOURNAL}.lock"):
        (search.work / lock).touch()  # held by a slot
    with journal.open("ab") as handle:
        handle.write(b'{"op_code": 5, "worker')
    files = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    after = read_progress(search.settings, search.manifest, search.work)
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == files
    assert after.rungs == before.rungs


def test_a_work_folder_alone_shows_its_study(tmp_path: Path) -> None:
    search = half_done(tmp_path)
    found = read_work_folder(search.work)
    own = read_progress(search.settings, search.manifest, search.work)
    assert (found.study, found.best, found.failures) == (own.study, own.best, own.failures)
    assert [replace(r, slots=None) for r in own.rungs if r.complete] == list(found.rungs)
    assert found.rank_hours is None
    assert read_work_folder(search.work, found.study[:4]).study == found.study
    with pytest.raises(UserError, match=f"--study nothing: .* has {found.study}"):
        read_work_folder(search.work, "nothing")


def test_a_study_in_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    search = Search(tmp_path, make_settings(sampler="random", storage_url=url))
    with pytest.raises(UserError, match=r"studies\.db: no study here yet"):
        read_progress(search.settings, search.manifest, search.work)
    assert not (tmp_path / "studies.db").exists()
    search.run(0, 0)
    found = read_progress(search.settings, search.manifest, search.work)
    assert [r.complete for r in found.rungs] == [1, 0, 0]
    assert found.best is not None
    assert "the configured settings" in found.text()


def test_other_settings_show_the_last_study_and_say_so(tmp_path: Path) -> None:
    search = half_done(tmp_path)
    other = search.settings.model_copy(update={"seed": 8})
    found = read_progress(other, search.manifest, search.work)
    assert found.study == read_work_folder(search.work).study
    assert "belongs to other data or settings" in found.text()
    assert (
        "is not there, so whether"
        in read_progress(other, tmp_path / "absent.json", search.work).text()
    )


def test_the_command(tmp_path: Path) -> None:
    runner = CliRunner()
    search = half_done(tmp_path)
    found = runner.invoke(app, ["hpo-status", str(search.work)])
    assert found.exit_code == 0
    assert found.stdout.startswith("study ")
    plain = json.loads(runner.invoke(app, ["hpo-status", str(search.work), "--json"]).stdout)
    assert plain[0]["rungs"][0]["failed"] == 1
    config = Path(__file__).parents[2] / "config"
    nothing = runner.invoke(
        app,
        [
            "hpo-status",
            "--config-dir",
            str(config),
            "--results",
            str(tmp_path / "r"),
            "--detector",
            "clic",
        ],
    )
    assert isinstance(nothing.exception, UserError)
    assert (
        str(nothing.exception)
        == f"{tmp_path}/r/clic/hpo/work/journal.log: no study here yet; the search's first slot"
        " begins one"
    )


def test_a_large_search_stays_one_screen(tmp_path: Path) -> None:
    search = Search(
        tmp_path,
        make_settings(first_rung_slots=16, n_rungs=5, sampler="random", failed_fraction_max=1.0),
    )
    search.train = FormulaTraining(
        fails=lambda spec: (
            f"reason {spec.work_dir.name} " + "long " * 60
            if spec.work_dir.name[-1] in "13579"
            else ""
        )
    )
    for slot in range(16):
        search.run(0, slot)
    lines = read_progress(search.settings, search.manifest, search.work).text().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert "  and 3 more" in lines
