"""Where a training can be watched: TensorBoard, and MLflow where that is installed."""

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from particleforge.errors import UserError
from particleforge.orchestration.workflow import Workflow
from particleforge.training import mlflow_run, worker
from particleforge.training.devices import usage
from particleforge.training.distributed import Workers
from particleforge.training.mlflow_run import RUN_FILE, STORE_FILE, MlflowRun
from particleforge.training.spec import TrainingSpec
from particleforge.training.train import train_model

from .synthetic_shards import write_synthetic
from .test_training_loop import settings_of

ROOT = Path(__file__).parents[2]
OWN = {"log_every_steps": 1, "valid_every_steps": 2, "checkpoint_every_steps": 2, "max_steps": 6}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    monkeypatch.delenv(mlflow_run.URI_VARIABLE, raising=False)
    monkeypatch.delenv(mlflow_run.EXPERIMENT_VARIABLE, raising=False)
    for name in mlflow_run.QUIET:
        monkeypatch.setenv(name, mlflow_run.QUIET[name])
    yield pytest.importorskip("mlflow")


def train(manifest: Path, folder: Path, until: int, **own: Any) -> TrainingSpec:
    settings = settings_of(**{**OWN, "tracker": "mlflow", **own})
    (folder / "work").mkdir(parents=True, exist_ok=True)
    spec = TrainingSpec(settings, manifest, folder / "work", until, tensorboard=folder / "events")
    worker.train(spec, Workers(0, 1, torch.device("cpu")), lambda: False)
    return spec


def runs_of(mlflow: types.ModuleType, folder: Path, uri: str = "") -> tuple[Any, list[Any]]:
    client = mlflow.MlflowClient(uri or f"sqlite:///{folder / 'work' / STORE_FILE}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    return client, list(client.search_runs(experiments))


def told(client: Any, run: Any) -> list[tuple[str, int, float]]:
    return sorted(
        (name, point.step, point.value)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    )


def recorded(folder: Path) -> list[tuple[str, int, float]]:
    rows = pq.read_table(folder / "work" / "metrics.parquet").to_pylist()
    return sorted((f"{row['split']}/{row['name']}", row["step"], row["value"]) for row in rows)


SPEEDS = ("events_per_s", "elements_per_s", "loading_share", "communication_share")


def steady(values: list[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    return [one for one in values if not one[0].endswith(SPEEDS)]


@pytest.mark.filterwarnings("ignore")  # of MLflow's own making
def test_mlflow_holds_what_the_table_holds(
    mlflow: types.ModuleType, manifest: Path, tmp_path: Path
) -> None:
    spec = train(manifest, tmp_path, 4)
    client, (run,) = runs_of(mlflow, tmp_path)
    assert told(client, run) == recorded(tmp_path) != []
    assert run.info.status == "FINISHED"
    assert run.data.params["training.max_steps"] == "6"
    assert run.data.params["seed"] == str(spec.settings.seed)
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


@pytest.mark.filterwarnings("ignore")
def test_going_on_is_one_run_with_each_step_once(
    mlflow: types.ModuleType, manifest: Path, tmp_path: Path
) -> None:
    train(manifest, tmp_path, 4)
    newest = sorted((tmp_path / "work" / "checkpoints").glob("step_*.pt"))[-1]
    newest.unlink()  # as if the training had been killed after step 4 and before its checkpoint
    train(manifest, tmp_path, 6)
    client, (run,) = runs_of(mlflow, tmp_path)
    values = told(client, run)
    assert steady(values) == steady(recorded(tmp_path))
    assert len({one[:2] for one in values}) == len(values)
    assert {step for name, step, _ in values if name == "train/loss"} == {1, 2, 3, 4, 5, 6}
    assert run.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore")
def test_a_store_that_is_gone_is_filled_anew_at_an_address(
    mlflow: types.ModuleType, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(manifest, tmp_path, 4)
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv(mlflow_run.URI_VARIABLE, uri)
    monkeypatch.setenv(mlflow_run.EXPERIMENT_VARIABLE, "jets")
    train(manifest, tmp_path, 6)
    client, (run,) = runs_of(mlflow, tmp_path, uri)
    assert told(client, run) == recorded(tmp_path)
    assert client.get_experiment(run.info.experiment_id).name == "jets"
    assert (tmp_path / "work" / RUN_FILE).read_text().strip() == run.info.run_id


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_answers_no_more_ends_the_telling_only(
    mlflow: types.ModuleType,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise mlflow.MlflowException("no answer\nat all")

    begin: Callable[..., str] = MlflowRun._begin

    def begin_then_fail(self: MlflowRun, spec: TrainingSpec) -> str:
        run_id = begin(self, spec)
        monkeypatch.setattr(self._client, "log_batch", fail)
        return run_id

    monkeypatch.setattr(MlflowRun, "_begin", begin_then_fail)
    train(manifest, tmp_path, 2)
    (line,) = [text for text in caplog.messages if "MLflow" in text]
    assert "until the next start: no answer at all" in line
    monkeypatch.undo()
    train(manifest, tmp_path, 4)
    client, (run,) = runs_of(mlflow, tmp_path)
    assert told(client, run) == recorded(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_an_address_without_a_store_is_one_line(
    mlflow: types.ModuleType, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_run.URI_VARIABLE, "nowhere://somebody:secret@host/x")
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI: nowhere://") as refused:
        train(manifest, tmp_path, 2)
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)


def test_a_missing_package_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_run, "find_spec", lambda _: None)
    files = {name: tmp_path / name for name in ("model", "last", "metrics", "tensorboard")}
    with pytest.raises(UserError, match=r"^training\.tracker: mlflow is not installed; run pip"):
        train_model(
            settings_of(tracker="mlflow"),
            manifest=tmp_path / "none.json",
            best_settings=None,
            work_dir=tmp_path / "work",
            **files,
        )
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="tracker"):  # before the jobs of the search, too
        Workflow([ROOT / "config"], {"training": {"tracker": "mlflow"}})
    Workflow([ROOT / "config"], {})


def test_an_accelerator_tells_utilisation_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usage(torch.device("cpu")) == {}
    gpu = types.SimpleNamespace(
        max_memory_allocated=lambda _: 2.5e9, utilization=lambda _: 80, name="gpu"
    )
    monkeypatch.setattr(torch, "get_device_module", lambda _: gpu)
    both = {"gpu_memory_gb": 2.5, "gpu_utilisation": 0.8}
    assert usage(torch.device("cuda", 0)) == both

    def without_library(_: object) -> int:
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    gpu.utilization = without_library
    assert usage(torch.device("cuda", 0)) == {"gpu_memory_gb": 2.5}
