"""What a training or a search wrote for itself may be damaged or lost: one line, and what can be
rebuilt is rebuilt.
"""

import json
from pathlib import Path

import pytest

from particleforge.artefacts import write_json
from particleforge.config.settings import TrainSettings
from particleforge.errors import UserError
from particleforge.hpo.progress import read_work_folder
from particleforge.hpo.slot import check_slots, run_hpo_slot
from particleforge.hpo.study import open_study
from particleforge.training.checkpoint import list_checkpoints
from particleforge.training.launch import _make_room
from particleforge.training.metrics import MetricsLog, read_rows
from particleforge.training.spec import CHECKPOINTS, TrainingResult, TrainingSpec, newest_step

from .hpo_fixtures import Search

IDENTITY = "abc"


@pytest.fixture
def spec(tmp_path: Path) -> TrainingSpec:
    """A training that has made five steps."""
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    settings = TrainSettings.model_validate({"seed": 1, "model": {}, "training": {"max_steps": 9}})
    found = TrainingSpec(settings, manifest, tmp_path / "work", 9)
    (found.work_dir / CHECKPOINTS).mkdir(parents=True)
    (found.work_dir / CHECKPOINTS / "step_000000005_0123456789abcdef.pt").write_text("state")
    write_json(found.work_dir / "origin.json", found.origin())
    found.write()
    return found


def finished(spec: TrainingSpec) -> Path:
    """Store a result of the training with its files and return the work folder."""
    files = {name: spec.work_dir / name for name in ("best.pt", "metrics.parquet")}
    for path in files.values():
        path.write_text("content")
    result = TrainingResult(
        "complete",
        "done",
        5,
        1.0,
        1.0,
        [[5, 1.0]],
        list_checkpoints(spec.work_dir / CHECKPOINTS)[-1],
        *files.values(),
    )
    result.write(spec.work_dir, IDENTITY, 5)
    assert TrainingResult.read(spec.work_dir, IDENTITY, 5) == result
    return spec.work_dir


@pytest.mark.fault("damaged record of a training")
@pytest.mark.parametrize("name", ["best.pt", "metrics.parquet", f"{CHECKPOINTS}/*.pt"])
def test_a_result_without_its_files_is_made_again(
    spec: TrainingSpec, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    work_dir = finished(spec)
    (file,) = work_dir.glob(name)
    file.unlink()
    assert TrainingResult.read(work_dir, IDENTITY, 5) is None
    assert f"{file}: gone or damaged; it is made again from the last checkpoint" in caplog.text


@pytest.mark.fault("damaged record of a training")
def test_a_damaged_result_is_made_again(
    spec: TrainingSpec, caplog: pytest.LogCaptureFixture
) -> None:
    work_dir = finished(spec)
    stored = (work_dir / "result.json").read_text()
    for text in (stored[:40], "[]", stored.replace('"step": 5', '"step": "x"')):
        (work_dir / "result.json").write_text(text)
        assert TrainingResult.read(work_dir, IDENTITY, 5) is None
    assert caplog.text.count("result.json: ") == 3
    (work_dir / "result.json").write_text(stored)
    (work_dir / "best.pt").write_text("contenT")
    assert TrainingResult.read(work_dir, IDENTITY, 5) is None
    older = {
        key: value for key, value in json.loads(stored).items() if key not in ("checksums", "kind")
    }
    write_json(work_dir / "result.json", older)
    assert TrainingResult.read(work_dir, IDENTITY, 5) is not None


@pytest.mark.fault("damaged record of a training")
@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_damaged_origin_loses_no_training(
    spec: TrainingSpec, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    origin = spec.work_dir / "origin.json"
    whole = origin.read_bytes()
    origin.unlink() if text is None else origin.write_text(text)
    _make_room(spec)
    assert newest_step(spec.work_dir) == 5
    assert origin.read_bytes() == whole
    assert "origin.json: gone or damaged; taken from spec.json" in caplog.text
    origin.write_text("{")
    (spec.work_dir / "spec.json").unlink()
    with pytest.raises(UserError, match=r"origin.json: gone or damaged, so nobody knows .*; put"):
        _make_room(spec)
    assert newest_step(spec.work_dir) == 5


@pytest.mark.fault("damaged record of a training")
def test_a_file_of_another_name_is_no_checkpoint(spec: TrainingSpec) -> None:
    folder = spec.work_dir / CHECKPOINTS
    (folder / "step_abc.pt").write_text("mine")
    assert newest_step(spec.work_dir) == 5
    assert [path.name for path in list_checkpoints(folder)] == [
        "step_000000005_0123456789abcdef.pt"
    ]


@pytest.mark.fault("damaged record of a training")
def test_lost_metrics_do_not_cut_the_curve(
    spec: TrainingSpec, caplog: pytest.LogCaptureFixture
) -> None:
    path = spec.work_dir / "metrics.jsonl"
    curve = [[2, 0.5], [4, 0.25]]
    told = MetricsLog(spec.work_dir, 0, None)
    for step, loss in curve:
        told.add(step - 1, 0, "train", {"loss": 1.0})
        told.add(step, 0, "valid", {"loss": loss})
    told.close()
    whole = path.read_text()
    MetricsLog(spec.work_dir, 5, None, curve).close()
    assert path.read_text() == whole
    assert not caplog.records
    lines = whole.splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:20], *lines[2:]]))  # two lines in one
    MetricsLog(spec.work_dir, 5, None, curve).close()
    assert "metrics.jsonl: line 2 is damaged and left out" in caplog.text
    assert [row["step"] for row in read_rows(path)] == [1, 2, 4]
    path.unlink()
    caplog.clear()
    MetricsLog(spec.work_dir, 5, None, curve).close()
    rows = read_rows(path)
    assert [[row["step"], row["values"]["loss"]] for row in rows] == curve
    assert "metrics.jsonl: rows are lost: 2 validation losses up to step 4 are put" in caplog.text


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    search = Search(tmp_path_factory.mktemp("search"))
    search.run_all()
    return search


