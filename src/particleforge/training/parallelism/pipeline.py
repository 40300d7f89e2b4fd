"""Pipeline parallelism: the ranks of a group have a few layers each and pass embeddings on.

Source: Narayanan et al., PipeDream-Flush / 1F1B (arXiv:2104.04473, section 2.2);
``torch.distributed.pipelining``. The first stage has the encoder, the last one the heads of the
outputs and the loss. All stages see the events, so that only embeddings travel. The micro-batches
that keep the stages busy are those of ``training.accumulation_steps``: with m of them and s stages,
a stage idles (s - 1) / (m + s - 1) of the time.

Lengths change from step to step, so stage and schedule are made anew for each batch, with shapes
given in advance: nothing is inferred by a trial run. Micro-batches are padded to one shape.

``training.model_parallel_ranks`` neighbours form a pipeline; pipelines have their own events and
average their gradients.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from particleforge.config.settings import TrainSettings
from particleforge.model.loss import TERMS, Batch
from particleforge.model.network import Outputs, ParticleFlowNetwork
from particleforge.training.devices import autocast
from particleforge.training.distributed import Workers
from particleforge.training.parallelism.base import Objective, Sums
from particleforge.training.parallelism.sharded import clip_slices
from particleforge.training.parallelism.tensor import ModelParallelism, average


class Stage(nn.Module):
    """The layers of one stage of ``network``; the first encodes, the last answers."""

    def __init__(self, network: ParticleFlowNetwork, layers: range, precision: str) -> None:
        super().__init__()
        self.network, self.layers, self.precision = network, layers, precision

    def forward(self, x: Tensor, *, features: Tensor, element_type: Tensor) -> Any:
        """Return embeddings of embeddings ``x`` [B, N, width], or the outputs as a tuple.

        The first stage ignores ``x``.
        """
        network = self.network
        with autocast(features.device, self.precision):
            seen = network.look(features, element_type)
            shared = network.prepare(network.config, seen.geometry)
            if self.layers.start == 0:
                x = network.encode(features, seen)
            for index in self.layers:
                x = network.run(network.blocks[index], x, shared)
            is_last = self.layers.stop == len(network.blocks)
            return tuple(network.answer(x, seen)) if is_last else x


class PipelineParallelism(ModelParallelism):
    """See the module's docstring."""

    def __init__(self, settings: TrainSettings, workers: Workers) -> None:
        super().__init__(settings, workers)
        n_layers, stages = settings.model.n_layers, self.model_size
        self.stages, self.stage = stages, self.model_rank
        cuts = [n_layers * stage // stages for stage in range(stages + 1)]
        self.layers = range(cuts[self.stage], cuts[self.stage + 1])
        self.is_last = self.stage == stages - 1
        self.precision = settings.training.precision
        groups = [
            dist.new_group(list(range(first, first + stages)), backend="gloo")
            for first in range(0, workers.world_size, stages)
        ]
        self.cpu_group = groups[self.data_rank]

    # ---- the network on this rank

    def _place(self, network: ParticleFlowNetwork) -> ParticleFlowNetwork:
        self.dtypes = self._boundary_types(network)
        for index in range(len(network.blocks)):
            if index not in self.layers:
                network.blocks[index] = nn.Identity()
        if self.stage > 0:
            network.encoder = nn.Identity()  # type: ignore[assignment]
        if not self.is_last:
            for name in ("shares", "tell", "mixed", "identity_head", "momentum_head"):
                setattr(network, name, nn.Identity())
        return network.to(self.workers.device)

    @torch.no_grad()
    def _boundary_types(self, network: ParticleFlowNetwork) -> tuple[torch.dtype, torch.dtype]:
        """Return the types of the embeddings that this stage receives and sends.

        Found with one element.
        """
        features = torch.ones(1, 1, network.inputs.n_features)
        element_type = torch.ones(1, 1, dtype=torch.int64)
        types = []
        with autocast(features.device, self.precision):
            seen = network.look(features, element_type)
            shared = network.prepare(network.config, seen.geometry)
            x = network.encode(features, seen)
            types.append(x.dtype)
            for block in network.blocks:
                x = block(x, shared)
                types.append(x.dtype)
        return types[self.layers.start], types[self.layers.stop]

    def _schedule(
        self,
        network: ParticleFlowNetwork,
        shape: Sequence[int],
        micro_batches: int,
        loss: Any = None,
    ) -> Schedule1F1B | ScheduleGPipe:
        """Return a schedule for micro-batches of a shape.

        1F1B, which holds fewer of them in memory, needs one per stage.
        """
        received, sent = (
            torch.empty(
                *shape,
                self.settings.model.width,
                dtype=dtype,
                device="meta",
                requires_grad=loss is not None,
            )
            for dtype in self.dtypes
        )
        stage = PipelineStage(
            Stage(network, self.layers, self.precision),
            self.stage,
            self.stages,
            self.workers.device,
            input_args=received,
            # of the last one only the number counts
            output_args=(sent,) * len(Outputs._fields) if self.is_last else sent,
            group=self.model_group,
        )
        schedule = Schedule1F1B if micro_batches >= self.stages else ScheduleGPipe
        return schedule(stage, micro_batches, loss_fn=loss, scale_grads=False)

    # ---- steps

    def backward(
        self, network: nn.Module, micro_batches: Sequence[Batch], objective: Objective
    ) -> Tensor:
        """Add the gradients of all micro-batches.

        Return this rank's share of the sums, which the last stage has.
        """
        batch = stacked(micro_batches).to(self.workers.device)
        total = torch.zeros(len(TERMS), device=self.workers.device)

        def loss_of(outputs: tuple[Tensor, ...], events: Tensor) -> Tensor:
            loss, sums = objective(Outputs(*outputs), Batch(*(tensor[events] for tensor in batch)))
            total.add_(sums.detach())
            return loss

        events, length = batch.element_type.shape
        assert isinstance(network, ParticleFlowNetwork)
        schedule = self._schedule(
            network, (events // len(micro_batches), length), len(micro_batches), loss_of
        )
        received = (batch.features,) if self.stage == 0 else ()
        schedule.step(
            *received,
            features=batch.features,
            element_type=batch.element_type,
            target=torch.arange(events, device=self.workers.device) if self.is_last else None,
            return_outputs=False,
        )
        average(
            [p.grad for p in network.parameters() if p.grad is not None],
            self.data_group,
            self.data_size,
        )
        return total

    def evaluate(self, network: ParticleFlowNetwork, batch: Batch, sums: Sums) -> Tensor:
        """Return this rank's share of the sums of a batch, which the last stage has."""
        batch = batch.to(self.workers.device)
        schedule = self._schedule(network, batch.element_type.shape, 1)
        received = (batch.features,) if self.stage == 0 else ()
        outputs = schedule.step(*received, features=batch.features, element_type=batch.element_type)
        return (
            sums(Outputs(*outputs), batch)
            if self.is_last
            else torch.zeros(len(TERMS), device=self.workers.device)
        )

    def clip(self, network: ParticleFlowNetwork, largest: float) -> Tensor:
        """Scale the gradients so that the norm of all of them together is at most ``largest``.

        Return the norm before.
        """
        return clip_slices(
            [p.grad for p in network.parameters() if p.grad is not None],
            [],
            largest,
            self.model_group,
        )

    # ---- state

    def _collect(self, own: dict[str, Any]) -> dict[str, Any]:
        if self.data_rank:
            return {}
        parts: list[Any] | None = [None] * self.stages if self.stage == 0 else None
        dist.gather_object(own, parts, dst=0, group=self.cpu_group)
        return {name: value for part in parts or [] for name, value in part.items()}


def stacked(micro_batches: Sequence[Batch]) -> Batch:
    """Return micro-batches padded to one shape, one after another."""
    events, length = (
        max(batch.element_type.shape[axis] for batch in micro_batches) for axis in (0, 1)
    )
    return Batch(
        *(
            torch.cat([_padded(tensor, events, length) for tensor in column])
            for column in zip(*micro_batches, strict=True)
        )
    )


def _padded(tensor: Tensor, events: int, length: int) -> Tensor:
    padded = tensor.new_zeros(events, length, *tensor.shape[2:])
    padded[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded
