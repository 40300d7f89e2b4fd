"""The loss: what the outputs miss of the targets, summed so that all ranks can normalise it.

Inputs -> outputs: ``network.Outputs`` and a ``Batch`` -> the sums of six terms and, from the batch
alone, the counts they are divided by.

Terms, with their forms of ``training.loss``:

* presence: binary cross-entropy over all real elements, or its focal form (Lin et al.,
  arXiv:1708.02002, eq. 4);
* classification, charge: cross-entropy over elements that host a particle, of the class in the
  focal form if so configured;
* momentum: Huber loss (Huber, Ann. Math. Stat. 35 (1964) 73) or absolute difference of the five
  scaled corrections, averaged;
* event: Huber loss (delta 1) of the event's visible px, py, pz, E, averaged: candidates weighted
  with their presence, less the particles, in units of sqrt(E GeV), as calorimeters resolve a sum;
  px and py are the missing transverse momentum;
* uncertainty: the Gaussian's negative log likelihood of the five corrections, averaged, with the
  beta of Seitzer et al. (arXiv:2203.09168), which gives badly predicted particles their pull on the
  mean back; 0 for networks that predict no uncertainty.

``JUDGED`` are weights and forms by which trainings are compared, whatever they minimise.

Invariant: sums divided by the counts of the *global* batch give the same loss and gradients however
the events are packed into batches and spread over ranks.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as functional
from torch import Tensor

from particleforge.config.training import LossConfig
from particleforge.model.momentum import N_CORRECTIONS, host_momentum, to_corrections, to_p4
from particleforge.model.network import Outputs
from particleforge.tables.schema import NONE_CLASS, PADDING

TERMS = ("presence", "classification", "charge", "momentum", "event", "uncertainty")
N_COUNTS = 3
JUDGED = LossConfig(uncertainty=0.0, uncertainty_beta=0.0)
_IGNORED = -100  # target that cross_entropy leaves out
_LOG_SIGMA_MAX = 7.0


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
    """Return the numbers of real elements, particles, events with any: float64 [N_COUNTS]."""
    real = batch.element_type != PADDING
    particles = real & (batch.target_class != NONE_CLASS)
    return torch.stack((real.sum(), particles.sum(), real.any(-1).sum())).double()


def loss_sums(
    outputs: Outputs, batch: Batch, host_columns: Tensor, config: LossConfig = JUDGED
) -> Tensor:
    """Return the sums of the ``TERMS`` over the batch, float32 [6].

    ``host_columns`` as in the network.

    Gradients of the event term are computed only where ``config`` gives it a weight.
    """
    real = batch.element_type != PADDING
    particle = real & (batch.target_class != NONE_CLASS)
    host = host_momentum(batch.features, host_columns[batch.element_type])
    target = torch.where(particle.unsqueeze(-1), to_corrections(batch.target_p4, host), 0.0)
    corrections, log_sigma = outputs.momentum.float().tensor_split([N_CORRECTIONS], -1)
    with torch.set_grad_enabled(torch.is_grad_enabled() and config.event > 0):
        event = _event(
            outputs.presence.float(), to_p4(corrections, host), batch.target_p4, real, particle
        )
    terms = (
        _presence(outputs.presence.float(), particle, real, config.presence_focal_gamma),
        _cross_entropy(
            outputs.classes, batch.target_class - 1, particle, config.classification_focal_gamma
        ),
        _cross_entropy(outputs.charge, batch.target_charge.clamp(-1, 1) + 1, particle),
        (_regression(corrections, target, config).mean(-1) * particle).sum(),
        event,
        (_likelihood(corrections, log_sigma, target, config.uncertainty_beta) * particle).sum(),
    )
    return torch.stack(terms)


def _presence(logit: Tensor, particle: Tensor, real: Tensor, gamma: float) -> Tensor:
    if not gamma:
        return functional.binary_cross_entropy_with_logits(
            logit, particle.float(), weight=real.float(), reduction="sum"
        )
    each = functional.binary_cross_entropy_with_logits(logit, particle.float(), reduction="none")
    return (_miss(each, gamma) * each * real).sum()


def _miss(cross_entropy: Tensor, gamma: float) -> Tensor:
    """Return the focal weight (1 - p)^gamma of targets of probability p = exp(-cross_entropy).

    Finite gradients at p = 1 too.
    """
    return (-torch.expm1(-cross_entropy)).clamp(min=1e-6).pow(gamma)


def _cross_entropy(logits: Tensor, target: Tensor, particle: Tensor, gamma: float = 0.0) -> Tensor:
    target = torch.where(particle, target, _IGNORED).flatten()
    logits = logits.float().flatten(0, 1)
    if not gamma:
        return functional.cross_entropy(logits, target, reduction="sum")
    each = functional.cross_entropy(logits, target, reduction="none")
    return (_miss(each, gamma) * each).sum()


def _regression(found: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    if config.momentum_form == "absolute":
        return (found - target).abs()
    return functional.huber_loss(found, target, reduction="none", delta=config.huber_delta)


def _event(
    presence: Tensor, p4: Tensor, target_p4: Tensor, real: Tensor, particle: Tensor
) -> Tensor:
    """Return the event term's sum over events; those without elements give 0."""
    found = (torch.where(real.unsqueeze(-1), p4, 0.0) * presence.sigmoid().unsqueeze(-1)).sum(1)
    target = torch.where(particle.unsqueeze(-1), target_p4, 0.0).sum(1)
    resolution = (target[:, 3:].clamp(min=0) + 1).sqrt()
    return (
        functional.huber_loss(found / resolution, target / resolution, reduction="none")
        .mean(-1)
        .sum()
    )


def _likelihood(found: Tensor, log_sigma: Tensor, target: Tensor, beta: float) -> Tensor:
    """Return beta-NLL of each element, averaged over corrections, without its constant [B, N]."""
    if not log_sigma.shape[-1]:
        return torch.zeros_like(found[..., 0])
    log_sigma = log_sigma.clamp(-_LOG_SIGMA_MAX, _LOG_SIGMA_MAX)
    each = 0.5 * ((target - found) * torch.exp(-log_sigma)).square() + log_sigma
    return (each * torch.exp(2 * beta * log_sigma.detach())).mean(-1)


def denominators(global_counts: Tensor) -> Tensor:
    """Return what divides each of ``TERMS``, at least 1, from global ``counts``: float64 [6]."""
    elements, particles, events = global_counts.clamp(min=1).unbind()
    return torch.stack((elements, particles, particles, particles, events, particles))


def term_weights(config: LossConfig, device: torch.device | None = None) -> Tensor:
    """Return the configured weights of the ``TERMS``, float32 [6]."""
    return torch.tensor(
        [getattr(config, name) for name in TERMS], dtype=torch.float32, device=device
    )
