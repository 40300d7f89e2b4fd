"""The loss: what the outputs miss of the targets, summed so that all ranks can normalise it.

Inputs -> outputs: ``network.Outputs`` and a ``Batch`` -> the sums of seven terms and, from the
batch alone, the counts they are divided by.

Terms, with their forms of ``training.loss``:

* presence: binary cross-entropy over all real elements, or its focal form (Lin et al.,
  arXiv:1708.02002, eq. 4);
* classification, charge: cross-entropy over elements that host a particle, of the class in the
  focal form if so configured;
* momentum: Huber loss (Huber, Ann. Math. Stat. 35 (1964) 73) or absolute difference of the four
  scaled corrections, averaged with twice the weight for pT, weighted with sqrt(E) of the particle;
* event: Huber loss (delta 1) of the event's visible px, py, pz, E, averaged: candidates times
  their weights, less the particles, in units of sqrt(E GeV), as calorimeters resolve a sum;
  px and py are the missing transverse momentum;
* uncertainty: the Gaussian's negative log likelihood of the four corrections, averaged, with the
  beta of Seitzer et al. (arXiv:2203.09168), which gives badly predicted particles their pull on the
  mean back; 0 for networks that predict no uncertainty.

``JUDGED`` are weights and forms by which trainings are compared, whatever they minimise.

Event weights multiply an event's part of every sum and of every count: an event of weight 2 is the
event twice, one of weight 0 is none.

Invariant: sums divided by the counts of the *global* batch give the same loss and gradients however
the events are packed into batches and spread over ranks, and whatever the unit of the weights.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as functional
from torch import Tensor

from particleforge.config.training import LossConfig
from particleforge.model.momentum import N_CORRECTIONS, host_momentum, to_corrections, to_p4
from particleforge.model.network import Outputs, weights
from particleforge.tables.schema import ELEMENT_TYPES, NONE_CLASS, PADDING

TERMS = (
    *("presence", "classification", "charge", "momentum"),
    *("event", "uncertainty", "shares"),
)
COUNTS = ("elements", "particles", "filled_events", "particle_weight", "cluster_weight")
JUDGED = LossConfig(uncertainty=0.0, uncertainty_beta=0.0, shares=0.0)
_IGNORED = -100  # target that cross_entropy leaves out
_LOG_SIGMA_MAX = 7.0
_WEIGHED_GEV_MIN = 0.1
_PARTS = (0.4, 0.2, 0.2, 0.2)  # energies are what is hard: pT counts twice
_SMALLEST_SHARE = 1e-9
_TRACK = 1 + ELEMENT_TYPES.index("track")


class Batch(NamedTuple):
    """Events padded to one length: B events, N elements, F features."""

    features: Tensor  # float32 [B, N, F], raw
    element_type: Tensor  # int64 [B, N], 0 is padding
    target_class: Tensor  # int64 [B, N]
    target_charge: Tensor  # int64 [B, N]
    target_p4: Tensor  # float32 [B, N, 4] in GeV
    share_host: Tensor  # int64 [B, N, H], elements that a cluster's energy belongs to, -1 for none
    share: Tensor  # float32 [B, N, H + 1], of these, and of no host; all 0 where it is not known
    # float32 [B, N, 1], the event's weight at each of its elements; [B, N, 0] where all weigh 1
    weight: Tensor

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        return type(self)(*(tensor.to(device, non_blocking=True) for tensor in self))


def counts(batch: Batch, host_columns: Tensor) -> Tensor:
    """Return the sums over the batch that terms are divided by, the ``COUNTS``, float64 [5].

    Real elements, particles, events that have elements, and the weights of particles and of
    clusters whose shares are known; each times the weight of its event.
    """
    real = batch.element_type != PADDING
    particles = real & (batch.target_class != NONE_CLASS)
    energy = _energy(batch, host_columns)
    of_element, of_event = _event_weights(batch)
    values = (
        real * of_element,
        particles * of_element,
        real.any(-1) * of_event,
        _weights(batch.target_p4[..., 3], particles) * of_element,
        _weights(energy, _known(batch)) * of_element,
    )
    return torch.stack([value.double().sum() for value in values])


def _event_weights(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the event's weight at each element [B, N] and of each event [B], or 1 [] for both."""
    if not batch.weight.shape[-1]:
        one = batch.features.new_ones(())
        return one, one
    weight = batch.weight.squeeze(-1)
    # of an event's first element; padding follows
    return weight, weight[:, :1].sum(-1)


def _energy(batch: Batch, host_columns: Tensor) -> Tensor:
    return host_momentum(batch.features, host_columns[batch.element_type])[1]


def _known(batch: Batch) -> Tensor:
    return batch.share.sum(-1) > 0


def _weights(energy: Tensor, where: Tensor) -> Tensor:
    """Return sqrt(E) where it counts, as errors of calorimeters grow, so that sums are right."""
    return energy.clamp(min=_WEIGHED_GEV_MIN).sqrt() * where


