"""Every parallelism of a training gives DDP's curve on its ranks, and continues others' states."""

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from particleforge.config.settings import TrainSettings
from particleforge.model.saved import load_model
from particleforge.training.checkpoint import latest_state
from particleforge.training.launch import run_training
from particleforge.training.spec import CHECKPOINTS, TrainingResult, TrainingSpec

from ..unit.synthetic_shards import uneven, write_synthetic
from .training_jobs import losses

pytestmark = pytest.mark.integration
STEPS, TOLERANCE = 50, 1e-4
MODEL = {"width": 16, "n_layers": 4, "n_heads": 4}
TRAINING = {
    "max_steps": STEPS,
    "valid_every_steps": 25,
    "checkpoint_every_steps": 1000,
    "log_every_steps": 1,
    "elements_per_batch": 128,
    "learning_rate": 3e-3,
    "gradient_clip": 0.5,
    "ema_decay": 0.9,
    "warmup_steps": 2,
    "device": "cpu",
}


def settings_of(model: dict[str, Any] | None = None, **training: Any) -> TrainSettings:
    return TrainSettings(seed=4, model=MODEL | (model or {}), training=TRAINING | training)


def free_port() -> int:
    """Return a port below those that the system gives to outgoing connections, so that it stays
    free until rank 0 has started.
    """
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def train_on(ranks: int, specs: Sequence[TrainingSpec], folder: Path) -> dict[str, TrainingResult]:
    """Make the trainings one after another on the same ranks.

    Several in one work folder go on from each other.

    Return the last result of each work folder, by its name.
    """
    paths = []
    for number, spec in enumerate(specs):
        (spec.work_dir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{ranks}_{number}.spec.json")
        spec.write().rename(paths[-1])
    common = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    processes = []
    for rank in range(ranks):
        environment = (
            os.environ
            | common
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        )
        command = [
            sys.executable,
            str(Path(__file__).with_name("rank_of_trainings.py")),
            *map(str, paths),
        ]
        with (folder / f"{ranks}_{rank}.log").open("wb") as output:
            processes.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=output)
            )
    try:
        ends = [process.wait(timeout=600) for process in processes]
        assert ends == [0] * ranks, (folder / f"{ranks}_0.log").read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    last = {spec.work_dir.name: spec for spec in specs}
    results = {
        name: TrainingResult.read(spec.work_dir, spec.identity(), spec.until_step)
        for name, spec in last.items()
    }
    assert None not in results.values()
    return results


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


FORMS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero2": {"parallelism": "zero2"},
    "fsdp": {"parallelism": "fsdp", "accumulation_steps": 2, "activation_checkpointing": True},
    "tensor": {"parallelism": "tensor"},
    "pipeline": {"parallelism": "pipeline"},
    "pipeline of micro-batches": {"parallelism": "pipeline", "accumulation_steps": 3},
}
CHAIN: list[dict[str, Any]] = [
    {},
    {"parallelism": "fsdp"},
    {"parallelism": "tensor"},
    {"parallelism": "pipeline", "accumulation_steps": 2},
]


@pytest.fixture(scope="module")
def on_two_ranks(
    manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainingResult]:
    """Return trainings of 50 steps in every parallelism, and one of 40 that changes it every 10."""
    folder = tmp_path_factory.mktemp("two")
    specs = [
        TrainingSpec(settings_of(**own), manifest, folder / name, STEPS)
        for name, own in FORMS.items()
    ]
    specs += [
        TrainingSpec(settings_of(**own), manifest, folder / "chain", 10 * number)
        for number, own in enumerate(CHAIN, start=1)
    ]
    extreme = {"learning_rate": 1e30, "gradient_clip": 1e30, "warmup_steps": 0}
    for name in ("fsdp", "tensor", "pipeline"):
        specs.append(
            TrainingSpec(
                settings_of(parallelism=name, **extreme),
                manifest,
                folder / f"diverging {name}",
                STEPS,
            )
        )
    for name in ("ddp", "tensor", "pipeline"):
        half = settings_of(parallelism=name, precision="bf16", accumulation_steps=2)
        specs.append(TrainingSpec(half, manifest, folder / f"bf16 {name}", 10))
    weighted = write_synthetic(folder / "shards", weight_of=uneven)
    for name in ("ddp", "pipeline of micro-batches"):
        own = settings_of(**FORMS[name])
        specs.append(TrainingSpec(own, weighted, folder / f"weighted {name}", 10))
    return train_on(2, specs, folder)


def assert_same_curve(
    result: TrainingResult, reference: TrainingResult, steps: int = STEPS
) -> None:
    found, expected = losses(result.metrics), losses(reference.metrics)
    assert list(found) == list(range(1, steps + 1))
    assert [abs(found[step] - expected[step]) for step in found] == pytest.approx(
        [0.0] * steps, abs=TOLERANCE
    )
    valid, expected_valid = dict(result.valid_curve), dict(reference.valid_curve)
    assert valid.keys() & expected_valid.keys()
    for step in valid.keys() & expected_valid.keys():
        assert valid[step] == pytest.approx(expected_valid[step], abs=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "ddp"])
