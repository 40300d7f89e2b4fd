"""optuna-dashboard opens the study: the real application, as its command opens it, asked over WSGI
without a port.
"""

import csv
import io
import json
import os
import random
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from optuna_dashboard import wsgi
from optuna_dashboard._storage_url import get_storage

from particleforge.hpo.journal import JOURNAL
from particleforge.hpo.study import open_study

from .hpo_fixtures import FormulaTraining, Search, make_settings


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Dashboard:
    """The dashboard on a storage that is given as on its command line."""

    def __init__(self, storage: str) -> None:
        self.app: Any = wsgi(get_storage(storage))

    def get(self, path: str) -> str:
        """Return the body of a page, whose status must be 200."""
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ["PATH_INFO"] = path
        status = []
        chunks = self.app(environ, lambda code, headers, *_: status.append(code))
        with closing(chunks) if hasattr(chunks, "close") else nullcontext():
            body = b"".join(chunks)
        assert status == ["200 OK"], body
        return body.decode()


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_the_dashboard_shows_every_trial(tmp_path: Path, kind: str) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    search = Search(tmp_path, make_settings(storage_url=url if kind == "database" else None))
    search.train = FormulaTraining(
        fails=lambda spec: "loss is nan" if spec.work_dir.name == "0-00001" else ""
    )
    search.run_all(order=random.Random(1))
    own = open_study(search.settings, search.manifest, search.work)
    dashboard = Dashboard(url if kind == "database" else str(search.work / JOURNAL))
    (summary,) = json.loads(dashboard.get("/api/studies"))["study_summaries"]
    assert summary["study_name"] == own.name
    detail = json.loads(dashboard.get(f"/api/studies/{summary['study_id']}"))
    trials = own.trials()
    assert len(detail["trials"]) == len(trials) == 4 + 2 + 1
    for shown, trial in zip(detail["trials"], trials, strict=True):
        assert shown["state"] == (
            "Fail" if trial.value is None else "Complete" if trial.rung == 2 else "Pruned"
        )
        assert {
            p["name"]: p["param_internal_value"] for p in shown["params"]
        }.keys() == trial.params.keys()
        assert {v["step"]: v["value"] for v in shown["intermediate_values"]} == trial.curve
    assert detail["best_trials"][0]["values"] == [min(t.loss for t in trials if t.rung == 2)]
    importances = json.loads(
        dashboard.get(f"/api/studies/{summary['study_id']}/param_importances")
    )["param_importances"]
    assert len(importances) == 1
    rows = list(csv.DictReader(io.StringIO(dashboard.get(f"/csv/{summary['study_id']}"))))
    assert len(rows) == len(trials)
    assert "<html" in dashboard.get("/dashboard/")