@pytest.mark.fault("damaged record of a search")
def test_a_damaged_journal_is_named_with_its_line(searched: Search, tmp_path: Path) -> None:
    lines = (searched.work / "journal.log").read_bytes().splitlines(keepends=True)
    journal = tmp_path / "journal.log"
    for wrong in (lines[6].rstrip() + lines[7], b"{}\n", lines[6][:10] + b"\n"):
        journal.write_bytes(b"".join([*lines[:6], wrong, *lines[8:]]))
        for read in (
            lambda: read_work_folder(tmp_path),
            lambda: open_study(searched.settings, searched.manifest, tmp_path),
        ):
            with pytest.raises(
                UserError, match=r"journal.log: line 7 is no record of a search; put the file back"
            ):
                read()
    journal.write_bytes(b"".join([*lines[:6], b'{"op_code": 99, "worker_id": "x"}\n', *lines[6:]]))
    with pytest.raises(UserError, match=r"journal.log: its records do not fit together"):
        read_work_folder(tmp_path)


@pytest.mark.fault("damaged record of a search")
@pytest.mark.parametrize("emptied", [True, False])
def test_a_lost_journal_is_no_search_without_success(searched: Search, emptied: bool) -> None:
    journal = searched.work / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(b"") if emptied else journal.unlink()
    parents = [path for path in searched.outputs() if path.parent.name == "0"]
    told = r"journal.log: lacks the trial that .*json tells of, so it was emptied, lost or exch"
    try:
        with pytest.raises(UserError, match=r"journal.log: emptied or lost, while the folders of"):
            read_work_folder(searched.work)
        with pytest.raises(UserError, match=told):
            run_hpo_slot(
                searched.settings,
                (1, 0),
                manifest=searched.manifest,
                work_dir=searched.work,
                output=searched.folder / "out.json",
                parents=parents,
                train=searched.train,
            )
        with pytest.raises(UserError, match=told):
            study = open_study(searched.settings, searched.manifest, searched.work)
            check_slots(searched.outputs(), study)
    finally:
        journal.write_bytes(whole)
    check_slots(searched.outputs(), open_study(searched.settings, searched.manifest, searched.work))


@pytest.mark.fault("damaged record of a search")
def test_a_damaged_slot_is_named(searched: Search, tmp_path: Path) -> None:
    study = open_study(searched.settings, searched.manifest, searched.work)
    slot = tmp_path / "0.json"
    for text in ('{"study": 1}', "{"):
        slot.write_text(text)
        with pytest.raises(UserError, match=r"0.json: .*; delete it and run the slot again"):
            check_slots([slot], study)
