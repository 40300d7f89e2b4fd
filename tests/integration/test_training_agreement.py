"""Trainers without a launcher: what one rank alone notices ends both at the same step.

A compiled network trains alike.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from particleforge.config.settings import TrainSettings
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.training.checkpoint import list_checkpoints, read_checkpoint
from particleforge.training.distributed import Workers
from particleforge.training.metrics import MetricsLog, read_rows
from particleforge.training.spec import TrainingSpec
from particleforge.training.trainer import Trainer

from ..unit.synthetic_shards import write_synthetic
from .training_jobs import settings_of

pytestmark = pytest.mark.integration
RANKS, STEPS = 2, 12


def trainer_of(
    folder: Path,
    name: str,
    workers: Workers,
    settings: TrainSettings,
    interrupted: Callable[[], bool],
) -> Trainer:
    manifest = folder / "shards" / "manifest.json"
    (folder / name).mkdir(exist_ok=True)
    trainer = Trainer(
        TrainingSpec(settings, manifest, folder / name, STEPS),
        workers,
        ModelInputs.from_manifest(manifest),
        interrupted,
    )
    if workers.is_main:
        trainer.metrics = MetricsLog(folder / name, 0, None)
    return trainer


def train_all(rank: int, folder: Path) -> None:
    """Run every training on one rank and write how each of them ended."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(minutes=2), world_size=RANKS, rank=rank
    )
    workers = Workers(rank, RANKS, torch.device("cpu"))
    found: dict[str, Any] = {}

    calls = iter(range(1000))
    interrupted = trainer_of(
        folder, "interrupted", workers, settings_of(), lambda: rank == 1 and next(calls) == 5
    )
    diverged = trainer_of(folder, "diverged", workers, settings_of(), lambda: False)
    original = diverged._train_step

    def poisoned(network: Any, micro_batches: Any, n_events: int) -> None:
        if rank == 1 and diverged.step == 6:
            micro_batches[0].target_p4.fill_(torch.nan)
        original(network, micro_batches, n_events)

    diverged._train_step = poisoned
    patient = settings_of(valid_every_steps=2, early_stopping_patience=2, learning_rate=1e-30)
    impatient = trainer_of(folder, "impatient", workers, patient, lambda: False)
    for name, trainer in {
        "interrupted": interrupted,
        "diverged": diverged,
        "impatient": impatient,
    }.items():
        status, reason = trainer.run()
        if trainer.metrics:
            trainer.metrics.close()
        found[name] = [status, trainer.step, reason]
    (folder / f"found_{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.fault("divergent training")
def test_ranks_end_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_synthetic(tmp_path / "shards")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # the host's name need not resolve
    torch.multiprocessing.spawn(train_all, (tmp_path,), nprocs=RANKS)
    first, second = (
        json.loads((tmp_path / f"found_{rank}.json").read_text()) for rank in range(RANKS)
    )
    assert first == second
    assert first["interrupted"] == [
        "interrupted",
        5,
        "stopped by a signal or the end of the job's time after 5 steps",
    ]
    assert first["diverged"][:2] == ["diverged", 6]
    assert "at step 7" in first["diverged"][2]
    assert first["impatient"][:2] == ["complete", 6]
    checkpoints = {name: list_checkpoints(tmp_path / name / "checkpoints") for name in first}
    assert read_checkpoint(checkpoints["interrupted"][-1])["step"] == 5
    assert read_checkpoint(checkpoints["diverged"][-1])["step"] == 4, "the last good one"
    rows = [
        row["values"]
        for row in read_rows(tmp_path / "impatient" / "metrics.jsonl")
        if row["split"] == "train"
    ]
    # a step tells the others its times with the next one
    assert rows[0]["communication_share"] <= 1
    assert all(
        0 < row["communication_share"] <= 1 and 0 <= row["loading_share"] <= 1 for row in rows[1:]
    )


def test_a_compiled_network_trains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced with free lengths, but without the compiler, which takes half a minute."""
    write_synthetic(tmp_path / "shards")
    traced = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(
        ParticleFlowNetwork, "compile", partialmethod(ParticleFlowNetwork.compile, backend=backend)
    )
    curves = []
    for on in (False, True):
        trainer = trainer_of(
            tmp_path,
            str(on),
            Workers(0, 1, torch.device("cpu")),
            settings_of(compile=on),
            lambda: False,
        )
        trainer.run()
        trainer.metrics.close()
        curves.append(dict(trainer.valid_curve))
    assert curves[1] == pytest.approx(curves[0], rel=1e-6)
    assert traced
