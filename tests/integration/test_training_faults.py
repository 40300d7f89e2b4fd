"""What ends trainings early: in each case one line says why, nothing hangs, and going on gives what
an undisturbed run gives.
"""

import json
import os
import pickle
import re
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from particleforge.config.hpo import HpoConfig
from particleforge.config.settings import ExportSettings, HpoSettings, TrainSettings
from particleforge.errors import UserError
from particleforge.export.onnx_model import export_onnx
from particleforge.hpo import dag
from particleforge.hpo.slot import run_hpo_slot
from particleforge.training.checkpoint import latest_state, list_checkpoints
from particleforge.training.launch import TrainingResult, run_training
from particleforge.training.spec import CHECKPOINTS, TrainingSpec
from particleforge.training.train import train_model

from ..unit.synthetic_shards import write_synthetic
from .training_jobs import losses, outcome, settings_of, start, wait_for, workers_of

pytestmark = pytest.mark.integration
STEPS, STOP = 300, 100
DIVERGING = {"learning_rate": 1e30, "gradient_clip": 1e30, "warmup_steps": 0}
ADDRESS_SPACE = 16 * 2**30
TOO_WIDE = 2**16  # one block's projection to queries, keys and values alone takes 48 GiB


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


def settings_to_disturb() -> TrainSettings:
    return settings_of(max_steps=STEPS, checkpoint_every_steps=10, valid_every_steps=50)


@pytest.fixture(scope="module")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Return the undisturbed training on two ranks."""
    return run_training(
        TrainingSpec(settings_to_disturb(), manifest, tmp_path_factory.mktemp("whole"), STEPS), 2
    )


def check_equal(result: TrainingResult, whole: TrainingResult) -> None:
    assert (result.status, result.step) == ("complete", STEPS)
    assert losses(result.metrics) == losses(whole.metrics)
    assert result.valid_curve == whole.valid_curve
    assert result.best_checkpoint.read_bytes() == whole.best_checkpoint.read_bytes()
    assert result.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


# ---- checkpoints


@pytest.mark.fault("damaged checkpoint")
def test_a_half_checkpoint_gives_way_to_the_one_before(
    manifest: Path, tmp_path: Path, whole: TrainingResult, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = TrainingSpec(settings_to_disturb(), manifest, tmp_path / "work", STOP)
    run_training(spec, 2)
    last = list_checkpoints(spec.work_dir / CHECKPOINTS)[-1]
    last.write_bytes(last.read_bytes()[:1000])
    last.with_name(f".{last.name}.tmp").write_bytes(b"half")
    capfd.readouterr()
    result = run_training(TrainingSpec(spec.settings, manifest, spec.work_dir, STEPS), 2)
    text = capfd.readouterr().err
    assert (
        f"checkpoint {last.name} is damaged: its content does not match the checksum in its name"
        in text
    )
    assert f"going on after step {STOP - 10}" in text
    check_equal(result, whole)
    assert not list((spec.work_dir / CHECKPOINTS).glob(".*"))


@dataclass
class Poison:
    """An object whose pickle makes a folder when it is loaded."""

    folder: Path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)

    def written(self, path: Path, *, as_torch: bool) -> bytes:
        """Write the pickle to a file, in torch's format or plain, and return it."""
        if as_torch:
            torch.save({"step": 5, "weights": self}, path)
        else:
            path.write_bytes(pickle.dumps(self))
        return path.read_bytes()

    def check_it_would_work(self, path: Path) -> None:
        """Load the file as nobody should."""
        (
            torch.load(path, weights_only=False)
            if path.read_bytes()[:2] == b"PK"
            else pickle.loads(path.read_bytes())
        )
        assert self.folder.is_dir()


