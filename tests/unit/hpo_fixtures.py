"""A search without a network: settings, a manifest, and trainings whose loss is a formula of
parameters and step.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings
from particleforge.config.training import TrainingConfig
from particleforge.hpo import dag
from particleforge.hpo.slot import run_hpo_slot
from particleforge.training.launch import TrainingResult, TrainingSpec
from particleforge.training.spec import CHECKPOINTS

SPACE = {
    "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model.n_layers": {"type": "int", "low": 1, "high": 6},
    "model.width": {"type": "categorical", "choices": [16, 32, 64]},
}


class Killed(BaseException):
    """Stands in for SIGKILL: nothing in the package may catch it."""


def make_settings(**hpo: Any) -> HpoSettings:
    """Settings of a small search; keywords go to the ``hpo`` block."""
    fixed = {"scheduler": "asha", "sampler": "tpe"}
    block = {
        **fixed,
        "first_rung_slots": 4,
        "eta": 2,
        "n_rungs": 3,
        "min_steps": 5,
        "space": SPACE,
        **hpo,
    }
    return HpoSettings(
        seed=7, model=ModelConfig(), training=TrainingConfig(), hpo=HpoConfig(**block)
    )


def make_manifest(folder: Path, checksum: str = "0") -> Path:
    path = folder / "manifest.json"
    path.write_text(
        json.dumps({"provenance": {}, "splits": {"train": {"shards": [{"sha256": checksum}]}}})
    )
    (folder / "normalisation.json").write_text("{}")
    for split in ("train", "valid"):
        (folder / split).mkdir(exist_ok=True)
    return path


def loss_at(learning_rate: float, n_layers: int, step: int) -> float:
    """Best at a learning rate of 1e-2; deep models end better and start worse, so curves cross."""
    return 0.1 + math.log10(learning_rate / 1e-2) ** 2 / 10 + 0.5 / n_layers + 0.3 * n_layers / step


@dataclass
class FormulaTraining:
    """Called like ``run_training``.

    Keeps a checkpoint per step, starts from the parent's, and notes what it did.
    """

    fails: Callable[[TrainingSpec], str] = lambda spec: ""
    dies_before: Callable[[TrainingSpec, int], bool] = lambda spec, step: False
    steps_made: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, spec: TrainingSpec, ranks: int) -> TrainingResult:
        reason = self.fails(spec)
        if reason:
            return self._result(spec, "failed", reason, 0, {}, None)
        spec.work_dir.mkdir(parents=True, exist_ok=True)
        step, curve = self._resume(spec)
        while step < spec.until_step:
            step += 1
            if self.dies_before(spec, step):
                raise Killed
            self.steps_made.append((spec.work_dir.name, step))
            settings = spec.settings
            curve[step] = loss_at(settings.training.learning_rate, settings.model.n_layers, step)
            checkpoint = self._checkpoint(spec, step)
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_text(json.dumps({"step": step, "curve": curve}))
        return self._result(spec, "complete", "", step, curve, self._checkpoint(spec, step))

    def _checkpoint(self, spec: TrainingSpec, step: int) -> Path:
        return spec.work_dir / CHECKPOINTS / f"step_{step:09d}_0.pt"

    def _resume(self, spec: TrainingSpec) -> tuple[int, dict[int, float]]:
        own = sorted((spec.work_dir / CHECKPOINTS).glob("step_*.pt"))
        source = own[-1] if own else spec.parent_checkpoint
        if source is None:
            return 0, {}
        state = json.loads(source.read_text())
        return state["step"], {int(step): loss for step, loss in state["curve"].items()}

    def _result(
        self,
        spec: TrainingSpec,
        status: Any,
        reason: str,
        step: int,
        curve: dict[int, float],
        checkpoint: Path | None,
    ) -> TrainingResult:
        value = curve.get(spec.until_step)
        return TrainingResult(
            status=status,
            reason=reason,
            step=step,
            valid_loss=value,
            best_valid_loss=min(curve.values(), default=None),
            valid_curve=[[step, loss] for step, loss in curve.items()],
            checkpoint=checkpoint,
            best_checkpoint=checkpoint,
            metrics=None,
            seconds=1.0,
        )


@dataclass
class Search:
    """A search in a folder of its own, whose slots are run by hand."""

    folder: Path
    settings: HpoSettings = field(default_factory=make_settings)
    train: FormulaTraining = field(default_factory=FormulaTraining)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.manifest = self.folder / "manifest.json"
        if not self.manifest.exists():
            make_manifest(self.folder)
        self.work = self.folder / "work"

    def output(self, rung: int, slot: int) -> Path:
        return self.folder / "slots" / str(rung) / f"{slot}.json"

    def outputs(self) -> list[Path]:
        return [self.output(*place) for place in dag.all_slots(self.settings.hpo)]

    def run(self, rung: int, slot: int) -> dict[str, Any]:
        output = self.output(rung, slot)
        run_hpo_slot(
            self.settings,
            (rung, slot),
            manifest=self.manifest,
            work_dir=self.work,
            output=output,
            train=self.train,
        )
        return json.loads(output.read_text())

    def run_all(
        self, order: random.Random | None = None, *, again_after_kills: bool = False
    ) -> list[dict[str, Any]]:
        """Run every slot as soon as its parents have run: rung by rung, or in a random order that
        the graph allows.

        With ``again_after_kills`` a slot whose training was killed runs again at once.
        """
        waiting, done, results = list(dag.all_slots(self.settings.hpo)), set(), []
        while waiting:
            ready = [
                s for s in waiting if all(p in done for p in dag.parents_of(self.settings.hpo, *s))
            ]
            chosen = order.choice(ready) if order else ready[0]
            rung, slot = chosen
            while True:
                try:
                    results.append(self.run(rung, slot))
                    break
                except Killed:
                    if not again_after_kills:
                        raise
            waiting.remove(chosen)
            done.add(chosen)
        return results
