"""The screen of ``particleforge status`` stays one screen; a job's log says how the job ended."""

import logging
from collections import Counter
from pathlib import Path

import pytest

from particleforge.errors import UserError
from particleforge.logs import ended_well, job_log, last_error
from particleforge.orchestration.status import StageStatus, Status, read_status


def test_many_troubles_still_fit_forty_lines() -> None:
    stages = {
        (f"detector{d}", f"stage{s}"): StageStatus(
            0, 90, 90, Counter({"missing": 60, "x" * 200: 30})
        )
        for d in range(3)
        for s in range(10)
    }
    troubles = [f"failed: rule, results/{number}.log: {'long ' * 60}" for number in range(50)]
    lines = (
        Status(
            stages,
            Counter({f"some_long_rule_name_{n}": 1000 for n in range(12)}),
            troubles,
            locked=True,
        )
        .text()
        .splitlines()
    )
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert "and 47 more that failed or did not finish" in lines
    assert lines[1].split()[:6] == ["detector0", "stage0", "0/90", "90", "60", "missing,"]


def test_a_snakefile_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--snakefile nowhere/Snakefile: no such file"):
        read_status(Path("nowhere/Snakefile"), {})


def test_a_log_tells_how_its_job_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = logging.getLogger("particleforge")
    monkeypatch.setattr(package, "level", logging.INFO)

    def ended(path: Path) -> None:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        try:
            with job_log(path):
                package.info("at work")
                if path.stem == "bad":
                    raise UserError("a.root: not readable: delete it")
        finally:
            logging.captureWarnings(False)
            for handler in logging.getLogger().handlers:
                handler.close()

    good, bad = tmp_path / "good.log", tmp_path / "bad.log"
    ended(good)
    with pytest.raises(SystemExit):
        ended(bad)
    assert (ended_well(good), last_error(good)) == (True, "")
    assert (ended_well(bad), last_error(bad)) == (False, "a.root: not readable: delete it")
    assert last_error(tmp_path / "absent.log") == ""