def test_every_parallelism_has_the_curve_of_ddp(
    on_two_ranks: dict[str, TrainingResult], name: str
) -> None:
    reference, result = on_two_ranks["ddp"], on_two_ranks[name]
    assert result.status == "complete"
    assert losses(reference.metrics)[STEPS] < 0.8 * losses(reference.metrics)[1], (
        "it learns, so that a curve is something to compare"
    )
    assert_same_curve(result, reference)
    state, expected = (latest_state(found.checkpoint.parent) for found in (result, reference))
    for part in ("network", "averaged"):
        assert list(state[part]) == list(expected[part])
        for key, value in expected[part].items():
            # single weights whose gradient is rounding alone go where Adam takes them
            difference = (state[part][key].double() - value.double()).norm()
            assert difference <= 0.02 * value.double().norm() + 1e-3, key
    assert state["optimiser"]["param_groups"] == expected["optimiser"]["param_groups"]
    assert list(state["optimiser"]["state"]) == list(expected["optimiser"]["state"])
    for index, moments in expected["optimiser"]["state"].items():
        for key, value in moments.items():
            found = state["optimiser"]["state"][index][key]
            assert found.shape == value.shape
            assert (found - value).norm() <= 0.01 * value.norm() + 1e-6, (index, key)
    load_model(result.best_checkpoint)


@pytest.mark.parametrize("name", ["tensor", "pipeline"])
def test_parallelisms_agree_in_bf16_to_its_rounding(
    on_two_ranks: dict[str, TrainingResult], name: str
) -> None:
    found, expected = (
        losses(on_two_ranks[f"bf16 {parallelism}"].metrics) for parallelism in (name, "ddp")
    )
    assert found == pytest.approx(expected, rel=0.01)
    assert found != losses(on_two_ranks["ddp"].metrics)


def test_weights_of_events_go_down_the_pipeline(on_two_ranks: dict[str, TrainingResult]) -> None:
    found, expected = (
        losses(on_two_ranks[f"weighted {name}"].metrics)
        for name in ("pipeline of micro-batches", "ddp")
    )
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert found != pytest.approx(losses(on_two_ranks["ddp"].metrics), abs=TOLERANCE)


def test_ranks_hold_their_part_only(on_two_ranks: dict[str, TrainingResult]) -> None:
    text = (on_two_ranks["ddp"].metrics.parent.with_name("2_0.log")).read_text()
    shares = {}
    for name, held, whole in re.findall(
        r"parallelism (\w+): rank 0 holds (\d+) of (\d+) parameters", text
    ):
        shares[name] = int(held) / int(whole)
    assert shares["ddp"] == 1
    assert shares["zero2"] == shares["fsdp"] == pytest.approx(0.5, abs=0.01)
    assert shares["tensor"] < 0.65  # what is not divided weighs much in so small a network
    assert shares["pipeline"] < 0.6


def test_a_state_goes_on_under_every_parallelism(
    on_two_ranks: dict[str, TrainingResult], manifest: Path
) -> None:
    """DDP to step 10, then FSDP, tensor and pipeline parallel on two ranks, at last one rank.

    Moments and average included.
    """
    chain = on_two_ranks["chain"]
    assert chain.step == 10 * len(CHAIN)
    last = chain.metrics.parent.with_name("last")
    spec = TrainingSpec(settings_of(), manifest, last, STEPS, parent_checkpoint=chain.checkpoint)
    result = run_training(spec, 1)
    assert (result.status, result.step) == ("complete", STEPS)
    found = losses(chain.metrics) | losses(result.metrics)
    expected = losses(on_two_ranks["ddp"].metrics)
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert result.valid_curve[-1] == pytest.approx(
        on_two_ranks["ddp"].valid_curve[-1], abs=TOLERANCE
    )
    made = [
        (entry["from_step"], entry["ranks"], entry["parallelism"])
        for entry in latest_state(result.checkpoint.parent)["execution"]
    ]
    assert made == [
        (0, 2, "ddp"),
        (10, 2, "fsdp"),
        (20, 2, "tensor"),
        (30, 2, "pipeline"),
        (40, 1, "ddp"),
    ]


@pytest.mark.parametrize("name", ["fsdp", "tensor", "pipeline"])
def test_all_ranks_of_a_parallelism_agree_on_divergence(
    on_two_ranks: dict[str, TrainingResult], name: str
) -> None:
    result = on_two_ranks[f"diverging {name}"]
    assert result.status == "diverged"
    assert "gradient norm" in result.reason


def test_groups_of_ranks_share_events_and_copies_of_the_network(
    on_two_ranks: dict[str, TrainingResult], manifest: Path, tmp_path: Path
) -> None:
    """On four ranks: two pairs that share a network each, and FSDP over all four."""
    variants = [
        {"parallelism": "fsdp"},
        {"parallelism": "tensor"},
        {"parallelism": "pipeline", "accumulation_steps": 2},
    ]
    variants.append({"parallelism": "pipeline", "model_parallel_ranks": 4})
    specs = [
        TrainingSpec(settings_of(**own), manifest, tmp_path / str(number), 10)
        for number, own in enumerate(variants)
    ]
    for result in train_on(4, specs, tmp_path).values():
        # whose first ten steps are DDP's, with a validation after them
        assert_same_curve(result, on_two_ranks["chain"], 10)