@pytest.mark.fault("poisoned pickle as checkpoint or model")
@pytest.mark.parametrize("as_torch", [True, False])
def test_a_poisoned_checkpoint_is_refused(manifest: Path, tmp_path: Path, as_torch: bool) -> None:
    poison = Poison(tmp_path / "poisoned")
    content = poison.written(tmp_path / "poison.pt", as_torch=as_torch)
    # the right name and checksum
    path = tmp_path / f"step_000000005_{sha256(content).hexdigest()[:16]}.pt"
    path.write_bytes(content)
    refused = (
        f"{path}: refused: it holds other things than tensors and plain values, which could run"
        " code"
    )
    with pytest.raises(UserError) as caught:
        latest_state(tmp_path)
    assert str(caught.value).startswith(refused)
    if as_torch:
        with pytest.raises(UserError) as caught:
            run_training(
                TrainingSpec(
                    settings_to_disturb(), manifest, tmp_path / "work", STOP, parent_checkpoint=path
                ),
                1,
            )
        assert str(caught.value).startswith(refused)
    assert not poison.folder.exists()
    poison.check_it_would_work(path)


@pytest.mark.fault("poisoned pickle as checkpoint or model")
@pytest.mark.parametrize("as_torch", [True, False])
def test_a_poisoned_model_is_refused(manifest: Path, tmp_path: Path, as_torch: bool) -> None:
    model, poison = tmp_path / "best.pt", Poison(tmp_path / "poisoned")
    poison.written(model, as_torch=as_torch)
    with pytest.raises(UserError) as caught:
        export_onnx(
            ExportSettings(export={}, origin="made up"),
            detector="clic",
            checkpoint=model,
            manifest=manifest,
            onnx=tmp_path / "model.onnx",
            parity=tmp_path / "parity.json",
            model_card=tmp_path / "card.md",
        )
    assert str(caught.value).startswith(
        f"{model}: refused: it holds other things than tensors and plain values, which could run"
        " code"
    )
    assert "\n" not in str(caught.value)
    assert not poison.folder.exists()
    poison.check_it_would_work(model)


# ---- trainings that cannot go well


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit the memory that this process and those it starts may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def search(manifest: Path, folder: Path, **space: Any) -> dict[tuple[int, int], dict[str, Any]]:
    """Run a search of two rungs, whose first configuration is a good one, and return its slots."""
    good = settings_of(gradient_clip=1e30)
    hpo = HpoConfig(
        scheduler="asha", first_rung_slots=2, eta=2, n_rungs=2, min_steps=4, space=space
    )
    settings = HpoSettings(seed=3, model=good.model, training=good.training, hpo=hpo)
    results = {}
    for rung, slot in dag.all_slots(hpo):
        output = folder / f"{rung}-{slot}.json"
        run_hpo_slot(
            settings,
            (rung, slot),
            manifest=manifest,
            work_dir=folder / "work",
            output=output,
        )
        results[rung, slot] = json.loads(output.read_text())
    return results


def outputs_of(folder: Path) -> dict[str, Path]:
    """Return the outputs of ``train_model`` by its arguments."""
    return {
        "work_dir": folder / "work",
        "model": folder / "best.pt",
        "last": folder / "last.pt",
        "metrics": folder / "metrics.parquet",
        "tensorboard": folder / "tensorboard",
    }


@pytest.mark.fault("divergent training")
def test_a_divergent_trial_fails_and_the_search_goes_on(manifest: Path, tmp_path: Path) -> None:
    slots = search(
        manifest,
        tmp_path,
        **{"training.learning_rate": {"type": "categorical", "choices": [1e30, 1e31]}},
    )
    assert [slot["status"] for slot in slots.values()] == ["complete", "diverged", "complete"]
    assert "gradient norm" in slots[0, 1]["reason"]
    assert slots[1, 0]["config"] == slots[0, 0]["config"]


@pytest.mark.fault("divergent training")
def test_a_divergent_final_training_names_the_remedy(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"training diverged: loss .*, gradient norm .*lower training\.learning_rate",
    ):
        train_model(
            settings_of(**DIVERGING), manifest=manifest, best_settings=None, **outputs_of(tmp_path)
        )


@pytest.mark.fault("out of memory")
def test_a_trial_without_memory_fails_and_the_search_goes_on(
    manifest: Path, tmp_path: Path, little_memory: None
) -> None:
    slots = search(
        manifest,
        tmp_path,
        **{"model.width": {"type": "categorical", "choices": [TOO_WIDE, 2 * TOO_WIDE]}},
    )
    assert [slot["status"] for slot in slots.values()] == ["complete", "failed", "complete"]
    assert slots[0, 1]["reason"].startswith("out of memory: ")
    assert slots[1, 0]["config"] == slots[0, 0]["config"]


