"""Start a training as processes of its own and say what came of it; this process needs no torch.

Inputs -> outputs: a ``TrainingSpec`` and a number of ranks -> a ``TrainingResult`` and the files of
``worker``. One rank is a plain process; more are started by torchrun (``torch.distributed.run``) on
this machine with a free port, or by srun on the nodes of this Slurm job (``Placement``).

Rules:

* a work folder holds one training; what another training (other settings, data or parent, or one
  that went further than is now asked for) left there is removed, and the log says why;
* run again, an unfinished training goes on from its newest checkpoint and a finished one returns
  its stored result;
* a lock on the folder, which the started processes hold too, keeps two runs from writing at once;
* SIGTERM and SIGUSR1 are passed on; torchrun then ends all ranks. Any rank's end by exception or
  signal ends all of them.
* inside a Slurm job the ranks stop in time before its end, and the job goes back to the queue
  (``slurm_job``).
* threads: OMP_NUM_THREADS, if set, is the share of the whole training, else the cores that this
  process may use; ranks divide it evenly.
"""

import fcntl
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from particleforge.artefacts import write_json, write_text
from particleforge.config.load import differences
from particleforge.errors import UserError
from particleforge.stored import read_json
from particleforge.training import slurm_job
from particleforge.training.slurm_job import Placement
from particleforge.training.spec import (
    CHECKPOINTS,
    FAILURE_PATTERN,
    LAUNCHER_VARIABLE,
    LOST_RANK,
    RESULT_FILE,
    SPEC_FILE,
    STOP_AT_VARIABLE,
    TIMED_OUT,
    Status,
    TrainingResult,
    TrainingSpec,
    newest_checkpoint,
    newest_step,
)

__all__ = ["Placement", "TrainingResult", "TrainingSpec", "run_training"]
log = logging.getLogger(__name__)
_LOCK_FILE, _ORIGIN_FILE, _KILLED_FILE = "lock", "origin.json", "killed"
_LOCK_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 60.0


def run_training(
    spec: TrainingSpec, ranks: int, placement: Placement | None = None
) -> TrainingResult:
    """Train up to ``spec.until_step`` with ``ranks`` processes in all and return what came of it.

    Divergence, interruption and dead processes are results; bad settings or data raise a UserError.
    Does not return if the Slurm job's time is up and Slurm takes the job back into its queue.
    """
    placement = placement or Placement()
    training = spec.settings.training
    assert training.in_steps, "whoever asks for a training knows its batches"
    if not 1 <= spec.until_step <= training.length:
        raise UserError(
            f"training.max_steps: is {training.length}, but {spec.until_step} steps were asked"
            " for; raise it"
        )
    started = time.monotonic()
    limit = (
        math.inf if spec.time_limit_s is None else time.time() + spec.time_limit_s - spec.spent_s
    )
    spec.work_dir.mkdir(parents=True, exist_ok=True)
    with _locked(spec.work_dir) as lock:
        identity = spec.identity()
        _make_room(spec)
        stored = TrainingResult.read(spec.work_dir, identity, spec.until_step)
        if stored is not None and stored.status in ("complete", "diverged"):
            log.info("%s: training is done already (%s)", spec.work_dir, stored.reason)
            return stored
        for stale in (
            RESULT_FILE,
            *(path.name for path in spec.work_dir.glob(FAILURE_PATTERN.format("*"))),
        ):
            (spec.work_dir / stale).unlink(missing_ok=True)
        stop_at = slurm_job.stop_at(placement.stop_before_limit_s)
        first = limit if stop_at is None else min(stop_at, limit)
        signalled = _run_workers(
            spec.write(), ranks, placement, lock, first if math.isfinite(first) else None
        )
        result = TrainingResult.read(spec.work_dir, identity, spec.until_step)
    if result is not None:
        if result.status == "interrupted" and time.time() >= limit and not signalled:
            reason = (
                f"{TIMED_OUT}: {result.step} of {spec.until_step} steps in {spec.time_limit_s:g} s"
            )
            return replace(result, status="failed", reason=reason)
        if result.status == "interrupted" and stop_at is not None and time.time() >= stop_at:
            slurm_job.requeue()
        return result
    return _result_of_failure(spec, signalled=signalled, seconds=time.monotonic() - started)


