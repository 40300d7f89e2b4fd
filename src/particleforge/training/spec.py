"""What one training is asked to do and what came of it, as plain values that cross processes."""

import logging
import re
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from particleforge.artefacts import settings_hash, sha256, write_json
from particleforge.config.settings import TrainSettings
from particleforge.config.training import EXECUTION, TrainingConfig
from particleforge.errors import UserError
from particleforge.stored import Stored, held_to, read_json, read_stored

log = logging.getLogger(__name__)
SPEC_FILE = "spec.json"
RESULT_FILE = "result.json"
CHECKPOINTS = "checkpoints"
LAUNCHER_VARIABLE = "PARTICLEFORGE_LAUNCHER_PID"  # names the process whose end ends the training
STOP_AT_VARIABLE = "PARTICLEFORGE_STOP_AT_UNIX_S"  # when ranks must save their state and end
FAILURE_PATTERN = "failure_rank{}.json"
LOST_RANK = "lost rank"  # kind of a failure that only follows from another rank's end
OUT_OF_MEMORY = "out of memory"  # how the reason of such a failure begins
TIMED_OUT = "timed out"  # likewise
_CHECKPOINT = re.compile(r"step_\d+_\w+\.pt")
Status = Literal["complete", "diverged", "interrupted", "failed"]


def checksum_of_source(training: TrainingConfig) -> str | None:
    """Return the SHA-256 of the file that a training takes its first weights from, if any.

    UserError if it is not there.
    """
    if training.init_from is None:
        return None
    try:
        return sha256(training.init_from)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"training.init_from: {training.init_from}: {reason}; give the best.pt or a checkpoint"
            " of a training"
        ) from error


def sources_of(training: TrainingConfig) -> list[Path]:
    """Return the file, if any, that a training takes its first weights from, for its provenance."""
    return [Path(training.init_from)] if training.init_from else []


_FILES = ("checkpoint", "best_checkpoint", "metrics")


class SpecFile(Stored):
    """What is read of a training's spec."""

    KIND = "training_spec"
    REMEDY = "delete it, then run again"
    settings: dict[str, Any]
    manifest: str
    work_dir: str
    until_step: int
    parent_checkpoint: str | None
    tensorboard: str | None


class ResultFile(Stored):
    """What is read of a training's result."""

    KIND = "training_result"
    REMEDY = "it is made again"
    MAY_LACK_KIND: ClassVar[bool] = True
    status: Status
    reason: str
    step: int
    valid_loss: float | None
    best_valid_loss: float | None
    valid_curve: list[Annotated[list[float], Field(min_length=2, max_length=2)]]
    checkpoint: str | None
    best_checkpoint: str | None
    metrics: str | None
    seconds: float
    identity: str
    until_step: int
    checksums: dict[str, str] = Field(default_factory=dict)


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder by rising step; files of other names are none."""
    return sorted(path for path in folder.glob("step_*.pt") if _CHECKPOINT.match(path.name))


def newest_checkpoint(work_dir: Path) -> Path | None:
    """Return the newest checkpoint in a work folder, None if there is none."""
    return max(checkpoints_in(work_dir / CHECKPOINTS), default=None)


def newest_step(work_dir: Path) -> int:
    """Return the step of the newest checkpoint in a work folder, 0 if there is none."""
    newest = newest_checkpoint(work_dir)
    return int(newest.stem.split("_")[1]) if newest else 0


def last_saved(work_dir: Path) -> float | None:
    """Return the Unix time [s] of the newest checkpoint in a work folder, None if there is none."""
    newest = newest_checkpoint(work_dir)
    try:
        return newest.stat().st_mtime if newest else None
    except FileNotFoundError:  # replaced by a newer one just now
        return time.time()


@dataclass(frozen=True)
class TrainingSpec:
    """A training: its settings, data, and how far to go.

    ``until_step`` may lie before ``settings.training.max_steps``; a later run with a larger value
    goes on where this one stopped. ``parent_checkpoint`` is the state to start from, as an earlier
    run of the same settings, or of the same with another batch, wrote it. ``tensorboard`` is a
    folder for event files. A training that has not ended after ``time_limit_s`` seconds,
    ``spent_s`` of them in earlier jobs, is saved and is a failed one.
    """

    settings: TrainSettings
    manifest: Path
    work_dir: Path
    until_step: int
    parent_checkpoint: Path | None = None
    tensorboard: Path | None = None
    time_limit_s: float | None = None
    spent_s: float = 0.0

    def origin(self) -> dict[str, Any]:
        """Return all that shapes the state after a given step beyond rounding.

        It names no folders, nor where and how steps are computed. Nor how far to go: ``max_steps``
        counts only as the end of the learning-rate schedule, if it is that. Of a file to start from
        its content counts.
        """
        settings = self.settings.plain()
        training = {
            key: value
            for key, value in settings["training"].items()
            if key not in EXECUTION | {"max_steps"}
        }
        training["schedule_steps"] = self.settings.training.schedule_length
        training["init_from"] = checksum_of_source(self.settings.training)
        settings["training"] = training
        # the name carries a checksum
        parent = self.parent_checkpoint.name if self.parent_checkpoint else None
        return {**settings, "manifest": sha256(self.manifest)[:16], "parent": parent}

    def identity(self) -> str:
        """Return a hash of ``origin``."""
        return settings_hash(self.origin())

    def write(self) -> Path:
        """Write the spec into its work folder and return the path."""
        path = self.work_dir / SPEC_FILE
        plain = {
            "settings": self.settings.plain(),
            "manifest": str(self.manifest),
            "work_dir": str(self.work_dir),
            "until_step": self.until_step,
            "parent_checkpoint": str(self.parent_checkpoint) if self.parent_checkpoint else None,
            "tensorboard": str(self.tensorboard) if self.tensorboard else None,
            "origin": self.origin(),
            "kind": SpecFile.KIND,
        }
        write_json(path, plain)
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``write`` wrote."""
        plain = read_stored(path, SpecFile)
        parent, tensorboard = (
            Path(name) if name else None for name in (plain.parent_checkpoint, plain.tensorboard)
        )
        return cls(
            TrainSettings.model_validate(plain.settings),
            Path(plain.manifest),
            Path(plain.work_dir),
            plain.until_step,
            parent,
            tensorboard,
        )


