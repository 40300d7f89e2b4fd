"""Clusters deal their energy out to the elements that host particles.

A neutral hadron's host cluster holds part of its energy and energy of others; so a particle's
momentum starts from what all clusters give its host, not from the host's own energy. This is the
incidence matrix of HGPflow (Di Bello et al., arXiv:2212.01328, section 3; arXiv:2410.23236), with
hosts in place of hyperedges.

Inputs -> outputs: embeddings of the last layer, positions, energies -> ``Dealt``: for each cluster
the logarithms of its shares over the hosts that it reaches and a sink (noise, what is not seen),
and for each host the four-momentum that it received: energies along the directions of the clusters
that gave them.

The score of a host is a dot product of embeddings, the logarithm of its energy, the angular
distance with a learned range, a term for the cluster itself, and pair terms: functions of the
distance whose coefficients come from cluster and host. A softmax turns scores into shares.

Invariant: what hosts receive and what goes to the sink add up to the energy of the clusters.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from particleforge.model.attention import MASKED_SCORE
from particleforge.model.curve import Geometry
from particleforge.model.reach import Reach
from particleforge.model.windows import gaussian

_KEY_WIDTH = 32
_PAIR_RANGES = (0.01, 0.025, 0.06, 0.15, 0.4)  # angular distances of the pair terms' Gaussians
_PAIR_LOG_SCALE, _PAIR_LOG_FLOOR = 0.3, 1e-3
# an untrained cluster keeps nearly all of its energy
_OWN_START, _RANGE_START, _SINK_START = 3.0, 30.0, -3.0
_FLOOR_GEV = 1e-2
N_TOLD = 3
_LOG_RATIO_MAX = 5.0


class Dealt(NamedTuple):
    """How the energy of clusters was dealt out."""

    log_share: Tensor  # float32 [B, N, M + 1], over what each element reaches, and the sink
    received: Tensor  # float32 [B, N, 4]: px, py, pz, energy in GeV
    told: Tensor  # float32 [B, N, N_TOLD], for the heads: first log(received / own energy)


class EnergyShares(nn.Module):
    """See the module's docstring."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, _KEY_WIDTH)
        self.key = nn.Linear(width, _KEY_WIDTH)
        self.sink = nn.Linear(width, 1)
        self.pair_of_cluster = nn.Linear(width, len(_PAIR_RANGES) + 1)
        self.pair_of_host = nn.Linear(width, len(_PAIR_RANGES) + 1)
        self.energy = nn.Parameter(torch.ones(1))  # FSDP wants an axis
        self.range = nn.Parameter(torch.tensor([_RANGE_START]))
        self.own = nn.Parameter(torch.tensor([_OWN_START]))

    def forward(
        self, x: Tensor, geometry: Geometry, direction: Tensor, is_cluster: Tensor, reach: Reach
    ) -> Dealt:
        """Deal out the energy of the elements that ``is_cluster`` [B, N] names.

        ``x``: embeddings [B, N, width]; ``direction``: unit vectors of the clusters [B, N, 3].
        """
        energy = geometry.energy.clamp(min=1e-3)
        is_own = _is_own(reach, energy)
        scores = self._scores(self.norm(x), geometry, energy, reach, is_own)
        with torch.autocast(x.device.type, enabled=False):  # energies in single precision
            log_share = scores.float().log_softmax(-1)
            given = (energy * is_cluster).unsqueeze(-1)
            share = log_share[..., :-1].exp()
            momenta = given * functional.pad(direction, (0, 1), value=1.0)
            received = reach.sums(share.transpose(1, 2) @ reach.queries(momenta))
        own = reach.rows((share * is_own).sum(-1, keepdim=True))
        got = received[..., 3]
        ratio = ((got + _FLOOR_GEV) / (energy + _FLOOR_GEV)).log()
        told = (
            ratio.clamp(-_LOG_RATIO_MAX, _LOG_RATIO_MAX),
            0.5 * (got + _FLOOR_GEV).log(),
            own.squeeze(-1) * is_cluster,
        )
        return Dealt(reach.rows(log_share), received, torch.stack(told, -1))

    def _scores(
        self, x: Tensor, geometry: Geometry, energy: Tensor, reach: Reach, is_own: Tensor
    ) -> Tensor:
        """Return the scores of all that each query reaches, and of the sink [G, S, M + 1]."""
        query, key = reach.queries(self.query(x)), reach.reached(self.key(x))
        log_energy = energy.log().unsqueeze(-1)
        scores = (query @ key.transpose(1, 2)).float() / math.sqrt(_KEY_WIDTH)
        scores = scores + (self.energy * reach.reached(log_energy)).transpose(1, 2)
        scores = scores - functional.softplus(self.range) * reach.distance
        scores = scores + self.own * is_own
        of_cluster = reach.queries(self.pair_of_cluster(x)).float().unsqueeze(2).unbind(-1)
        of_host = reach.reached(self.pair_of_host(x)).float().unsqueeze(1).unbind(-1)
        for basis, one, other in zip(_pair_basis(reach.distance), of_cluster, of_host, strict=True):
            scores = torch.addcmul(scores, basis, one + other)
        padding = reach.reached(geometry.real.to(scores).unsqueeze(-1)).transpose(1, 2) == 0
        scores = scores.masked_fill(padding, MASKED_SCORE)
        sink = self.sink(x).float() + log_energy + _SINK_START
        return torch.cat((scores, reach.queries(sink)), -1)


def _is_own(reach: Reach, like: Tensor) -> Tensor:
    """Return which of what is reached is the query itself, float32 [G, S, M]."""
    number = torch.arange(1, like.shape[1] + 1, device=like.device, dtype=torch.float32)
    numbers = number.expand_as(like).unsqueeze(-1)
    return (reach.queries(numbers) == reach.reached(numbers).transpose(1, 2)).float()


def _pair_basis(distance: Tensor) -> list[Tensor]:
    """Return the functions of the distance that pair terms are made of, each like ``distance``."""
    squared = distance.square()
    gaussians = [gaussian(squared, width) for width in _PAIR_RANGES]
    return [*gaussians, _PAIR_LOG_SCALE * (distance + _PAIR_LOG_FLOOR).log()]
