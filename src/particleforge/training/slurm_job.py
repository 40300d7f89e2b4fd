"""The Slurm job that this process is part of: nodes, end of its time, way back into the queue.

Inputs -> outputs: SLURM_JOB_ID and the answers of ``squeue`` and ``scontrol`` -> a command that
starts the ranks of a training on all nodes of the job, the address at which they meet, and the
moment at which they have to stop. Snakemake's executor plugin takes most other SLURM variables out
of a job's environment, so they are not relied on.

Outside of a Slurm job nothing here does anything.
"""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from particleforge.errors import UserError

log = logging.getLogger(__name__)
STOP_SIGNAL = signal.SIGUSR1  # srun passes it on to the ranks; SIGTERM would make it kill them
_TIMEOUT_S = 60
_KILL_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Placement:
    """Where a training runs, here or evenly on a Slurm job's nodes, and how it ends with it."""

    nodes: int = 1
    cpus_per_rank: int = 1
    stop_before_limit_s: float = 0.0

    @classmethod
    def of(cls, resources: Any) -> Self:
        """Return the placement that a rule's resources (``Workflow.resources``) ask for."""
        found: Mapping[str, Any] = dict(resources.items())
        return cls(
            int(found.get("nodes", 1)),
            int(found.get("cpus_per_task", 1)),
            float(found.get("stop_before_limit_s", 0)),
        )


def job_id() -> str | None:
    """Return the id of this process's Slurm job, or None."""
    return os.environ.get("SLURM_JOB_ID")


def srun(ranks: int, placement: Placement) -> list[str]:
    """Return the beginning of the command that starts ``ranks`` processes on the nodes of this job.

    If one process ends badly, srun ends the others. Without ``--wait=0`` a site's WaitTime could
    end rank 0, which still writes results when the others have ended.
    """
    if ranks % placement.nodes:
        raise UserError(
            f"{ranks} ranks cannot be spread evenly over {placement.nodes} nodes; change ranks or"
            " resources.<rule>.nodes"
        )
    return [
        *(
            "srun",
            f"--nodes={placement.nodes}",
            f"--ntasks={ranks}",
            f"--ntasks-per-node={ranks // placement.nodes}",
        ),
        *(
            f"--cpus-per-task={placement.cpus_per_rank}",
            "--kill-on-bad-exit=1",
            "--wait=0",
            "--export=ALL",
        ),
    ]


def rendezvous() -> dict[str, str]:
    """Return MASTER_ADDR and MASTER_PORT: the first node of the job, and a port free here.

    Rank 0 runs on that node.

    The batch script of a job, and so this process, runs on that node.
    """
    nodes = _ask("squeue", "--noheader", f"--jobs={job_id()}", "--format=%N")
    first = _ask("scontrol", "show", "hostnames", nodes).splitlines()[0]
    with socket.socket() as free:
        free.bind(("", 0))
        return {"MASTER_ADDR": first, "MASTER_PORT": str(free.getsockname()[1])}


def stop_at(before_limit_s: float) -> float | None:
    """Return the Unix time in seconds at which to stop, ``before_limit_s`` before the job's end.

    None if it has none.

    The margin takes at most half of the time that is left now, so that a short job gets something
    done.
    """
    if job_id() is None or before_limit_s <= 0:
        return None
    try:
        end = datetime.fromisoformat(
            _ask("squeue", "--noheader", f"--jobs={job_id()}", "--format=%e")
        ).timestamp()
    except (
        UserError,
        ValueError,
    ) as error:
        # no time limit, or a controller that is away for the moment
        log.info("no end of this job's time is known (%s)", error)
        return None
    return end - min(before_limit_s, max(0.0, end - time.time()) / 2)


def requeue() -> None:
    """Put this job back into the queue, if Slurm may do that.

    Slurm then ends all its processes, and this does not return.
    """
    if "Requeue=1" not in _ask("scontrol", "show", "job", str(job_id())).split():
        log.info("the time of job %s is up, and it may not be requeued", job_id())
        return
    log.info(
        "the time of job %s is up: back into the queue, to go on from the checkpoint", job_id()
    )
    _ask("scontrol", "requeue", str(job_id()))
    time.sleep(_KILL_TIMEOUT_S)
    raise UserError(
        f"job {job_id()}: scontrol requeue did not end this job; run it again to go on from the"
        " checkpoint"
    )


def _ask(*command: str) -> str:
    """Return the answer of one of Slurm's commands; UserError if there is none."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())
        raise UserError(
            f"{' '.join(command)}: {reason}; are Slurm's commands installed on this node?"
        ) from error
    return done.stdout.strip()
