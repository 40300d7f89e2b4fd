"""Trainings as jobs of their own on synthetic shards, for tests that watch or disturb them."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from particleforge.config.settings import TrainSettings
from particleforge.training.spec import TrainingSpec

LONG = 100_000  # steps that no test waits for


def settings_of(**changes: Any) -> TrainSettings:
    training = {
        "max_steps": 16,
        "valid_every_steps": 4,
        "checkpoint_every_steps": 4,
        "log_every_steps": 1,
        "elements_per_batch": 256,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "device": "cpu",
    }
    return TrainSettings(
        seed=4, model={"width": 8, "n_layers": 1, "n_heads": 2}, training={**training, **changes}
    )


def losses(metrics: Path, split: str = "train") -> dict[int, float]:
    rows = pq.read_table(metrics).to_pylist()
    return {
        row["step"]: row["value"] for row in rows if row["split"] == split and row["name"] == "loss"
    }


def start(spec: TrainingSpec, ranks: int) -> subprocess.Popen[bytes]:
    """Start ``run_training`` in a process of its own, as a workflow's job does; see ``outcome``."""
    spec.work_dir.mkdir(parents=True, exist_ok=True)
    spec_file = spec.work_dir.with_suffix(".spec.json")
    spec.write().rename(spec_file)
    code = (
        "import sys; from pathlib import Path; from particleforge.training.launch import"
        " run_training, TrainingSpec\nr = run_training(TrainingSpec.read(Path(sys.argv[1])),"
        " int(sys.argv[2])); print(r.status, r.step, r.reason)"
    )
    with spec.work_dir.with_suffix(".outcome").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(spec_file), str(ranks)], stdout=output
        )


def outcome(job: subprocess.Popen[bytes], spec: TrainingSpec) -> list[str]:
    """Wait for a started training, at most a minute, and return its status, step and reason."""
    job.wait(timeout=60)
    return spec.work_dir.with_suffix(".outcome").read_text().split(maxsplit=2)


def workers_of(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return torchrun and the workers below it."""
    return psutil.Process(job.pid).children(recursive=True)


def wait_for(condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
    return found
