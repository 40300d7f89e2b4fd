"""Tensor parallelism: ranks of a group share every layer's matrices and see the same events.

Source: Shoeybi et al., Megatron-LM (arXiv:1909.08053), section 3;
``torch.distributed.tensor.parallel``. Of each layer a rank has some of the heads (rows of the
weight of queries, keys and values, columns of the one behind them) and some of the hidden units of
the feed-forward net; two sums over the group per layer and pass join them. Encoder, norms and heads
of the outputs are repeated on all ranks.

``training.model_parallel_ranks`` neighbours form a group; groups have their own events and average
their gradients.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from particleforge.config.settings import TrainSettings
from particleforge.model.network import ParticleFlowNetwork
from particleforge.training.distributed import Workers
from particleforge.training.parallelism.base import Parallelism, local_part
from particleforge.training.parallelism.sharded import clip_slices


class ModelParallelism(Parallelism):
    """What tensor and pipeline parallelism share: groups of neighbours that see the same events."""

    gathers = True

    def __init__(self, settings: TrainSettings, workers: Workers) -> None:
        super().__init__(settings, workers)
        self.model_size = settings.training.model_parallel_ranks
        self.data_size = workers.world_size // self.model_size
        self.data_rank, self.model_rank = divmod(workers.rank, self.model_size)
        self.counted = float(self.model_rank == 0)
        self.mesh = init_device_mesh(
            workers.device.type, (self.data_size, self.model_size), mesh_dim_names=("data", "model")
        )
        self.model_group = self.mesh.get_group("model")
        self.data_group = self.mesh.get_group("data")

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network: gradients are averaged after the backward pass."""
        return network


class TensorParallelism(ModelParallelism):
    """See the module's docstring."""

    def _place(self, network: ParticleFlowNetwork) -> ParticleFlowNetwork:
        network.to(self.workers.device)
        plan: dict[str, ParallelStyle] = {
            "query_key_value": ColwiseParallel(),
            "attention_output": RowwiseParallel(),
            "feedforward.1": ColwiseParallel(),
            "feedforward.4": RowwiseParallel(),
        }
        for block in network.blocks:
            parallelize_module(block, self.mesh["model"], plan)
        self._constants["slopes"] = network.slopes.cpu().clone()
        own = network.slopes.chunk(self.model_size)[self.model_rank].clone()
        del network.slopes
        network.register_buffer("slopes", own, persistent=False)
        return network

    def _average_gradients(self, network: nn.Module) -> None:
        sliced, repeated = _gradients(network)
        average(sliced, self.data_group, self.data_size)
        # equal on all ranks of a group; averaged too, so that rounding can never drive the repeated
        # weights apart
        average(repeated, None, self.workers.world_size)

    def clip(self, network: ParticleFlowNetwork, largest: float) -> Tensor:
        """Scale the gradients so that the norm of all of them together is at most ``largest``.

        Return the norm before.
        """
        return clip_slices(*_gradients(network), largest, self.model_group)


def _gradients(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return what of the gradients lies here, of divided and of repeated parameters."""
    sliced: list[Tensor] = []
    repeated: list[Tensor] = []
    for parameter in network.parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        divided = isinstance(gradient, DTensor) and any(
            placement.is_shard() for placement in gradient.placements
        )
        (sliced if divided else repeated).append(local_part(gradient))
    return sliced, repeated


def average(gradients: list[Tensor], group: dist.ProcessGroup | None, size: int) -> None:
    """Replace gradients by their means over the ``size`` ranks of a group, in one message."""
    if size == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / size
    dist.all_reduce(flat, group=group)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(
        gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
    )