@contextmanager
def _locked(work_dir: Path) -> Iterator[int]:
    """Hold the folder's lock; orphans of a killed run need a moment to notice and to let go."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    with (work_dir / _LOCK_FILE).open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{work_dir}: another training is running in this folder; wait for it or"
                        " end it"
                    ) from None
                time.sleep(0.2)
        yield handle.fileno()


def _make_room(spec: TrainingSpec) -> None:
    """Empty the folder if what it holds is no beginning of this training.

    Say from which step that goes on, or why from none.
    """
    work_dir, marker, origin = spec.work_dir, spec.work_dir / _ORIGIN_FILE, spec.origin()
    step = newest_step(work_dir)
    found = _known_origin(work_dir, marker)
    if step and not found:
        raise UserError(
            f"{marker}: gone or damaged, so nobody knows what training its checkpoints are of; put"
            f" it back, or remove {work_dir} to train afresh"
        )
    if found == origin and step <= spec.until_step:
        if 0 < step < spec.until_step:
            log.info(
                "%s: step %d of %d is there already; going on from it",
                work_dir,
                step,
                spec.until_step,
            )
        return
    if step:
        changed = differences(found, origin) or [
            f"{spec.until_step} steps are asked for, fewer than were made"
        ]
        if any(change.startswith("training.schedule_steps:") for change in changed):
            changed.append("fix training.schedule_steps to be able to train longer without that")
        log.warning(
            "%s: starting afresh, not from step %d: %s", work_dir, step, "; ".join(changed[-5:])
        )
    for path in work_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK_FILE:
            path.unlink()
    (work_dir / CHECKPOINTS).mkdir()
    write_json(marker, origin)


def _known_origin(work_dir: Path, marker: Path) -> dict[str, Any]:
    """Return what a folder's training came of; where its record is damaged, the spec has it.

    Nothing where neither tells.
    """
    for path, key in ((marker, None), (work_dir / SPEC_FILE, "origin")):
        with suppress(UserError):
            content = read_json(path, "")
            origin = content.get(key) if key and isinstance(content, dict) else content
            if isinstance(origin, dict) and origin:
                if key:
                    log.warning("%s: gone or damaged; taken from %s", marker, path.name)
                    write_json(marker, origin)
                return origin
    return {}


def _command(ranks: int, placement: Placement) -> list[str]:
    module = "particleforge.training.worker"
    if placement.nodes > 1 and slurm_job.job_id():
        return [*slurm_job.srun(ranks, placement), sys.executable, "-m", module]
    if ranks == 1:
        return [sys.executable, "-m", module]
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *(
            "--standalone",
            "--local-addr=127.0.0.1",
            f"--nproc-per-node={ranks}",
            "--max-restarts=0",
            "--module",
            module,
        ),
    ]


def _environment(ranks: int, placement: Placement, stop_at: float | None) -> dict[str, str]:
    environment = dict(os.environ)
    for name in (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        LAUNCHER_VARIABLE,
    ):
        environment.pop(name, None)
    if stop_at is not None:
        environment[STOP_AT_VARIABLE] = str(stop_at)
    cores = int(environment.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    threads = cores // ranks
    if placement.nodes > 1 and slurm_job.job_id():
        threads = threads if "OMP_NUM_THREADS" in environment else placement.cpus_per_rank
        return environment | slurm_job.rendezvous() | {"OMP_NUM_THREADS": str(max(1, threads))}
    environment |= {"OMP_NUM_THREADS": str(max(1, threads)), LAUNCHER_VARIABLE: str(os.getpid())}
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name need not resolve
    if ranks == 1:  # said outright, since a Slurm job's own variables may tell of more tasks
        environment |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    return environment


def _run_workers(
    spec_file: Path, ranks: int, placement: Placement, lock: int, stop_at: float | None
) -> bool:
    """Run the workers to their end and return whether they were asked to stop."""
    command = _command(ranks, placement)
    process = subprocess.Popen(
        [*command, str(spec_file)],
        env=_environment(ranks, placement, stop_at),
        stdin=subprocess.DEVNULL,
        pass_fds=(lock,),
        start_new_session=True,
    )
    # SIGUSR1 would kill torchrun
    stop_signal = slurm_job.STOP_SIGNAL if command[0] == "srun" else signal.SIGTERM
    signalled = False

    def forward(_number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        signalled = True
        process.send_signal(stop_signal)

    previous: dict[signal.Signals, Any] = {
        number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        process.wait()
    finally:
        # an exception, such as KeyboardInterrupt, ends the workers first
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return signalled


def _failure_in(path: Path) -> dict[str, Any] | None:
    """Return what a rank wrote of its failure, None if that is damaged."""
    with suppress(UserError, TypeError, ValueError):
        found: dict[str, Any] = read_json(path, "")
        if {"kind", "reason", "time"} <= set(found) and math.isfinite(found["time"]):
            return found
    return None


def _result_of_failure(spec: TrainingSpec, *, signalled: bool, seconds: float) -> TrainingResult:
    """Return the result of workers that left none.

    The first failure is the cause, unless it only says that another rank is gone.

    Processes killed from outside, as by a lost node, interrupt a training; twice at the same step
    they make it a failed one.
    """
    checkpoint, step = newest_checkpoint(spec.work_dir), newest_step(spec.work_dir)
    failures = [
        failure
        for path in spec.work_dir.glob(FAILURE_PATTERN.format("*"))
        if (failure := _failure_in(path)) is not None and failure["kind"] != LOST_RANK
    ]
    status: Status
    if signalled:
        status = "interrupted"
        reason = f"stopped by a signal; the last checkpoint is of step {step}"
    elif failures:
        first = min(failures, key=lambda failure: float(failure["time"]))
        if first["kind"] == "user":
            raise UserError(first["reason"])
        status, reason = "failed", first["reason"]
    else:
        marker = spec.work_dir / _KILLED_FILE
        again = marker.exists() and marker.read_text(encoding="utf-8").strip() == str(step)
        # a UserError if it was a full disk that kept the workers from saying why
        write_text(marker, f"{step:<4096}")
        status, reason = (
            ("failed", "killed from outside again")
            if again
            else ("interrupted", "killed from outside")
        )
        reason = (
            f"a training process was {reason} after step {step}, perhaps for want of memory; the"
            " log says by which signal"
        )
    return TrainingResult(status, reason, step, None, None, checkpoint=checkpoint, seconds=seconds)