def loss_sums(
    outputs: Outputs, batch: Batch, host_columns: Tensor, config: LossConfig = JUDGED
) -> Tensor:
    """Return the sums of the ``TERMS`` over the batch, float32 [7].

    ``host_columns`` as in the network.

    Gradients of the sums over elements are computed only where ``config`` gives them a weight.
    """
    real = batch.element_type != PADDING
    particle = real & (batch.target_class != NONE_CLASS)
    host = host_momentum(batch.features, host_columns[batch.element_type])
    target = torch.where(particle.unsqueeze(-1), to_corrections(batch.target_p4, host), 0.0)
    corrections, log_sigma = outputs.momentum.float().tensor_split([N_CORRECTIONS], -1)
    of_element, of_event = _event_weights(batch)
    weight = _weights(batch.target_p4[..., 3], particle) * of_element
    with torch.set_grad_enabled(torch.is_grad_enabled() and config.event > 0):
        # tracks keep their momentum from sums: these would give them the energy of what they hide
        is_track = (batch.element_type == _TRACK).unsqueeze(-1)
        p4 = to_p4(torch.where(is_track, corrections.detach(), corrections), host, outputs.mass)
        found = torch.where(real.unsqueeze(-1), p4, 0.0) * weights(outputs).unsqueeze(-1)
        expected = torch.where(particle.unsqueeze(-1), batch.target_p4, 0.0)
        event = (_missed(found.sum(1), expected.sum(1)) * of_event).sum()
    terms = (
        _presence(
            outputs.presence.float(), particle, real * of_element, config.presence_focal_gamma
        ),
        _cross_entropy(
            outputs.classes,
            batch.target_class - 1,
            particle,
            of_element,
            config.classification_focal_gamma,
        ),
        _cross_entropy(outputs.charge, batch.target_charge.clamp(-1, 1) + 1, particle, of_element),
        (_regression(corrections, target, config) @ corrections.new_tensor(_PARTS) * weight).sum(),
        event,
        (
            _likelihood(corrections, log_sigma, target, config.uncertainty_beta)
            * (particle * of_element)
        ).sum(),
        (_divergence(outputs, batch) * (_weights(host[1], _known(batch)) * of_element)).sum(),
    )
    return torch.stack(terms)


def _presence(logit: Tensor, particle: Tensor, weight: Tensor, gamma: float) -> Tensor:
    if not gamma:
        return functional.binary_cross_entropy_with_logits(
            logit, particle.float(), weight=weight, reduction="sum"
        )
    each = functional.binary_cross_entropy_with_logits(logit, particle.float(), reduction="none")
    return (_miss(each, gamma) * each * weight).sum()


def _miss(cross_entropy: Tensor, gamma: float) -> Tensor:
    """Return the focal weight (1 - p)^gamma of targets of probability p = exp(-cross_entropy).

    Finite gradients at p = 1 too.
    """
    return (-torch.expm1(-cross_entropy)).clamp(min=1e-6).pow(gamma)


def _cross_entropy(
    logits: Tensor, target: Tensor, particle: Tensor, weight: Tensor, gamma: float = 0.0
) -> Tensor:
    target = torch.where(particle, target, _IGNORED).flatten()
    logits = logits.float().flatten(0, 1)
    if not gamma and not weight.ndim:  # all are 1: torch sums by itself
        return functional.cross_entropy(logits, target, reduction="sum")
    each = functional.cross_entropy(logits, target, reduction="none")
    return ((_miss(each, gamma) * each if gamma else each) * weight.flatten()).sum()


def _regression(found: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    if config.momentum_form == "absolute":
        return (found - target).abs()
    return functional.huber_loss(found, target, reduction="none", delta=config.huber_delta)


def _missed(found: Tensor, expected: Tensor) -> Tensor:
    """Return the Huber loss of sums [..., 4] in units of sqrt(E GeV), averaged [...]."""
    resolution = (expected[..., 3:].clamp(min=0) + 1).sqrt()
    each = functional.huber_loss(found / resolution, expected / resolution, reduction="none")
    return each.mean(-1)


def _divergence(outputs: Outputs, batch: Batch) -> Tensor:
    """Return the Kullback-Leibler divergence of the shares from the true ones [B, N].

    What belongs to hosts out of reach is a part of the sink.
    """
    n_reached = outputs.log_share.shape[-1] - 1
    host, true = batch.share_host, batch.share
    place = outputs.place.gather(-1, host.clamp(min=0).flatten(1)).view_as(host)
    place = place - outputs.first.unsqueeze(-1)
    within = (host >= 0) & (place >= 0) & (place < n_reached)
    given = true[..., :-1] * within
    sink = true.sum(-1, keepdim=True) - given.sum(-1, keepdim=True)
    true = torch.cat((given, sink), -1)
    found = outputs.log_share.gather(-1, place.clamp(0, n_reached - 1))
    found = torch.cat((found, outputs.log_share[..., -1:]), -1)
    return (true * (true.clamp(min=_SMALLEST_SHARE).log() - found)).sum(-1)


def _likelihood(found: Tensor, log_sigma: Tensor, target: Tensor, beta: float) -> Tensor:
    """Return beta-NLL of each element, averaged over corrections, without its constant [B, N]."""
    if not log_sigma.shape[-1]:
        return torch.zeros_like(found[..., 0])
    log_sigma = log_sigma.clamp(-_LOG_SIGMA_MAX, _LOG_SIGMA_MAX)
    each = 0.5 * ((target - found) * torch.exp(-log_sigma)).square() + log_sigma
    return (each * torch.exp(2 * beta * log_sigma.detach())).mean(-1)


def denominators(global_counts: Tensor) -> Tensor:
    """Return what divides each of ``TERMS``, from global ``counts``: float64 [7].

    Counts of 0 divide by 1. Others may be as small as the events' weights.
    """
    global_counts = torch.where(global_counts > 0, global_counts, 1.0)
    elements, particles, events, by_particle, by_cluster = global_counts.unbind()
    of_elements = elements, particles, particles, by_particle
    return torch.stack((*of_elements, events, particles, by_cluster))


def term_weights(config: LossConfig, device: torch.device | None = None) -> Tensor:
    """Return the configured weights of the ``TERMS``, float32 [7]."""
    return torch.tensor(
        [getattr(config, name) for name in TERMS], dtype=torch.float32, device=device
    )
