"""The part of ``particleforge check-cluster`` that runs inside a job.

``python -m particleforge.orchestration.cluster.probe KIND OUTPUT``: look at this node (``cpu``),
its GPUs (``gpu``), or two nodes and the network between them (``nodes``), and write what was found
as JSON. The jobs' own settings come from ``check.json`` beside OUTPUT.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from particleforge.artefacts import write_json
from particleforge.orchestration.cluster.exchange import Exchange, Finding, ask
from particleforge.training import slurm_job
from particleforge.training.slurm_job import Placement

_NETWORK_TIMEOUT = timedelta(seconds=12)
_MAX_SKEW_S = 1.0


def shared_folder(name: str, folder: Path, latency_wait_s: float) -> list[Finding]:
    """Return whether files pass between login node and this one, in time, with right times."""
    host = socket.gethostname()
    seen = ask(folder, name, latency_wait_s)
    share = f"work in a folder that all nodes see; {host} does not share {folder}"
    if not seen.sees_login:
        return [
            Finding(
                "shared folder", "WRONG", f"{host} does not see what the login node wrote", share
            )
        ]
    if seen.round_trip_s is None:
        text = (
            f"the login node did not see within {latency_wait_s:g} s (latency-wait) what {host}"
            " wrote"
        )
        return [
            Finding(
                "shared folder", "WRONG", text, f"{share}, or raise latency-wait in the profile"
            )
        ]
    text = (
        f"files pass from {host} to the login node and back in {seen.round_trip_s:.2f} s;"
        f" latency-wait is {latency_wait_s:g} s"
    )
    return [Finding("shared folder", "OK", text), clocks(seen, host)]


def clocks(seen: Exchange, host: str) -> Finding:
    """Return whether the times of files from both sides agree."""
    skew_s = seen.skew_s or 0.0
    if abs(skew_s) <= _MAX_SKEW_S:
        return Finding(
            "clocks",
            "OK",
            f"the times of files from {host} and from the login node agree within"
            f" {_MAX_SKEW_S:g} s",
        )
    return Finding(
        "clocks",
        "WRONG",
        f"files of the login node are stamped {abs(skew_s):.1f} s"
        f" {'later' if skew_s > 0 else 'earlier'} than those of {host}",
        "Snakemake compares these times and would run jobs again, or not at all: have the clocks"
        " synchronised (chrony, ntp)",
    )


def processors(asked: int) -> Finding:
    """Return whether this job may use the processors that it asked for."""
    usable = len(os.sched_getaffinity(0))
    text = f"{usable} usable on {socket.gethostname()}, {asked} asked for"
    if usable >= asked:
        return Finding("processors", "OK", text)
    return Finding(
        "processors",
        "WRONG",
        text,
        "Slurm binds the job to fewer than `threads`; ask the site for its --cpu-bind defaults",
    )


def srun_here() -> Finding:
    """Return whether srun can be called from a job."""
    found = shutil.which("srun")
    if found:
        return Finding("srun", "OK", f"{found} on {socket.gethostname()}")
    return Finding(
        "srun",
        "WRONG",
        f"not in PATH on {socket.gethostname()}",
        "add Slurm's folder to PATH in your shell's start-up file",
    )


def gpus() -> Finding:
    """Return whether torch can use the GPUs of this job."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    where = (
        f"torch {torch.__version__} on {socket.gethostname()},"
        f" CUDA_VISIBLE_DEVICES={visible or 'not set'}"
    )
    if torch.cuda.is_available():
        names = ", ".join(
            torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
        )
        return Finding("GPUs", "OK", f"{names} ({where})")
    if torch.version.cuda is None and torch.version.hip is None:
        remedy = (
            "this torch is built for CPUs only: install the build for the site's CUDA or ROCm"
            " (docs/cluster.md)"
        )
    elif not visible:
        remedy = (
            "Slurm gave this job no GPU: check max_gpu in partitions.yaml, and that the partition"
            " has GPUs (sinfo -o '%P %G')"
        )
    else:
        driver = shutil.which("nvidia-smi") or "no nvidia-smi here"
        remedy = (
            f"the driver does not fit CUDA {torch.version.cuda} ({driver}): install a torch for an"
            " older CUDA"
        )
    return Finding("GPUs", "WRONG", f"torch sees none ({where})", remedy)


def network(rank: int, size: int, own: list[Finding]) -> list[Finding]:
    """Connect the nodes as a training does and return, on rank 0, what all of them found."""
    import torch
    from torch import distributed

    host = socket.gethostname()
    master = os.environ["MASTER_ADDR"]
    port = int(os.environ["MASTER_PORT"])
    remedy = (
        "jobs on several nodes need open TCP ports between nodes: ask the site, or name the right"
        " network in GLOO_SOCKET_IFNAME"
    )
    try:
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            master, port, size, is_master=rank == 0, timeout=_NETWORK_TIMEOUT
        )
        store.set(str(rank), json.dumps([asdict(finding) for finding in own]))
        found = [
            Finding(**item) for other in range(size) for item in json.loads(store.get(str(other)))
        ]
    except (RuntimeError, OSError) as error:
        text = (
            f"not all {size} processes met at {master}:{port} within {_NETWORK_TIMEOUT.seconds} s"
            f" ({_first_line(error)})"
        )
        return [*own, Finding("ports", "WRONG", text, remedy)]
    try:
        distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=_NETWORK_TIMEOUT
        )
        total = torch.ones(1)
        distributed.all_reduce(total)
        distributed.barrier()
        distributed.destroy_process_group()
    except RuntimeError as error:
        return [
            *found,
            Finding(
                "ports",
                "WRONG",
                f"gloo cannot connect {host} with the others ({_first_line(error)})",
                remedy,
            ),
        ]
    if int(total) != size:
        return [
            *found,
            Finding(
                "ports", "WRONG", f"the sum over {size} processes came out as {int(total)}", remedy
            ),
        ]
    return [
        *found,
        Finding(
            "ports", "OK", f"{size} nodes met at {master}:{port} and summed a number with gloo"
        ),
    ]


def start_ranks(output: Path, size: int) -> None:
    """Start one process on each node, as a training does; this runs on the first."""
    command = [
        *slurm_job.srun(size, Placement(size)),
        sys.executable,
        "-m",
        __spec__.name,
        "rank",
        str(output),
    ]
    ended = subprocess.run(command, env=os.environ | slurm_job.rendezvous())
    if not output.exists():
        ended.check_returncode()


def main(kind: str, output: Path) -> None:
    """Look, and write what was found."""
    asked = (
        json.loads((output.parent / "check.json").read_text(encoding="utf-8"))
        if output.parent.is_dir()
        else {}
    )
    latency_wait_s = float(asked.get("latency_wait_s", 5))
    if kind == "rank":
        rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
        found = network(rank, size, shared_folder(f"rank_{rank}", output.parent, latency_wait_s))
        if rank == 0:
            write_json(output, [asdict(finding) for finding in found])
        return
    if kind == "nodes":
        start_ranks(output, int(asked["jobs"][kind]["resources"]["nodes"]))
        return
    looks: list[Callable[[], Finding]] = [
        srun_here,
        lambda: processors(int(asked["jobs"][kind]["threads"])),
    ]
    if kind == "gpu":
        looks.append(gpus)
    found = [*shared_folder(kind, output.parent, latency_wait_s), *(look() for look in looks)]
    write_json(output, [asdict(finding) for finding in found])


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
