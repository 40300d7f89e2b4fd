"""The metrics of a training as a run of MLflow, with ``training.tracker: mlflow``.

Inputs -> outputs: settings and rows of ``training.metrics`` -> parameters by dotted name, metrics
by step and the final status of one run, at the address that MLFLOW_TRACKING_URI names, else in
``mlflow.db`` (SQLite, as MLflow's store of plain files is no longer kept up) in the work folder.
The experiment is MLFLOW_EXPERIMENT_NAME, else ``particleforge``.

Invariants: a training that goes on goes on in its run, whose id the work folder keeps; no step is
there twice, so that steps which a restart repeats keep the values that were told first. A server
that no longer answers ends the telling, not the training: the next start tells what is missing.
"""

import logging
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from particleforge.addresses import masked
from particleforge.artefacts import dotted, write_text
from particleforge.config.training import TrainingConfig
from particleforge.errors import UserError
from particleforge.training.spec import Status, TrainingSpec

log = logging.getLogger(__name__)
RUN_FILE, STORE_FILE = "mlflow_run", "mlflow.db"
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
QUIET = {  # unless the user says otherwise
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_PARAMETERS_AT_ONCE, _LENGTH_MAX = 100, 6000  # MLflow's limits
_STATUS = {
    "complete": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


def check_tracker(training: TrainingConfig) -> None:
    """Raise a UserError if ``training.tracker`` is MLflow, and that is not installed."""
    if training.tracker == "mlflow" and find_spec("mlflow") is None:
        raise UserError(
            "training.tracker: mlflow is not installed; run pip install mlflow-skinny cryptography,"
            " or set it to tensorboard"
        )


class MlflowRun:
    """The run of a training: begun, or gone on with."""

    def __init__(self, spec: TrainingSpec) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        import mlflow

        self._mlflow, self._answers = mlflow, True
        uri = os.environ.get(URI_VARIABLE) or f"sqlite:///{spec.work_dir.absolute() / STORE_FILE}"
        try:
            self._client = mlflow.MlflowClient(uri)
            found = self._found(spec.work_dir / RUN_FILE)
            self._id = found.info.run_id if found else self._begin(spec)
            self._told = {
                name: {point.step for point in self._client.get_metric_history(self._id, name)}
                for name in (found.data.metrics if found else ())
            }
        except (mlflow.MlflowException, ImportError) as error:
            raise UserError(
                f"{URI_VARIABLE}: {masked(uri)}: {_line(error)}; correct it, or set"
                " training.tracker: tensorboard"
            ) from error

    def add(self, row: dict[str, Any]) -> None:
        """Tell the values of a row that the run does not have."""
        step, now = row["step"], int(time.time() * 1000)
        new = {
            name: value
            for end, value in row["values"].items()
            if step not in self._told.setdefault(name := f"{row['split']}/{end}", set())
        }
        metric = self._mlflow.entities.Metric
        metrics = [metric(name, value, now, step) for name, value in new.items()]
        self._tell(self._client.log_batch, metrics)
        for name in new:
            self._told[name].add(step)

    def close(self, status: Status) -> None:
        """Tell how the training ended."""
        self._tell(self._client.set_terminated, _STATUS[status])

    def _tell(self, what: Callable[..., None], *values: Any) -> None:
        if not self._answers:
            return
        try:
            what(self._id, *values)
        except self._mlflow.MlflowException as error:
            self._answers = False
            log.warning("MLflow is told nothing more until the next start: %s", _line(error))

    def _found(self, run_file: Path) -> Any:
        """Return the run that the work folder names, running again; None if there is none."""
        if not run_file.exists():
            return None
        run_id = run_file.read_text(encoding="utf-8").strip()
        try:
            found = self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            found = None
        if found is None or found.info.lifecycle_stage != "active":
            log.info("run %s is gone from MLflow; its rows go to a new one", run_id)
            return None
        self._client.update_run(run_id, status="RUNNING")
        return found

    def _begin(self, spec: TrainingSpec) -> str:
        """Begin a run, with the settings as its parameters, and return its id."""
        name = os.environ.get(EXPERIMENT_VARIABLE) or "particleforge"
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        tags = {"work_dir": str(spec.work_dir)}
        run_id: str = self._client.create_run(experiment, tags=tags).info.run_id
        parameters = [
            self._mlflow.entities.Param(key, str(value)[:_LENGTH_MAX])
            for key, value in dotted(spec.settings.plain()).items()
        ]
        for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            batch = parameters[first : first + _PARAMETERS_AT_ONCE]
            self._client.log_batch(run_id, params=batch)
        write_text(spec.work_dir / RUN_FILE, f"{run_id}\n")
        return run_id


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
