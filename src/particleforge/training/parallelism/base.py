"""What a parallelism does, and the one in which every rank has the whole network.

The latter is DistributedDataParallel.

A parallelism is asked, in this order, to ``place`` the network (and its moving average) on this
rank, to make the ``optimiser``, to ``wrap`` the network for training, and then to differentiate
(``backward``), ``clip`` and ``evaluate``; ``weights`` and ``optimiser_state`` gather what it has
spread, ``load_weights`` and ``load_optimiser_state`` spread it again.

Rules:

* events are dealt to ``data_size`` parts; ranks of one ``data_rank`` see the same events, and only
  one of them has ``counted`` 1;
* gradients are means over the data ranks, as DDP makes them; sums over all ranks of what
  ``backward`` and ``evaluate`` return are sums over the whole batch;
* the gathered state is that of a training on one rank: whole tensors by the names of the network,
  moments by the indices that its optimiser has there. So a state saved under one parallelism
  loads under any other.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from particleforge.config.settings import TrainSettings
from particleforge.model.loss import TERMS, Batch
from particleforge.model.network import Outputs, ParticleFlowNetwork
from particleforge.training.devices import autocast
from particleforge.training.distributed import Workers
from particleforge.training.optimiser import make_optimiser
from particleforge.training.timing import Moment, TimedGradientMean

log = logging.getLogger(__name__)

# outputs and their batch -> what is differentiated, and the sums of the terms of the loss
Objective = Callable[[Outputs, Batch], tuple[Tensor, Tensor]]
Sums = Callable[[Outputs, Batch], Tensor]


class Parallelism:
    """Every rank has the whole network and its own events."""

    data_rank: int
    data_size: int
    counted = 1.0
    gathers = False  # whether ranks other than 0 take part when the state is gathered

    def __init__(self, settings: TrainSettings, workers: Workers) -> None:
        self.settings, self.workers = settings, workers
        self.name = settings.training.parallelism if workers.world_size > 1 else "ddp"
        self.data_rank, self.data_size = workers.rank, workers.world_size
        self._mean = TimedGradientMean(workers.device, workers.world_size)
        self._names: list[str] = []  # of the whole network's state, in order
        self._n_parameters = 0  # of the whole network
        # the groups that the optimiser has on one rank, "params" as names
        self._groups: list[dict[str, Any]] = []
        self._constants: dict[str, Tensor] = {}  # buffers that ``place`` cut

    # ---- the network on this rank

    def place(self, network: ParticleFlowNetwork) -> ParticleFlowNetwork:
        """Put this rank's part of a whole network on its device, in place."""
        if not self._names:
            self._names = list(network.state_dict())
            self._n_parameters = sum(parameter.numel() for parameter in network.parameters())
            name_of = {parameter: name for name, parameter in network.named_parameters()}
            groups = make_optimiser(self.settings.training, network).param_groups
            self._groups = [
                {**group, "params": [name_of[parameter] for parameter in group["params"]]}
                for group in groups
            ]
        return self._place(network)

    def _place(self, network: ParticleFlowNetwork) -> ParticleFlowNetwork:
        return network.to(self.workers.device)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return what ``backward`` calls."""
        if self.workers.world_size == 1:
            return network
        replica = DistributedDataParallel(
            network, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        replica.register_comm_hook(None, self._mean.reduce)
        return replica

    def optimiser(self, network: ParticleFlowNetwork) -> torch.optim.Optimizer:
        """Return the optimiser of this rank's parameters.

        Sharded and whole ones are in groups of their own.
        """
        optimiser = make_optimiser(self.settings.training, network)
        groups = []
        for group in optimiser.param_groups:
            for sharded in (True, False):
                members = [
                    parameter
                    for parameter in group["params"]
                    if isinstance(parameter, DTensor) is sharded
                ]
                groups += [{**group, "params": members}] if members else []
        optimiser.param_groups[:] = groups
        if self.workers.is_main and self.workers.world_size > 1:
            held = sum(local_part(parameter).numel() for parameter in network.parameters())
            log.info(
                "parallelism %s: rank 0 holds %d of %d parameters, and as much of gradients and"
                " moments",
                self.name,
                held,
                self._n_parameters,
            )
        return optimiser

    # ---- steps

    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        """Return the outputs of a batch, in the configured precision."""
        with autocast(self.workers.device, self.settings.training.precision):
            outputs: Outputs = network(batch.features, batch.element_type)
        return outputs

    def backward(
        self, network: nn.Module, micro_batches: Sequence[Batch], objective: Objective
    ) -> Tensor:
        """Add the gradients of all micro-batches.

        Return this rank's share of the sums of the terms, float32 [terms].

        Only the last micro-batch lets DDP communicate.
        """
        total = torch.zeros(len(TERMS), device=self.workers.device)
        for number, on_cpu in enumerate(micro_batches, start=1):
            batch, more = on_cpu.to(self.workers.device), number < len(micro_batches)
            with (
                network.no_sync()
                if more and isinstance(network, DistributedDataParallel)
                else nullcontext()
            ):
                loss, sums = objective(self.forward(network, batch), batch)
                torch.autograd.backward(loss)
            total += sums.detach()
        self._average_gradients(network)
        return total * self.counted

    def _average_gradients(self, network: nn.Module) -> None:
        """Average over data ranks what the backward pass has not."""

    def exposed_s(self, end: Moment) -> float:
        """Return the seconds of DDP's communication that the backward pass did not hide.

        The pass ended at ``end``.
        """
        return self._mean.exposed(end)

    def evaluate(self, network: ParticleFlowNetwork, batch: Batch, sums: Sums) -> Tensor:
        """Return this rank's share of the sums of a batch."""
        batch = batch.to(self.workers.device)
        return sums(self.forward(network, batch), batch) * self.counted

    def clip(self, network: ParticleFlowNetwork, largest: float) -> Tensor:
        """Scale the gradients so that the norm of all of them together is at most ``largest``.

        Return the norm before.
        """
        return nn.utils.clip_grad_norm_(network.parameters(), largest)

    # ---- state

    def weights(self, network: ParticleFlowNetwork) -> dict[str, Tensor]:
        """Return the whole network's weights on the CPU, on rank 0, others may get nothing.

        All ranks must ask for it.
        """
        if not (self.gathers or self.workers.is_main):
            return {}
        own = self._constants | {name: whole(value) for name, value in network.state_dict().items()}
        gathered = self._collect(own)
        return {name: gathered[name] for name in self._names if name in gathered}

    def optimiser_state(
        self, network: ParticleFlowNetwork, optimiser: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """Return the optimiser's state as one rank would have it, on rank 0.

        All ranks must ask for it.
        """
        if not (self.gathers or self.workers.is_main):
            return {}
        own = {
            name: {key: whole(value) for key, value in optimiser.state[parameter].items()}
            for name, parameter in network.named_parameters()
            if parameter in optimiser.state
        }
        gathered = self._collect(own)
        index_of = self._indices()
        rate = optimiser.param_groups[0]["lr"]
        return {
            "state": {
                index: gathered[name] for name, index in index_of.items() if name in gathered
            },
            "param_groups": [
                {**group, "lr": rate, "params": [index_of[name] for name in group["params"]]}
                for group in self._groups
            ],
        }

    def _indices(self) -> dict[str, int]:
        """Return the index of each parameter in the optimiser of one rank."""
        return {
            name: index
            for index, name in enumerate(name for group in self._groups for name in group["params"])
        }

    def _collect(self, own: dict[str, Any]) -> dict[str, Any]:
        """Return what this rank and those that hold other parts of the network have, on rank 0."""
        return own

    def load_weights(self, network: ParticleFlowNetwork, weights: dict[str, Tensor]) -> None:
        """Take this rank's part of a whole network's weights.

        Weights of another architecture raise torch's RuntimeError.
        """
        own = network.state_dict()
        strange = {name: value for name, value in weights.items() if name not in self._names}
        network.load_state_dict(
            strange
            | {name: part(weights[name], like) for name, like in own.items() if name in weights}
        )

    def load_optimiser_state(
        self, network: ParticleFlowNetwork, optimiser: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Take this rank's part of an optimiser's state of one rank."""
        index_of = self._indices()
        name_of = {parameter: name for name, parameter in network.named_parameters()}
        own = optimiser.state_dict()
        members = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        moments = {}
        for own_index, parameter in enumerate(members):
            found = state["state"].get(index_of[name_of[parameter]])
            if found is not None:
                moments[own_index] = {
                    key: part(value, parameter) if value.shape else value
                    for key, value in found.items()
                }
        optimiser.load_state_dict({"state": moments, "param_groups": own["param_groups"]})


def whole(value: Any) -> Any:
    """Return a copy of a tensor on the CPU, gathered from the ranks that share it."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value


def part(value: Tensor, like: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor, spread as ``like`` is."""
    if not isinstance(like, DTensor):
        return value
    if value.shape != like.shape:
        raise RuntimeError(
            f"size mismatch: {tuple(value.shape)} in the state, {tuple(like.shape)} in the network"
        )
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def local_part(value: Tensor) -> Tensor:
    """Return what of a tensor lies on this rank."""
    return value.to_local() if isinstance(value, DTensor) else value
