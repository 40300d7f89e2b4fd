"""The loss: what the network's outputs miss of the targets, summed so that it can be normalised over all ranks.

Inputs -> outputs: ``network.Outputs`` and a ``Batch`` -> four sums (presence, classification, charge, momentum) and, from the
batch alone, the counts they are divided by.

Terms: binary cross-entropy of presence over all real elements; over elements that host a particle, cross-entropy of class and
of charge, and the Huber loss (delta = 1, Huber 1964) of the scaled momentum corrections, averaged over the five.

Invariant: sums divided by the counts of the *global* batch give the same loss and gradients however the events are packed
into batches and spread over ranks.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as functional
from torch import Tensor

from particleforge.config.training import LossConfig
from particleforge.model.momentum import host_momentum, to_corrections
from particleforge.model.network import Outputs
from particleforge.schema import NONE_CLASS, PADDING

TERMS = ("presence", "classification", "charge", "momentum")
_IGNORED = -100  # target that cross_entropy leaves out


class Batch(NamedTuple):
    """Events padded to one length: B events, N elements, F features."""

    features: Tensor  # float32 [B, N, F], raw
    element_type: Tensor  # int64 [B, N], 0 is padding
    target_class: Tensor  # int64 [B, N]
    target_charge: Tensor  # int64 [B, N]
    target_p4: Tensor  # float32 [B, N, 4] in GeV

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        return type(self)(*(tensor.to(device, non_blocking=True) for tensor in self))


def counts(batch: Batch) -> Tensor:
    """Return the number of real elements and of particles in the batch, float64 [2]."""
    real = batch.element_type != PADDING
    return torch.stack((real.sum(), (real & (batch.target_class != NONE_CLASS)).sum())).double()


def loss_sums(outputs: Outputs, batch: Batch, host_columns: Tensor) -> Tensor:
    """Return the sums of the four ``TERMS`` over the batch, float32 [4]; ``host_columns`` as in the network."""
    real = batch.element_type != PADDING
    particle = real & (batch.target_class != NONE_CLASS)
    presence = functional.binary_cross_entropy_with_logits(outputs.presence.float(), particle.float(), weight=real.float(), reduction="sum")
    target_class = torch.where(particle, batch.target_class - 1, _IGNORED)
    classification = functional.cross_entropy(outputs.classes.float().flatten(0, 1), target_class.flatten(), reduction="sum")
    target_charge = torch.where(particle, batch.target_charge.clamp(-1, 1) + 1, _IGNORED)
    charge = functional.cross_entropy(outputs.charge.float().flatten(0, 1), target_charge.flatten(), reduction="sum")
    target = to_corrections(batch.target_p4, host_momentum(batch.features, host_columns[batch.element_type]))
    target = torch.where(particle.unsqueeze(-1), target, 0.0)
    momentum = (functional.huber_loss(outputs.momentum.float(), target, reduction="none").mean(-1) * particle).sum()
    return torch.stack((presence, classification, charge, momentum))


def denominators(element_and_particle_counts: Tensor) -> Tensor:
    """Return what each of the ``TERMS`` is divided by, float64 [4], at least 1, from the global counts [2]."""
    elements, particles = element_and_particle_counts.clamp(min=1).unbind()
    return torch.stack((elements, particles, particles, particles))


def term_weights(config: LossConfig, device: torch.device | None = None) -> Tensor:
    """Return the configured weights of the ``TERMS``, float32 [4]."""
    return torch.tensor([getattr(config, name) for name in TERMS], dtype=torch.float32, device=device)
