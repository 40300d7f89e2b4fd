"""Bars on a terminal, none elsewhere; the lines of a job's log."""

import io
import logging
import re
import sys
from functools import partial
from pathlib import Path

import pytest
from tqdm import tqdm

from particleforge import logs, progress
from particleforge.logs import ended_well, job_log
from particleforge.progress import shown
from particleforge.selection.select import select_events

from .synthetic import synthetic_events, write_dataset
from .test_selection import stage_settings


class Terminal(io.StringIO):
    """What a terminal would be sent."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal; no fixture, as pytest sets it anew before the test."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    eager = partial(tqdm, mininterval=0, miniters=1)  # draws every count, however fast they come
    monkeypatch.setattr(eager, "external_write_mode", tqdm.external_write_mode, raising=False)
    monkeypatch.setattr(progress, "tqdm", eager)
    return found


def test_parts_are_counted_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    assert list(shown([[1, 2], [3]], "event", 3, len)) == [[1, 2], [3]]
    counts = re.findall(r"(\d)/3 ", terminal.getvalue())
    assert list(dict.fromkeys(counts)) == ["0", "2", "3"]
    assert " event/s" in terminal.getvalue()


def test_nothing_is_drawn_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    assert list(shown(range(3), "file")) == [0, 1, 2]
    assert pipe.getvalue() == ""


def test_lines_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    handler = logs._Terminal(terminal)
    for _ in shown(range(1), "file", 1):
        handler.emit(logging.LogRecord("a", logging.INFO, "a.py", 1, "a word", (), None))
    before, _, after = terminal.getvalue().partition("a word\n")
    assert before.endswith("\r")  # the bar is wiped first
    assert "0/1" in before and "0/1" in after


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "00000.parquet"
    write_dataset(path, synthetic_events(40, seed=3))
    return path


def select(dataset: Path, folder: Path) -> Path:
    output = folder / "selected.parquet"
    select_events(stage_settings(), dataset=dataset, output=output, cutflow=folder / "cuts.json")
    return output


def test_a_stage_shows_how_far_it_is(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    select(dataset, tmp_path)
    assert "40/40" in terminal.getvalue()


def test_a_job_shows_no_bar_and_its_log_says_what_it_made(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process of its own
    monkeypatch.setattr("particleforge.logs.check_code", lambda: None)
    monkeypatch.setattr(logging.getLogger("particleforge"), "level", logging.INFO)
    with job_log(tmp_path / "job.log"):
        output = select(dataset, tmp_path)
    logging.captureWarnings(False)
    for handler in logging.getLogger().handlers:
        handler.close()
    assert terminal.getvalue() == ""
    last_but_one, last = (tmp_path / "job.log").read_text().splitlines()[-2:]
    made = rf": made {re.escape(str(output))}, cuts\.json: \d+ events, 0\.\d MB in \d+ (s|min)$"
    assert re.search(made, last_but_one)
    assert last.endswith(": done") and ended_well(tmp_path / "job.log")
