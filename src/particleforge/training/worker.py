"""One rank of a training, started by ``launch.run_training`` itself, by torchrun or by srun.

Inputs -> outputs: ``spec.json`` (first argument) -> in its folder checkpoints, ``metrics.parquet``,
``best.pt`` and ``result.json``, all by rank 0; on an error ``failure_rank<k>.json`` with kind and
reason, and exit status 1.

SIGTERM and SIGUSR1 let the step finish, save the state and end with status "interrupted"; so does
the approaching end of the Slurm job, and the death of the launcher, so that no training outlives
the job that asked for it.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import psutil
import torch

from particleforge import artefacts
from particleforge.config.load import differences
from particleforge.errors import UserError, explained
from particleforge.model.inputs import ModelInputs
from particleforge.model.saved import save_model
from particleforge.provenance.record import Provenance
from particleforge.tables.parquet import write_table
from particleforge.training.checkpoint import State, latest_state, list_checkpoints, read_checkpoint
from particleforge.training.distributed import (
    Workers,
    is_lost_rank,
    joined_workers,
    rank_environment,
)
from particleforge.training.metrics import (
    ROWS_FILE,
    MetricsLog,
    metrics_table,
    read_rows,
    trackers_of,
)
from particleforge.training.spec import (
    CHECKPOINTS,
    FAILURE_PATTERN,
    LAUNCHER_VARIABLE,
    LOST_RANK,
    OUT_OF_MEMORY,
    STOP_AT_VARIABLE,
    Status,
    TrainingResult,
    TrainingSpec,
    sources_of,
)
from particleforge.training.trainer import Trainer

log = logging.getLogger(__name__)
BEST_FILE = "best.pt"
METRICS_FILE = "metrics.parquet"
# in the text of an error that is a plain RuntimeError: torch's allocator, and a MemoryError in a
# communication hook
_TOLD_OF_MEMORY = ("can't allocate memory", "MemoryError")


class Interruption:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self._signalled = False
        self._stop_at = float(os.environ.get(STOP_AT_VARIABLE, "inf"))
        self._parent = os.getppid()
        self._launcher: psutil.Process | None = None
        if LAUNCHER_VARIABLE in os.environ:
            try:
                self._launcher = psutil.Process(int(os.environ[LAUNCHER_VARIABLE]))
            except psutil.NoSuchProcess:
                self._signalled = True
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True

    def __call__(self) -> bool:
        """Return True after a signal, when time is up, or when torchrun or launcher is gone."""
        return (
            self._signalled
            or time.time() >= self._stop_at
            or os.getppid() != self._parent
            or self._launcher_is_gone()
        )

    def _launcher_is_gone(self) -> bool:
        if self._launcher is None:
            return False
        try:
            return (
                not self._launcher.is_running() or self._launcher.status() == psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return True


def train(spec: TrainingSpec, workers: Workers, interrupted: Interruption) -> None:
    """Run the training from its newest state and, on rank 0, write its results."""
    started = time.monotonic()
    inputs = ModelInputs.from_manifest(spec.manifest)
    trainer = Trainer(spec, workers, inputs, interrupted)
    state = _state_to_resume(spec, workers, inputs)
    if state is not None:
        trainer.restore(state)
        if workers.is_main:
            log.info("going on after step %d", trainer.step)
    if workers.is_main:
        trainer.metrics = MetricsLog(
            spec.work_dir, trainer.step, trackers_of(spec), trainer.valid_curve
        )
    status: Status = "failed"
    try:
        status, reason = trainer.run()
    finally:
        if trainer.metrics:
            trainer.metrics.close(status)
    if workers.is_main:
        _write_results(spec, trainer, inputs, status, reason, time.monotonic() - started)


def _state_to_resume(spec: TrainingSpec, workers: Workers, inputs: ModelInputs) -> State | None:
    """Return the state that rank 0's newest undamaged checkpoint, or the parent, holds.

    None to start afresh.

    A parent that is missing, damaged or of another network or other data is a UserError.
    """
    folder = spec.work_dir / CHECKPOINTS
    found = latest_state(folder) if workers.is_main else None
    step = workers.sum(torch.tensor([found["step"] if found else 0], dtype=torch.float64)).item()
    if found is None and step:  # rank 0 removed what was damaged, so the newest is good
        found = latest_state(folder)
    if found is None and spec.parent_checkpoint is not None:
        found = read_checkpoint(spec.parent_checkpoint)
        if found is None:
            raise UserError(
                f"{spec.parent_checkpoint}: the checkpoint to start from is missing or damaged;"
                " rerun the training that wrote it"
            )
        _check_parent(spec, found, inputs)
    return found


def _check_parent(spec: TrainingSpec, state: State, inputs: ModelInputs) -> None:
    """Raise a UserError if a state is not one of this training's network, features and classes."""
    different = differences(state["model"], spec.settings.model.model_dump(mode="json"), "model.")
    if different:
        reason = f"its network has other settings: {', '.join(different[:5])}"
    elif state["inputs"] != inputs.plain():
        reason = (
            f"it was trained with other features, normalisation or classes than {spec.manifest} has"
        )
    else:
        return
    raise UserError(
        f"{spec.parent_checkpoint}: no checkpoint of this training: {reason}; name it as"
        " training.init_from, or train afresh"
    )


