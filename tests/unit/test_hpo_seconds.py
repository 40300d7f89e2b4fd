"""How long a trial trained, whatever became of its jobs."""

import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from particleforge.errors import UserError
from particleforge.hpo.cost import rank_hours
from particleforge.hpo.study import Study, open_study
from particleforge.training.launch import TrainingResult, TrainingSpec
from particleforge.training.spec import newest_checkpoint

from .hpo_fixtures import FormulaTraining, Killed, Search


def test_the_seconds_of_all_jobs_of_a_trial_count(tmp_path: Path) -> None:
    """One is killed 100 s after its start, as its last checkpoint tells, one is stopped after 1 s,
    one ends after 1 s.
    """
    search = Search(tmp_path, train=FormulaTraining(dies_before=lambda spec, step: step == 4))
    whole = FormulaTraining()
    with pytest.raises(Killed):
        search.run(0, 0)
    study = open_study(search.settings, search.manifest, search.work)
    (trial,) = study.trials()
    assert trial.began is not None
    last = newest_checkpoint(study.folder(trial))
    assert last is not None
    os.utime(last, (trial.began + 100, trial.began + 100))
    seen = []

    def interrupted(spec: TrainingSpec, ranks: int) -> TrainingResult:
        seen.append(spec.spent_s)
        return whole._result(spec, "interrupted", "signal 15", 3, {}, None)

    search.train = interrupted  # type: ignore[assignment]
    with pytest.raises(UserError, match="interrupted"):
        search.run(0, 0)
    (trial,) = study.trials()
    assert seen == [100.0], "the limit of minutes is one for all jobs"
    assert (trial.spent_s, trial.began, trial.starts) == (101.0, None, (0,))
    assert rank_hours(trial, search.settings) == pytest.approx(101 / 3600)
    search.train = whole
    assert search.run(0, 0)["seconds"] == pytest.approx(102.0)
    (trial,) = study.trials()
    assert rank_hours(trial, search.settings) == pytest.approx(102 / 3600)


def test_a_job_killed_after_its_training_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(tmp_path)
    whole = search.train

    def stores(spec: TrainingSpec, ranks: int) -> TrainingResult:
        result = whole(spec, ranks)
        result.write(spec.work_dir, spec.identity(), spec.until_step)
        assert result.checkpoint is not None
        os.utime(result.checkpoint, (time.time() + 50, time.time() + 50))
        return result

    search.train = stores  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        patch.setattr(Study, "finish", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            search.run(0, 0)
    assert search.run(0, 0)["seconds"] == 1.0
