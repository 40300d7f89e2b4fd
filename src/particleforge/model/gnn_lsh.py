"""Graph neural network with locality-sensitive hashing: learned graphs in bins of like elements.

Inputs -> outputs: embeddings [B, N, width] and where the elements are (``curve.Geometry``) ->
updated embeddings. Cost grows with N * ``model.bin_elements``.

Algorithm (GNN-LSH of MLPF: Pata et al., Eur. Phys. J. C 81 (2021) 381, arXiv:2101.08578), in each
layer:

1. every element gets learned coordinates z; the random direction, of either sign, that z lies
   closest to is its bucket (cross-polytope hashing, Andoni et al., arXiv:1509.02897; as in
   Reformer, arXiv:2001.04451, section 2);
2. elements in the order of their buckets, along the space-filling curve within each, are cut into
   bins of one size;
3. within a bin, elements are joined by the Gaussian kernel A_ij = exp(-|z_i - z_j|^2 / dim z) of
   each head; with ``model.local_attention`` it also falls exponentially with the angular distance,
   as the scores of attention do;
4. messages pass along D^-1/2 A D^-1/2 (Kipf and Welling, arXiv:1609.02907), and a gate per feature
   chooses between what came from the neighbours and the element's own (highway: Xin et al.,
   arXiv:2004.04635).

Differences from the publication: several kernels (heads), the order within buckets, a residual
connection and a feed-forward net around the layer, and buckets whose number does not depend on the
padding of a batch.

Invariant: bins hold real elements first and in an order that depends on them alone. Which bin an
element falls into is a discrete choice: two elements whose coordinates tie to within rounding may
change places between batches.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from particleforge.config.model import ModelConfig
from particleforge.model.attention import MASKED_SCORE
from particleforge.model.curve import Geometry, curve_orders, inverse, order_by, take
from particleforge.model.feedforward import ACTIVATIONS, feed_forward
from particleforge.model.windows import distances, from_windows, into_windows

_DEGREE_MIN = 1e-6  # that of padding in a bin without elements


class Ordered(NamedTuple):
    """What all layers share."""

    geometry: Geometry
    place: Tensor  # int64 [B, N], of each element along the space-filling curve


def order_elements(_config: ModelConfig, geometry: Geometry) -> Ordered:
    """Return the elements' geometry and their places along the first curve."""
    return Ordered(geometry, inverse(curve_orders(geometry, 1)[0]))


class HighwayConvolution(nn.Module):
    """One round of messages: neighbours' and own features, mixed by a gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        # for the neighbours, for itself, gate
        self.transform = nn.Linear(config.width, 3 * config.width)
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Return features [bins, size, width] after messages along ``adjacency``.

        ``adjacency`` is [bins, heads, size, size].
        """
        message, own, gate = self.transform(x).chunk(3, -1)
        message = (
            (
                adjacency.to(message.dtype)
                @ message.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            )
            .transpose(1, 2)
            .flatten(2)
        )
        gate = gate.sigmoid()
        mixed: Tensor = self.activation(gate * message + (1 - gate) * own)
        return mixed


class GnnLshLayer(nn.Module):
    """Hash, bin, connect, convolve, then a feed-forward net per element."""

    directions: Tensor

    def __init__(self, config: ModelConfig, _index: int) -> None:
        super().__init__()
        self.size = config.bin_elements
        self.n_heads = config.n_heads
        self.local = config.local_attention
        self.norm = nn.LayerNorm(config.width)
        self.coordinates = nn.Linear(config.width, config.width)
        self.register_buffer("directions", torch.randn(config.width, config.hash_directions))
        self.convolutions = nn.ModuleList(
            HighwayConvolution(config) for _ in range(config.messages_per_layer)
        )
        self.output = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.feedforward = feed_forward(config)

    def forward(self, x: Tensor, shared: Ordered) -> Tensor:
        """Return updated embeddings [B, N, width]; ``shared`` of ``order_elements``."""
        normed = self.norm(x)
        z = self.coordinates(normed)
        order = self._order(z, shared)
        adjacency = self._adjacency(z, shared.geometry, order)
        binned = into_windows(take(normed, order), self.size).flatten(0, 1)
        for convolution in self.convolutions:
            binned = convolution(binned, adjacency)
        x = x + self.dropout(self.output(take(from_windows(binned, x.shape), inverse(order))))
        updated: Tensor = x + self.feedforward(x)
        return updated

    def _order(self, z: Tensor, shared: Ordered) -> Tensor:
        """Return the elements by bucket, then along the curve, int64 [B, N]; padding last."""
        projected = z.detach().float() @ self.directions
        bucket = torch.cat((projected, -projected), -1).argmax(-1)
        bucket = torch.where(shared.geometry.real, bucket, 2 * self.directions.shape[1])
        return order_by(bucket, shared.place)

    def _adjacency(self, z: Tensor, geometry: Geometry, order: Tensor) -> Tensor:
        """Return the normalised kernels [bins, heads, size, size] in float32.

        Nothing comes from padding.
        """
        z = into_windows(take(z, order), self.size).flatten(0, 1).float()
        z = z.view(*z.shape[:2], self.n_heads, z.shape[-1] // self.n_heads).transpose(1, 2)
        norm = z.square().sum(-1)
        squared = (norm.unsqueeze(-1) + norm.unsqueeze(-2) - 2 * (z @ z.transpose(-1, -2))).clamp(
            min=0
        )
        real = torch.where(geometry.real.gather(-1, order), 0.0, MASKED_SCORE)
        exponent = (
            into_windows(real, self.size, MASKED_SCORE).flatten(0, 1)[:, None, None]
            - squared / z.shape[-1]
        )
        if self.local:
            position = into_windows(take(geometry.position, order), self.size).flatten(0, 1)
            exponent = exponent - geometry.slopes[:, None, None] * distances(
                position, position
            ).unsqueeze(1)
        kernel = exponent.exp()
        scale = kernel.sum(-1).clamp(min=_DEGREE_MIN).rsqrt()
        return scale.unsqueeze(-1) * kernel * scale.unsqueeze(-2)
