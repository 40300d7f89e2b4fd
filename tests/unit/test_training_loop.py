"""The training loop on one rank, in this process: exact resumption, ends, and the parts it is made
of.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from particleforge.config.settings import TrainSettings
from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.training import checkpoint
from particleforge.training.distributed import Workers
from particleforge.training.loader import ShardLoader
from particleforge.training.metrics import MetricsLog, metrics_table, read_rows
from particleforge.training.spec import TrainingSpec
from particleforge.training.timing import Shares, StepClock
from particleforge.training.trainer import Trainer

from .synthetic_shards import CLUSTER, TRACK, uneven, write_synthetic

TRAINING = {
    "max_steps": 12,
    "valid_every_steps": 4,
    "checkpoint_every_steps": 4,
    "log_every_steps": 3,
    "elements_per_batch": 256,
    "warmup_steps": 2,
    "learning_rate": 3e-3,
    "device": "cpu",
}
MODEL = {"width": 8, "n_layers": 1, "n_heads": 2}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


def settings_of(**changes: Any) -> TrainSettings:
    model = {key: changes.pop(key) for key in list(changes) if key in ("dropout", "width")}
    return TrainSettings(seed=4, model={**MODEL, **model}, training={**TRAINING, **changes})


def trainer_of(
    manifest: Path,
    work_dir: Path,
    settings: TrainSettings,
    until: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> Trainer:
    work_dir.mkdir(exist_ok=True)
    spec = TrainingSpec(settings, manifest, work_dir, until)
    return Trainer(
        spec, Workers(0, 1, torch.device("cpu")), ModelInputs.from_manifest(manifest), interrupted
    )


def run(
    trainer: Trainer, state: dict[str, Any] | None = None
) -> tuple[str, str, list[dict[str, Any]]]:
    """Run to the end and return status, reason and the recorded rows without speeds."""
    if state is not None:
        trainer.restore(state)
    trainer.metrics = MetricsLog(trainer.spec.work_dir, trainer.step, None)
    status, reason = trainer.run()
    trainer.metrics.close()
    rows = read_rows(trainer.spec.work_dir / "metrics.jsonl")
    for row in rows:
        row["values"] = {
            name: value
            for name, value in row["values"].items()
            if not name.endswith(("_per_s", "_share"))
        }
    return status, reason, rows


def flat(state: Any) -> dict[str, Any]:
    """Return the leaves of nested state by path."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {f"{key}/{path}": leaf for key, value in items for path, leaf in flat(value).items()}
    return {"": state}


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (
            torch.equal(value, other[name])
            if isinstance(value, torch.Tensor)
            else value == other[name]
        ), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "lamb", "ema_decay": 0.9, "dropout": 0.2, "accumulation_steps": 3},
        {"ema_decay": 0.9, "dropout": 0.2, "activation_checkpointing": True},
        {"precision": "bf16", "shuffle_shards": 1, "accumulation_steps": 2},
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(
    manifest: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = settings_of(**changes)
    whole = trainer_of(manifest, tmp_path / "whole", settings, 12)
    status, _, rows = run(whole)
    assert status == "complete"
    calls = iter(range(100))
    stopped = trainer_of(manifest, tmp_path / "parts", settings, 12, lambda: next(calls) == 7)
    assert run(stopped)[0] == "interrupted"
    assert stopped.step == 7
    resumed = trainer_of(manifest, tmp_path / "parts", settings, 12)
    status, _, resumed_rows = run(
        resumed, checkpoint.latest_state(tmp_path / "parts" / "checkpoints")
    )
    assert status == "complete"
    assert resumed_rows == rows
    assert_same_state(whole.state(), resumed.state())
    last = [
        checkpoint.list_checkpoints(tmp_path / name / "checkpoints")[-1]
        for name in ("whole", "parts")
    ]
    assert last[0].read_bytes() == last[1].read_bytes()


@pytest.mark.parametrize("weight_of", [None, uneven], ids=["unweighted", "weighted"])
def test_accumulation_has_the_gradient_and_the_loss_of_the_whole_batch(
    tmp_path: Path, weight_of: Callable[[np.ndarray], np.ndarray] | None
) -> None:
    """In one process; ``test_training`` of the integration tests has the same over ranks."""
    manifest = write_synthetic(tmp_path / "shards", weight_of=weight_of)
    found = {}
    for parts in (1, 2, 3, 40):  # 40 are more than a batch has events
        trainer = trainer_of(
            manifest,
            tmp_path / str(parts),
            settings_of(accumulation_steps=parts, log_every_steps=1),
            6,
        )
        gradients: list[Tensor] = []
        step = trainer.optimiser.step

        def kept(
            trainer: Trainer = trainer,
            gradients: list[Tensor] = gradients,
            step: Callable[[], Any] = step,
        ) -> None:
            gradients.append(
                torch.cat([parameter.grad.flatten() for parameter in trainer.network.parameters()])
            )
            step()

        trainer.optimiser.step = kept
        _, _, rows = run(trainer)
        found[parts] = (
            gradients[0],
            [row["values"]["loss"] for row in rows if row["split"] == "train"],
            trainer.valid_curve,
        )
    gradient, losses, valid = found.pop(1)
    for other, other_losses, other_valid in found.values():
        assert (other - gradient).norm() <= 1e-6 * gradient.norm()
        assert other_losses[0] == pytest.approx(losses[0], rel=1e-6)
        assert other_losses == pytest.approx(losses, rel=1e-5)
        assert dict(other_valid) == pytest.approx(dict(valid), rel=1e-5)
    assert other_losses != losses, "the sums were taken in another order"


def test_activation_checkpointing_changes_no_bit(manifest: Path, tmp_path: Path) -> None:
    states = []
    for on in (False, True):
        trainer = trainer_of(
            manifest, tmp_path / str(on), settings_of(activation_checkpointing=on, dropout=0.2), 4
        )
        run(trainer)
        assert trainer.network.checkpointing is on
        states.append(trainer.network.state_dict())
    assert_same_state(*states)


def test_going_on_with_other_accumulation_is_taken_down(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(trainer_of(manifest, tmp_path, settings_of(), 4))
    state = checkpoint.latest_state(tmp_path / "checkpoints")
    trainer = trainer_of(manifest, tmp_path, settings_of(accumulation_steps=2), 8)
    with caplog.at_level(logging.INFO):
        run(trainer, state)
    assert (
        "accumulation_steps: 1 -> 2 from step 4 on; the curve goes on up to rounding" in caplog.text
    )
    assert trainer.state()["execution"] == [
        {
            "from_step": 0,
            "ranks": 1,
            "parallelism": "ddp",
            "accumulation_steps": 1,
            "device": "cpu",
        },
        {
            "from_step": 4,
            "ranks": 1,
            "parallelism": "ddp",
            "accumulation_steps": 2,
            "device": "cpu",
        },
    ]


@pytest.mark.parametrize(
    ("before", "after"), [((2, 1), (1, 1)), ((1, 2), (3, 1)), ((4, 1), (2, 3))], ids=str
)
def test_the_sequence_of_events_does_not_depend_on_who_consumes_it(
    manifest: Path, before: tuple[int, int], after: tuple[int, int]
) -> None:
    """Seven steps with one number of ranks and of micro-batches, then on with others, into the next
    epoch: no repeats, no gaps.
    """
    inputs = ModelInputs.from_manifest(manifest)

    def consumed(
        ranks: int, parts: int, position: tuple[int, int], steps: int
    ) -> tuple[list[list[float]], tuple[int, int]]:
        streams = [
            ShardLoader(
                manifest,
                "train",
                inputs,
                budget=256,
                shards_in_memory=2,
                seed=4,
                rank=rank,
                world_size=ranks,
                parts=parts,
            ).stream(*position)
            for rank in range(ranks)
        ]
        found = []
        for _ in range(steps):
            of_step: list[float] = []
            for stream in streams:
                epoch, batch, micro_batches, _ = next(stream)
                for part in micro_batches:
                    # unlike for any two events
                    of_step += part.features.double().sum((1, 2)).tolist()
            found.append(sorted(value for value in of_step if value))
        return found, (epoch, batch)

    whole, _ = consumed(1, 1, (0, 0), 14)
    first, position = consumed(*before, (0, 0), 7)
    second, end = consumed(*after, position, 7)
    assert end[0] == 1, "the second epoch has begun"
    for step, expected in zip(first + second, whole, strict=True):
        assert step == pytest.approx(expected, rel=1e-9)


def test_shares_of_time_are_recorded(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(manifest, tmp_path, settings_of(), 6)
    original = trainer.train_loader.stream

    def slow(*position: int) -> Iterator[Any]:
        for item in original(*position):
            time.sleep(0.05)
            yield item

    trainer.train_loader.stream = slow
    trainer.metrics = MetricsLog(tmp_path, 0, None)
    with caplog.at_level(logging.INFO):
        trainer.run()
    trainer.metrics.close()
    rows = [
        row["values"] for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "train"
    ]
    assert len(rows) == 2
    for values in rows:
        assert 0 < values["loading_share"] <= 1
        assert values["communication_share"] == 0
    assert re.search(
        r"epoch \d: time of training: \d+% computation, \d+% waiting for data, 0% communication",
        caplog.text,
    )


def test_a_step_clock_tells_parts_apart() -> None:
    clock, shares = StepClock(), Shares()
    with clock.waiting():
        time.sleep(0.06)
    with clock.communicating():
        time.sleep(0.03)
    seconds = clock.taken()
    assert seconds[0] >= 0.06
    assert seconds[1] >= 0.03
    assert clock.taken() == [0.0, 0.0]
    shares.add(torch.tensor([0.02, 0.01], dtype=torch.float64))
    shares.skip(shares.seconds - 0.1)  # as if 0.1 s had passed, all but that a pause
    assert shares.taken() == pytest.approx((0.2, 0.1), rel=0.2)


def test_fine_tuning_starts_from_the_other_weights_and_averages_them(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = trainer_of(manifest, tmp_path / "first", settings_of(), 8)
    run(first)
    (source,) = checkpoint.list_checkpoints(tmp_path / "first" / "checkpoints")[-1:]
    with caplog.at_level(logging.INFO):
        tuned = trainer_of(
            manifest, tmp_path / "tuned", settings_of(init_from=str(source), ema_decay=0.9), 8
        )
    assert f"starting from {source}: " in caplog.text
    old, new = first.network.state_dict(), tuned.network.state_dict()
    for weights in (old, new):
        # clusters have fewer features than tracks: columns that nothing reads
        used = weights.pop("encoder.project.weight")
        weights["used columns"] = torch.cat(
            (used[:, : len(TRACK) + len(CLUSTER) + 1], used[:, -1:]), 1
        )
    assert_same_state(old, new)
    assert_same_state(tuned.network.state_dict(), tuned.averaged.state_dict())
    assert tuned.optimiser.state_dict()["state"] == {}
    assert (tuned.step, tuned.epoch, tuned.batch) == (0, 0, 0)


@pytest.mark.fault("fewer events than ranks")
def test_fewer_events_than_ranks_are_refused(tmp_path: Path) -> None:
    manifest = write_synthetic(tmp_path / "few", train=(3,), valid=2)
    spec = TrainingSpec(settings_of(), manifest, tmp_path, 4)
    with pytest.raises(
        UserError,
        match=r"manifest\.json: the train split has 3 events for 4 ranks; use fewer ranks$",
    ):
        Trainer(
            spec,
            Workers(0, 4, torch.device("cpu")),
            ModelInputs.from_manifest(manifest),
            lambda: False,
        )


def test_training_learns_and_ends_at_the_rung_on_the_same_schedule(
    manifest: Path, tmp_path: Path
) -> None:
    settings = settings_of(
        max_steps=60, valid_every_steps=20, checkpoint_every_steps=50, learning_rate=5e-3
    )
    whole = trainer_of(manifest, tmp_path / "whole", settings, 60)
    rung = trainer_of(manifest, tmp_path / "rung", settings, 20)
    _, _, rows = run(whole)
    assert whole.valid_curve[-1][1] < 0.8 * whole.valid_curve[0][1]
    run(rung)
    assert rung.step == 20
    promoted = trainer_of(manifest, tmp_path / "promoted", settings, 60)
    _, _, promoted_rows = run(promoted, checkpoint.latest_state(tmp_path / "rung" / "checkpoints"))
    assert promoted_rows == [row for row in rows if row["step"] > 20]
    assert promoted.valid_curve == whole.valid_curve


def test_early_stopping_counts_regular_validations(manifest: Path, tmp_path: Path) -> None:
    settings = settings_of(
        max_steps=40, valid_every_steps=2, early_stopping_patience=3, learning_rate=1e-30
    )
    trainer = trainer_of(manifest, tmp_path, settings, 40)
    status, reason, _ = run(trainer)
    # the first validation is the best, three more are not better
    assert (status, trainer.step) == ("complete", 8)
    assert "early stopping after 8 steps" in reason
    again = trainer_of(manifest, tmp_path, settings, 40)
    assert run(again, checkpoint.latest_state(tmp_path / "checkpoints"))[:2] == (status, reason)


def test_non_finite_loss_is_divergence_and_keeps_the_good_checkpoint(
    manifest: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(manifest, tmp_path, settings_of(), 12)
    original = trainer._train_step

    def poisoned(*arguments: Any) -> None:
        if trainer.step == 9:
            with torch.no_grad():
                trainer.network.encoder.project.weight[0, 0] = math.inf
        original(*arguments)

    trainer._train_step = poisoned
    status, reason, _ = run(trainer)
    assert status == "diverged"
    assert "at step 10" in reason
    state = checkpoint.latest_state(tmp_path / "checkpoints")
    assert state["step"] == 8
    assert all(value.isfinite().all() for value in state["network"].values())


@pytest.mark.fault("damaged checkpoint")
def test_damaged_checkpoint_gives_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        last = checkpoint.write_checkpoint(
            tmp_path, {"step": step, "weights": torch.full((50,), float(step))}
        )
    assert len(checkpoint.list_checkpoints(tmp_path)) == checkpoint.KEPT
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(bytes(content))
    assert checkpoint.latest_state(tmp_path)["step"] == 2
    assert "is damaged" in caplog.text


def test_metrics_restart_where_the_training_does(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, None)
    for step in (1, 2, 3):
        log.add(step, 0, "train", {"loss": step / 2})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 4, "cut o')
    log = MetricsLog(tmp_path, 2, None)
    log.add(3, 0, "train", {"loss": 9.0, "gradient_norm": 1.0})
    log.close()
    table = metrics_table(read_rows(tmp_path / "metrics.jsonl")).to_pylist()
    assert [(row["step"], row["name"], row["value"]) for row in table] == [
        (1, "loss", 0.5),
        (2, "loss", 1.0),
        (3, "loss", 9.0),
        (3, "gradient_norm", 1.0),
    ]
