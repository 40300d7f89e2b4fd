"""What a search costs beside its trainings: access to the study, and reading a checkpoint.

Both are measured, for ``hpo_scaling``, which simulates searches with these costs.
"""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings
from particleforge.config.training import TrainingConfig
from particleforge.hpo.journal import JOURNAL
from particleforge.hpo.study import Study, open_study

SIZES_MEASURED = (100, 300, 1000)  # trials in the study
SPACE = {
    "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "training.weight_decay": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model.width": {"type": "categorical", "choices": [32, 64, 96]},
    "model.n_layers": {"type": "int", "low": 1, "high": 4},
}


@dataclass(frozen=True)
class Costs:
    """Seconds of one slot beside its training; the study's are (at no trial, per trial in it)."""

    start: float
    open: tuple[float, float]
    claim: tuple[float, float]
    finish: tuple[float, float]
    load: float

    def at(self, part: str, n_trials: int) -> float:
        """Return what a part takes with so many trials in the study."""
        constant, slope = getattr(self, part)
        return float(max(0.0, constant + slope * n_trials))


def study_costs(samplers: Sequence[str]) -> list[dict[str, Any]]:
    """Return what opening, claiming and finishing cost at several sizes of the study, by sampler.

    A cost is CPU time, which other work on the machine changes little, and for each record the time
    of one sync to the disk.
    """
    block = {
        "scheduler": "asha",
        "first_rung_slots": 2 * max(SIZES_MEASURED),
        "n_rungs": 1,
        "space": SPACE,
    }
    measured = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = folder / "manifest.json"
        manifest.write_text(json.dumps({"splits": {}}))
        chosen = {
            sampler: HpoSettings(
                seed=1,
                model=ModelConfig(),
                training=TrainingConfig(),
                hpo=HpoConfig(**block, sampler=sampler),
            )
            for sampler in {"random", *samplers}
        }
        filling = open_study(chosen["random"], manifest, folder / "work")
        sync = sync_seconds(folder)
        slot = 0
        journal = folder / "work" / JOURNAL
        for size in SIZES_MEASURED:
            with mock.patch("os.fsync"):
                while slot < size:
                    one_slot(filling, slot)
                    slot += 1
            for sampler in samplers:
                repeats = []
                for _ in range(5):
                    records, start = len(journal.read_bytes().splitlines()), time.process_time()
                    fresh = open_study(chosen[sampler], manifest, folder / "work")
                    opened = time.process_time() - start
                    claim, finish = one_slot(fresh, slot)
                    slot += 1
                    records = len(journal.read_bytes().splitlines()) - records
                    repeats.append((opened, claim + sync, finish + (records - 1) * sync, records))
                costs = dict(
                    zip(
                        ("open", "claim", "finish", "records"),
                        np.median(repeats, axis=0).tolist(),
                        strict=True,
                    )
                )
                measured.append({"sampler": sampler, "n": slot, **costs, "sync": sync})
    return measured


def lines_through(measured: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return each part's cost at no trial and per trial, by least squares."""
    lines = {}
    for part in ("open", "claim", "finish"):
        slope, constant = np.polyfit([m["n"] for m in measured], [m[part] for m in measured], 1)
        lines[part] = (float(constant), float(slope))
    return lines


def one_slot(study: Study, slot: int) -> tuple[float, float]:
    """Claim and finish a slot of the first rung, with four validations.

    Return the CPU seconds of both.
    """
    start = time.process_time()
    trial = study.claim(0, slot)
    claimed = time.process_time()
    assert trial is not None
    study.finish(
        trial, "complete", value=1.0 / (slot + 1), curve={25: 2.0, 50: 1.5, 75: 1.2}, seconds=1.0
    )
    return claimed - start, time.process_time() - claimed


def sync_seconds(folder: Path) -> float:
    """Return the time of one sync to the disk, median of 21."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(21):
            start = time.perf_counter()
            file.write(b"0" * 200)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def checkpoint_seconds() -> tuple[float, float]:
    """Return the seconds to read a checkpoint of the default network, and its size in MB."""
    import torch
    from backbone_cost import random_network

    from particleforge.training.checkpoint import read_checkpoint, write_checkpoint

    network = random_network(ModelConfig().backbone)
    optimiser = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(
            Path(folder),
            {"step": 1, "network": network.state_dict(), "optimiser": optimiser.state_dict()},
        )
        times = []
        for _ in range(5):
            start = time.perf_counter()
            assert read_checkpoint(path) is not None
            times.append(time.perf_counter() - start)
        return float(np.median(times)), path.stat().st_size / 1e6
