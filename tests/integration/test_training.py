"""Trainings as real processes: ranks agree, kills lose nothing, a dead rank ends all."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

from particleforge.errors import UserError
from particleforge.model.saved import load_model
from particleforge.training.checkpoint import list_checkpoints, read_checkpoint
from particleforge.training.launch import run_training
from particleforge.training.spec import CHECKPOINTS, TrainingSpec
from particleforge.training.train import train_model

from ..unit.synthetic_shards import uneven, write_synthetic
from .training_jobs import LONG, losses, outcome, settings_of, start, wait_for, workers_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


def test_two_ranks_train_like_one(manifest: Path, tmp_path: Path) -> None:
    results = {
        n: run_training(TrainingSpec(settings_of(), manifest, tmp_path / f"ranks{n}", 16), n)
        for n in (1, 2)
    }
    assert [result.status for result in results.values()] == ["complete", "complete"]
    one, two = (losses(result.metrics) for result in results.values())
    assert len(one) == 16
    assert two == pytest.approx(one, rel=1e-5)
    assert two[1] == pytest.approx(one[1], rel=1e-6)
    again = run_training(TrainingSpec(settings_of(), manifest, tmp_path / "again", 16), 2)
    assert losses(again.metrics) == two
    assert again.valid_curve == results[2].valid_curve


@pytest.mark.parametrize("weight_of", [None, uneven], ids=["unweighted", "weighted"])
def test_any_ranks_and_accumulation_have_the_loss_and_gradient_of_one(
    tmp_path: Path, weight_of: Callable[[np.ndarray], np.ndarray] | None
) -> None:
    manifest = write_synthetic(tmp_path / "shards", weight_of=weight_of)
    gradients, first_losses = [], []
    for ranks, parts in ((1, 1), (2, 1), (4, 1), (2, 3)):
        settings = settings_of(weight_decay=0.0, accumulation_steps=parts)
        result = run_training(
            TrainingSpec(settings, manifest, tmp_path / f"ranks{ranks}_{parts}", 1), ranks
        )
        # after one step: a tenth of the gradient
        moments = read_checkpoint(result.checkpoint)["optimiser"]["state"]
        gradients.append(torch.cat([moments[i]["exp_avg"].flatten() for i in sorted(moments)]))
        first_losses.append(losses(result.metrics)[1])
    assert gradients[0].norm() > 0
    for gradient, loss in zip(gradients[1:], first_losses[1:], strict=True):
        assert (gradient - gradients[0]).norm() <= 1e-6 * gradients[0].norm()
        assert loss == pytest.approx(first_losses[0], rel=1e-6)


def test_other_ranks_go_on_with_the_same_events(
    manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = run_training(TrainingSpec(settings_of(ranks=1), manifest, tmp_path / "whole", 16), 1)
    run_training(TrainingSpec(settings_of(ranks=2), manifest, tmp_path / "moved", 8), 2)
    capfd.readouterr()
    moved = run_training(
        TrainingSpec(settings_of(ranks=1, accumulation_steps=2), manifest, tmp_path / "moved", 16),
        1,
    )
    text = capfd.readouterr().err
    assert "going on after step 8" in text
    assert (
        "ranks: 2 -> 1, accumulation_steps: 1 -> 2 from step 8 on; the curve goes on up to rounding"
        in text
    )
    assert len(losses(moved.metrics)) == 16
    assert losses(moved.metrics) == pytest.approx(losses(whole.metrics), rel=1e-5)
    assert dict(moved.valid_curve) == pytest.approx(dict(whole.valid_curve), rel=1e-5)
    assert [part["from_step"] for part in load_model(moved.best_checkpoint)[1]["execution"]] == [
        0,
        8,
    ]


def test_killed_and_rerun_equals_uninterrupted(manifest: Path, tmp_path: Path) -> None:
    settings = settings_of(max_steps=400, checkpoint_every_steps=25, valid_every_steps=50)
    whole = run_training(TrainingSpec(settings, manifest, tmp_path / "whole", 400), 1)
    spec = TrainingSpec(settings, manifest, tmp_path / "killed", 400)
    job = start(spec, 1)
    wait_for(lambda: list_checkpoints(spec.work_dir / CHECKPOINTS))
    for process in [*workers_of(job), job]:
        process.kill()
    job.wait()
    assert not (spec.work_dir / "result.json").exists()
    result = run_training(spec, 1)
    assert result.status == "complete"
    assert losses(result.metrics) == losses(whole.metrics)
    assert result.valid_curve == whole.valid_curve
    assert result.best_checkpoint.read_bytes() == whole.best_checkpoint.read_bytes()
    assert result.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_rerun_goes_on(
    manifest: Path, tmp_path: Path, number: signal.Signals
) -> None:
    spec = TrainingSpec(
        settings_of(max_steps=LONG, checkpoint_every_steps=LONG, log_every_steps=LONG),
        manifest,
        tmp_path / "work",
        LONG,
    )
    job = start(spec, 2)
    # a validation is done
    wait_for(
        lambda: (
            (spec.work_dir / "metrics.jsonl").exists()
            and (spec.work_dir / "metrics.jsonl").read_text()
        )
    )
    job.send_signal(number)
    status, step, _ = outcome(job, spec)
    assert status == "interrupted"
    (saved,) = list_checkpoints(spec.work_dir / CHECKPOINTS)
    assert int(saved.stem.split("_")[1]) == int(step) > 0


def test_orphaned_workers_end_and_free_the_folder(manifest: Path, tmp_path: Path) -> None:
    spec = TrainingSpec(
        settings_of(max_steps=LONG, valid_every_steps=LONG), manifest, tmp_path / "work", LONG
    )
    job = start(spec, 2)
    wait_for(lambda: list_checkpoints(spec.work_dir / CHECKPOINTS))
    workers = workers_of(job)
    job.kill()
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    job.wait()


@pytest.mark.fault("weights of another architecture")
def test_what_a_worker_refuses_is_one_line(manifest: Path, tmp_path: Path) -> None:
    other = settings_of().model_copy(
        update={"model": settings_of().model.model_copy(update={"width": 16})}
    )
    parent = run_training(TrainingSpec(other, manifest, tmp_path / "other", 4), 1)
    spec = TrainingSpec(
        settings_of(), manifest, tmp_path / "work", 8, parent_checkpoint=parent.checkpoint
    )
    with pytest.raises(
        UserError,
        match=(
            r"no checkpoint of this training: its network has other settings: model\.width: 16 ->"
            r" 8; name it"
        ),
    ):
        run_training(spec, 2)
    empty = write_synthetic(tmp_path / "empty", valid=0)
    with pytest.raises(UserError, match="the valid split has no events"):
        run_training(TrainingSpec(settings_of(), empty, tmp_path / "empty_work", 8), 2)


def test_rungs_go_on_from_the_parents_checkpoint(manifest: Path, tmp_path: Path) -> None:
    whole = run_training(TrainingSpec(settings_of(), manifest, tmp_path / "whole", 16), 1)
    first = run_training(TrainingSpec(settings_of(), manifest, tmp_path / "rung0", 8), 1)
    promoted = run_training(
        TrainingSpec(
            settings_of(), manifest, tmp_path / "rung1", 16, parent_checkpoint=first.checkpoint
        ),
        1,
    )
    assert first.step == 8
    assert promoted.step == 16
    assert {**losses(first.metrics), **losses(promoted.metrics)} == losses(whole.metrics)
    assert promoted.valid_curve == whole.valid_curve
    assert promoted.best_checkpoint.read_bytes() == whole.best_checkpoint.read_bytes()


@pytest.mark.parametrize("own", [{"schedule_steps": 20}, {"schedule": "constant"}], ids=str)
def test_a_longer_training_goes_on_and_equals_one_that_was_so_long(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, own: dict[str, Any]
) -> None:
    own |= {"log_every_steps": 3}  # no divisor of 8: the mean over steps 7 to 9 spans both runs
    whole = run_training(
        TrainingSpec(settings_of(max_steps=16, **own), manifest, tmp_path / "whole", 16), 1
    )
    first = run_training(
        TrainingSpec(settings_of(max_steps=8, **own), manifest, tmp_path / "work", 8), 1
    )
    rows = pq.read_table(first.metrics).to_pylist()
    with caplog.at_level(logging.INFO):
        longer = run_training(
            TrainingSpec(settings_of(max_steps=16, **own), manifest, tmp_path / "work", 16), 1
        )
    assert "step 8 of 16 is there already; going on from it" in caplog.text
    assert pq.read_table(longer.metrics).to_pylist()[: len(rows)] == rows, (
        "speeds too, so these steps were not made again"
    )
    made_once = losses(longer.metrics)
    made_once.pop(8)  # the first run's last row, a mean over steps 7 and 8
    assert made_once == losses(whole.metrics)
    assert longer.valid_curve == whole.valid_curve
    assert longer.best_checkpoint.read_bytes() == whole.best_checkpoint.read_bytes()
    assert longer.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_another_schedule_or_fewer_steps_start_afresh_and_say_why(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(steps: int) -> dict[int, float]:
        caplog.clear()
        return losses(
            run_training(
                TrainingSpec(settings_of(max_steps=steps), manifest, tmp_path / "work", steps), 1
            ).metrics
        )

    train(4)
    curve = train(8)
    assert (
        "starting afresh, not from step 4: training.schedule_steps: 4 -> 8; fix"
        " training.schedule_steps" in caplog.text
    )
    assert curve == losses(
        run_training(
            TrainingSpec(settings_of(max_steps=8), manifest, tmp_path / "whole", 8), 1
        ).metrics
    )
    fixed = settings_of(max_steps=8, schedule="constant")
    run_training(TrainingSpec(fixed, manifest, tmp_path / "fixed", 8), 1)
    run_training(TrainingSpec(fixed, manifest, tmp_path / "fixed", 4), 1)
    assert (
        "starting afresh, not from step 8: 4 steps are asked for, fewer than were made"
        in caplog.text
    )


def test_train_model_hands_over_all_files_and_stores_its_result(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best_settings = tmp_path / "best.yaml"
    best_settings.write_text("model: {width: 12}\ntraining: {learning_rate: 0.002}\n")
    outputs = [
        tmp_path / "out" / name for name in ("best.pt", "last.pt", "metrics.parquet", "tensorboard")
    ]

    def train() -> list[bytes]:
        train_model(
            settings_of(),
            manifest=manifest,
            best_settings=best_settings,
            work_dir=tmp_path / "work",
            model=outputs[0],
            last=outputs[1],
            metrics=outputs[2],
            tensorboard=outputs[3],
        )
        return [path.read_bytes() for path in outputs[:3]]

    first = train()
    network, meta = load_model(outputs[0])
    assert network.config.width == 12
    assert meta["training"]["learning_rate"] == 0.002
    assert meta["valid_loss"] == min(losses(outputs[2], "valid").values())
    assert meta["provenance"]["settings"]["model"]["width"] == 12
    assert len(list(outputs[3].glob("events.out.tfevents.*"))) == 1
    for path in outputs[3].iterdir():
        path.unlink()
    with caplog.at_level(logging.INFO):
        assert train() == first
    assert "training is done already" in caplog.text
    assert len(list(outputs[3].glob("events.out.tfevents.*"))) == 1
    best_settings.write_text("model: {width: 16}\n")
    assert train()[0] != first[0]
    assert load_model(outputs[0])[0].config.width == 16
