"""Ranks, devices and collective operations: the only place that reads the environment of a distributed job.

Inputs -> outputs: variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or of srun (SLURM_PROCID, SLURM_NTASKS,
SLURM_LOCALID, with MASTER_ADDR and MASTER_PORT set by ``slurm_job``) -> ``Workers``. The back end is NCCL on CUDA devices and
gloo on CPUs. A process without such variables is the only rank.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from particleforge.errors import UserError

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Workers:
    """This process among the ranks of a training."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the element-wise sum over all ranks, the same on every rank."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values


def rank_environment() -> tuple[int, int, int]:
    """Return rank, number of ranks and rank within the node."""
    environment = os.environ
    if "RANK" in environment:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(environment["LOCAL_RANK"])
    if "SLURM_PROCID" in environment and "MASTER_ADDR" in environment:
        return int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"]), int(environment["SLURM_LOCALID"])
    return 0, 1, 0


def choose_device(requested: str, local_rank: int) -> torch.device:
    """Return the device of this rank; CUDA that is asked for but absent is a UserError."""
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise UserError("training.device: cuda is not available on this machine; set it to auto or cpu")
    if requested == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def is_lost_rank(error: BaseException) -> bool:
    """Whether an exception says that another rank does not answer, so that the cause lies there."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


@contextmanager
def joined_workers(device: str) -> Iterator[Workers]:
    """Join the process group, if there is more than one rank, and leave it at the end."""
    rank, world_size, local_rank = rank_environment()
    chosen = choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world_size > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=rank, world_size=world_size, timeout=_TIMEOUT)
    yield Workers(rank, world_size, chosen)
    if world_size > 1:  # after an exception the others may be gone, and leaving in order would wait for them
        dist.destroy_process_group()
