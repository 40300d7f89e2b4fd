"""Ranks and collective operations: the only place that reads the environment of a distributed job.

Inputs -> outputs: variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or of srun (SLURM_PROCID,
SLURM_NTASKS, SLURM_LOCALID, with MASTER_ADDR and MASTER_PORT set by ``slurm_job``) -> ``Workers``,
each with its device (``devices``). A process without such variables is the only rank.

Gradients travel by the device's own back end; the few numbers that ranks agree on travel from CPU
to CPU by gloo, in double precision, which not every device has, and which notices at once that
another rank is gone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from particleforge.training.devices import backend_of, choose_device, use_device

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
        """Return the element-wise sum of a CPU tensor over the ranks, in place, on each of them."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values


def rank_environment() -> tuple[int, int, int]:
    """Return rank, number of ranks and rank within the node."""
    environment = os.environ
    if "RANK" in environment:
        return (
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            int(environment["LOCAL_RANK"]),
        )
    if "SLURM_PROCID" in environment and "MASTER_ADDR" in environment:
        return (
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_NTASKS"]),
            int(environment["SLURM_LOCALID"]),
        )
    return 0, 1, 0


def is_lost_rank(error: BaseException) -> bool:
    """Whether an exception says that another rank does not answer, so that the cause lies there."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


@contextmanager
def joined_workers(device: str) -> Iterator[Workers]:
    """Join the process group, if there is more than one rank, and leave it at the end."""
    rank, world_size, local_rank = rank_environment()
    chosen = choose_device(device, local_rank, world_size)
    use_device(chosen)
    if world_size > 1:
        dist.init_process_group(
            backend_of(chosen), rank=rank, world_size=world_size, timeout=_TIMEOUT
        )
    yield Workers(rank, world_size, chosen)
    # after an exception the others may be gone, and leaving in order would wait for them
    if world_size > 1:
        dist.destroy_process_group()