@pytest.mark.fault("out of memory")
def test_a_final_training_without_memory_names_the_remedy(
    manifest: Path, tmp_path: Path, little_memory: None
) -> None:
    settings = settings_of()
    settings = settings.model_copy(
        update={"model": settings.model.model_copy(update={"width": TOO_WIDE})}
    )
    with pytest.raises(
        UserError,
        match=(
            r"training failed: out of memory: .*lower training\.elements_per_batch or model\.width"
        ),
    ):
        train_model(settings, manifest=manifest, best_settings=None, **outputs_of(tmp_path))


@pytest.mark.fault("training that takes too long")
def test_a_trial_that_takes_too_long_fails_and_keeps_its_state(
    manifest: Path, tmp_path: Path
) -> None:
    good = settings_of()
    hpo = HpoConfig(
        scheduler="none", first_rung_slots=1, n_rungs=1, min_steps=10**6, slot_minutes_max=0.05
    )
    settings = HpoSettings(seed=3, model=good.model, training=good.training, hpo=hpo)
    run_hpo_slot(
        settings,
        (0, 0),
        manifest=manifest,
        work_dir=tmp_path / "work",
        output=tmp_path / "slot.json",
    )
    slot = json.loads((tmp_path / "slot.json").read_text())
    assert slot["status"] == "failed"
    assert re.fullmatch(r"timed out: \d+ of 1000000 steps in 3 s", slot["reason"])
    (folder,) = (tmp_path / "work").glob("*/0-00000")
    assert f"step_{int(slot['reason'].split()[2]):09d}" in str(
        list_checkpoints(folder / CHECKPOINTS)[-1]
    )


def test_the_limit_counts_what_earlier_jobs_trained(manifest: Path, tmp_path: Path) -> None:
    spec = TrainingSpec(settings_of(), manifest, tmp_path, 10, time_limit_s=3600, spent_s=3600)
    result = run_training(spec, 1)
    assert (result.status, result.reason) == (
        "failed",
        f"timed out: {result.step} of 10 steps in 3600 s",
    )
    assert result.step < 10


# ---- ranks that die


def kill(rank: psutil.Process) -> None:
    rank.send_signal(signal.SIGKILL)


def starve(rank: psutil.Process) -> None:
    """Refuse the process's next request for memory.

    Whose it is decides what comes of it: Python's and torch's raise an exception, a C++ library's
    may end the process.
    """
    rank.rlimit(psutil.RLIMIT_AS, (1, 1))


KILLED = {"interrupted": "a training process was killed from outside after step"}


@pytest.mark.fault("one rank dies")
@pytest.mark.parametrize(
    ("strike", "reasons"),
    [(kill, KILLED), (starve, KILLED | {"failed": r"out of memory: |\w*(?:Error|Exception): "})],
)
def test_a_dead_rank_ends_all_and_the_rerun_is_as_undisturbed(
    manifest: Path, tmp_path: Path, whole: TrainingResult, strike: Any, reasons: dict[str, str]
) -> None:
    spec = TrainingSpec(settings_to_disturb(), manifest, tmp_path / "work", STEPS)
    job = start(spec, 2)
    wait_for(lambda: list_checkpoints(spec.work_dir / CHECKPOINTS))
    workers = workers_of(job)
    strike(next(process for process in workers if process.environ().get("RANK") == "1"))
    struck = time.monotonic()
    found = outcome(job, spec)
    assert time.monotonic() - struck < 60
    status, _, reason = found
    assert status in reasons
    assert re.match(reasons[status], reason)
    assert len(reason.splitlines()) == 1
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    check_equal(run_training(spec, 2), whole)


@pytest.mark.fault("one rank dies")
def test_a_training_killed_twice_at_a_step_has_failed(manifest: Path, tmp_path: Path) -> None:
    """Else a configuration that the system kills for its hunger for memory would hold up the search
    for ever.
    """
    spec = TrainingSpec(settings_to_disturb(), manifest, tmp_path / "work", STEPS)
    for status in ("interrupted", "failed"):
        job = start(spec, 1)
        for process in wait_for(lambda job=job: workers_of(job)):
            kill(process)
        assert outcome(job, spec)[0] == status
