"""Fully sharded parallelism (FSDP2): each rank holds a slice of each tensor and its own events.

Source: Rajbhandari et al., ZeRO (arXiv:1910.02054), stages 2 and 3;
``torch.distributed.fsdp.fully_shard``. Each layer is gathered for its forward and backward pass,
gradients are reduce-scattered, and the optimiser sees slices only.

Stage 3 ("fsdp") gives up the gathered weights of a layer after its forward pass and gathers them
again for the backward pass; stage 2 ("zero2") keeps them in between: a third less to send, the
weights whole in memory for the time of a step.
"""

import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from particleforge.config.settings import TrainSettings
from particleforge.model.loss import Batch
from particleforge.model.network import ParticleFlowNetwork
from particleforge.training.distributed import Workers
from particleforge.training.parallelism.base import Parallelism, Sums, local_part


class FullyShardedParallelism(Parallelism):
    """ZeRO stage 3."""

    reshard_after_forward = True
    gathers = True

    def __init__(self, settings: TrainSettings, workers: Workers) -> None:
        super().__init__(settings, workers)
        # it warns of in-place operations on the outputs, which are views; there are none
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        self.mesh = init_device_mesh(workers.device.type, (workers.world_size,))

    def _place(self, network: ParticleFlowNetwork) -> ParticleFlowNetwork:
        for module in (*network.blocks, network):
            fully_shard(module, mesh=self.mesh, reshard_after_forward=self.reshard_after_forward)
        return network.to(self.workers.device)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network: its hooks do all."""
        return network

    def evaluate(self, network: ParticleFlowNetwork, batch: Batch, sums: Sums) -> Tensor:
        """Return this rank's share of the sums of a batch.

        Leave slices behind, as no backward pass follows that would.
        """
        result = super().evaluate(network, batch, sums)
        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        return result

    def clip(self, network: ParticleFlowNetwork, largest: float) -> Tensor:
        """Scale the gradients so that the norm of all of them together is at most ``largest``.

        Return the norm before.
        """
        return clip_slices(
            [local_part(p.grad) for p in network.parameters() if p.grad is not None],
            [],
            largest,
            None,
        )


class GradientShardedParallelism(FullyShardedParallelism):
    """ZeRO stage 2."""

    reshard_after_forward = False


def clip_slices(
    sliced: list[Tensor], repeated: list[Tensor], largest: float, group: dist.ProcessGroup | None
) -> Tensor:
    """Clip the gradients of the ranks of ``group`` and return the norm before.

    Ranks hold slices of ``sliced`` and the same of ``repeated``.
    """
    squares = nn.utils.get_total_norm(sliced).square()
    dist.all_reduce(squares, group=group)
    norm = (squares + nn.utils.get_total_norm(repeated).square().to(squares.device)).sqrt()
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)  # as nn.utils.clip_grad_norm_ has it
    torch._foreach_mul_([*sliced, *repeated], scale)
    return norm
