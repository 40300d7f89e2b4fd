"""Paths that a user gave for outputs: whatever is wrong with one is a line, and nothing is lost."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from particleforge.artefacts import atomic_directory, atomic_output, check_outputs, write_text
from particleforge.cli import app
from particleforge.errors import UserError
from particleforge.logs import job_log, one_line_errors

from .checked_data import write_training_shards

Made = Callable[[Path], Path]


def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def below_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file" / "out"


def circle(tmp_path: Path) -> Path:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    return tmp_path / "a" / "out"


@pytest.mark.fault("output that cannot be written")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (folder, "folder: a folder, where a file is to be"),
        (below_a_file, "file: a file or broken link is in the place of a folder"),
        (lambda tmp_path: tmp_path / ("x" * 300), "x: the name is too long for the file system"),
        (circle, "a: a file or broken link is in the place of a folder"),
    ],
)
def test_a_path_that_no_file_can_have_is_one_line(tmp_path: Path, make: Made, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_text(make(tmp_path), "text")


@pytest.mark.fault("pipe or device in the place of a file")
def test_an_output_replaces_no_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (
        pytest.raises(UserError, match="pipe: no regular file, but a pipe or device; give a file"),
        atomic_output(pipe),
    ):
        raise AssertionError("it was opened")
    assert pipe.is_fifo()


@pytest.mark.fault("output that cannot be written")
def test_a_folder_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UserError, match="file: a part of the path is a file"),
        atomic_directory(tmp_path / "file"),
    ):
        raise AssertionError("it was begun")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.fault("output that is an input")
def test_no_output_is_an_input_or_another_output(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    a, b, same = tmp_path / "a", tmp_path / "b", tmp_path / "link" / "a"
    check_outputs([a], [b])
    with pytest.raises(UserError, match="a: is an input, too, and would be overwritten; give an"):
        check_outputs([a], [b, same])
    with pytest.raises(UserError, match="a: two outputs have this path; give each its own"):
        check_outputs([a, same])
    with pytest.raises(UserError, match=r"shards/a: lies in .*shards, which is emptied before it"):
        check_outputs([], [tmp_path / "shards" / "a"], [tmp_path / "shards"])


@pytest.mark.fault("output that is an input")
def test_commands_look_at_their_outputs(tmp_path: Path) -> None:
    table, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    table.write_text("mine")

    def refused(*words: Any) -> str:
        found = CliRunner().invoke(app, [*map(str, words), "--detector", "clic"])
        return str(found.exception)

    select = ("select-events", "--input", table)
    assert "is an input, too" in refused(*select, "--output", table, "--cutflow", other)
    assert "two outputs" in refused(*select, "--output", other, "--cutflow", other)
    shards = ("write-shards", "--input", table, "--output-dir", tmp_path)
    assert "is emptied before" in refused(*shards)
    reconstruct = ("reconstruct-events", "--input", table, "--model", table)
    assert "two outputs" in refused(*reconstruct, "--output", other, "--edm4hep", other)
    validate = ("validate-model", "--selected", table, "--reconstructed", table)
    (tmp_path / "metrics.json").symlink_to(table)
    assert "is an input, too" in refused(*validate, "--output-dir", tmp_path)
    assert table.read_text() == "mine"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "no regular file" in refused(
        "select-events", "--input", pipe, "--output", other, "--cutflow", tmp_path / "c"
    )


@pytest.mark.fault("output that is an input")
def test_shards_replace_no_folder_of_other_things(tmp_path: Path) -> None:
    mine = tmp_path / "home" / "thesis.tex"
    write_text(mine, "mine")
    given = tmp_path / "selected.parquet"
    given.write_text("whatever it is")
    found = CliRunner().invoke(
        app,
        [
            *("write-shards", "--detector", "clic", "--input", str(given)),
            *("--output-dir", str(mine.parent)),
        ],
    )
    assert "home: holds thesis.tex, which is no part of training shards" in str(found.exception)
    assert mine.read_text() == "mine"


@pytest.mark.fault("training shards that changed")
def test_a_training_by_hand_refuses_what_the_check_refuses(tmp_path: Path) -> None:
    manifest = write_training_shards(tmp_path)
    shard = next((manifest.parent / "train").glob("*.parquet"))
    shard.unlink()
    found = CliRunner().invoke(
        app,
        [
            *("train-model", "--detector", "clic", "--manifest", str(manifest)),
            *("--output-dir", str(tmp_path / "train")),
        ],
    )
    assert isinstance(found.exception, UserError)
    assert f"{shard.name}: manifest: files that are missing, or that the manifest does not" in str(
        found.exception
    )
    assert not (tmp_path / "train" / "work").exists()


@pytest.mark.fault("stopped from the keyboard")
def test_ctrl_c_is_no_defect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger()
    before = logger.handlers[:]
    logger.handlers.clear()
    try:
        with pytest.raises(SystemExit) as ended, job_log(tmp_path / "job.log"):
            raise KeyboardInterrupt
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:] = before
        logging.captureWarnings(False)
    assert ended.value.code == 130
    told = (tmp_path / "job.log").read_text()
    assert "stopped from the keyboard; run it again to go on" in told
    assert "defect" not in told + capsys.readouterr().err
    with pytest.raises(SystemExit), one_line_errors():
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "error: stopped from the keyboard; run it again to go on\n"