@dataclass(frozen=True)
class TrainingResult:
    """What came of a training.

    ``status``: "complete" (``step`` steps done, fewer than asked for only after early stopping),
    "diverged", "interrupted" (by a signal; run it again to go on) or "failed" (a process died);
    ``reason`` says why. Losses of the valid split use the default weights of its terms
    (``LossConfig()``), so that trainings with different weights compare; ``valid_curve`` holds
    [step, loss]. Paths are None where nothing was written before a failure. ``seconds`` is this
    call's wall time.
    """

    status: Status
    reason: str
    step: int
    valid_loss: float | None
    best_valid_loss: float | None
    valid_curve: list[list[float]] = field(default_factory=list)
    checkpoint: Path | None = None
    best_checkpoint: Path | None = None
    metrics: Path | None = None
    seconds: float = 0.0

    def write(self, work_dir: Path, identity: str, until_step: int) -> None:
        """Write the result into a work folder; paths become relative to it."""
        plain: dict[str, Any] = asdict(self)
        files = {name: plain[name] for name in _FILES if plain[name]}
        plain |= dict.fromkeys(_FILES)
        plain |= {name: str(path.relative_to(work_dir)) for name, path in files.items()}
        # a checkpoint has its checksum in its name
        sums = {name: sha256(path) for name, path in files.items() if name != "checkpoint"}
        told = {"identity": identity, "until_step": until_step, "checksums": sums}
        write_json(work_dir / RESULT_FILE, {**plain, **told, "kind": ResultFile.KIND})

    @classmethod
    def read(cls, work_dir: Path, identity: str, until_step: int) -> Self | None:
        """Return the stored result if this training to ``until_step`` would end in it, or None.

        None, too, with a line in the log, if it or one of its files is damaged or gone: the
        training then goes on from its newest checkpoint and writes them again.
        """
        path = work_dir / RESULT_FILE
        if not path.exists():
            return None
        try:
            found = held_to(ResultFile, read_json(path, ResultFile.REMEDY), path)
        except UserError as error:
            log.warning("%s", error)
            return None
        if found.identity != identity or not found.step <= until_step <= found.until_step:
            return None
        plain = {own.name: getattr(found, own.name) for own in fields(cls)}
        for name in _FILES:
            plain[name] = file = work_dir / plain[name] if plain[name] else None
            known = found.checksums.get(name)
            if file and (not file.is_file() or (known and sha256(file) != known)):
                log.warning("%s: gone or damaged; it is made again from the last checkpoint", file)
                return None
        return cls(**plain)