def _write_results(
    spec: TrainingSpec,
    trainer: Trainer,
    inputs: ModelInputs,
    status: Status,
    reason: str,
    seconds: float,
) -> None:
    work_dir, settings = spec.work_dir, spec.settings
    made = Provenance.of(
        "train_model", settings.plain(), [spec.manifest, *sources_of(settings.training)]
    ).plain()
    table = metrics_table(read_rows(work_dir / ROWS_FILE))
    write_table(work_dir / METRICS_FILE, [table], table.schema, {"provenance": made})
    best = trainer.best
    content = {
        "weights": best["weights"],
        "model": settings.model.model_dump(mode="json"),
        "inputs": inputs.plain(),
        "training": settings.training.model_dump(mode="json"),
        "execution": trainer.execution,
        "step": best["step"],
        "valid_loss": best["valid_loss"],
        "provenance": made,
    }
    save_model(work_dir / BEST_FILE, content)
    checkpoints = list_checkpoints(work_dir / CHECKPOINTS)
    curve = trainer.valid_curve
    TrainingResult(
        status=status,
        reason=reason,
        step=trainer.step,
        valid_loss=curve[-1][1] if curve else None,
        best_valid_loss=best["valid_loss"],
        valid_curve=curve,
        checkpoint=checkpoints[-1] if checkpoints else None,
        best_checkpoint=work_dir / BEST_FILE,
        metrics=work_dir / METRICS_FILE,
        seconds=seconds,
    ).write(work_dir, spec.identity(), spec.until_step)


def _failure(error: BaseException) -> dict[str, object]:
    text = str(error)
    if isinstance(error, UserError):
        kind = "user"
    elif isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        told in text for told in _TOLD_OF_MEMORY
    ):
        kind, text = "memory", f"{OUT_OF_MEMORY}: {text}"
    else:
        kind = LOST_RANK if is_lost_rank(error) else "error"
        text = f"{type(error).__name__}: {text}"
    return {"kind": kind, "reason": " ".join(text.split())[:500], "time": time.time()}


def main(spec_path: str) -> int:
    """Run one rank; return the exit status."""
    rank = rank_environment()[0]
    interrupted = Interruption()
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    work_dir = Path(spec_path).parent
    try:
        spec = TrainingSpec.read(Path(spec_path))
        if "OMP_NUM_THREADS" in os.environ:
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        with joined_workers(spec.settings.training.device) as workers:
            train(spec, workers, interrupted)
    except Exception as error:
        reason = (explained(error, work_dir) if isinstance(error, OSError) else None) or error
        log.error("rank %d: %s", rank, reason, exc_info=not isinstance(reason, UserError))
        with contextlib.suppress(OSError, UserError):  # a full disk may be the very reason
            artefacts.write_text(
                work_dir / FAILURE_PATTERN.format(rank), json.dumps(_failure(reason))
            )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
