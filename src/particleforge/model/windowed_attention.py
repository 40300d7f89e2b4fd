"""Windowed attention: elements attend within a window and its two neighbours along a curve.

The curve is a space-filling one.

Inputs -> outputs: embeddings [B, N, width] and where the elements are (``curve.Geometry``) ->
updated embeddings. Cost grows with N * 3 * ``model.window_elements``.

Algorithm: the blocks are those of full attention (``attention.Block``, same parameters), but keys
are the elements of three successive windows along a curve. Layers take turns with differently
shifted curves, so that what one curve separates another brings together, and information crosses
windows from layer to layer (serialised point clouds: Wu et al., arXiv:2312.10035, section 4;
shifted windows: Liu et al., arXiv:2103.14030).

Invariants: with all elements of an event in one window the result is that of full attention;
padding is no key of any query.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from particleforge.config.model import ModelConfig
from particleforge.model.attention import MASKED_SCORE, Block, attend, score_dtype
from particleforge.model.curve import N_CURVES, Geometry, curve_orders, inverse, take
from particleforge.model.windows import distances, from_windows, into_windows, with_neighbours


class Windows(NamedTuple):
    """How one curve cuts the events into windows."""

    order: Tensor  # int64 [B, N]
    place: Tensor  # int64 [B, N], the inverse
    mask: Tensor  # [B W, 1 or heads, size, 3 size], added to the scores


def cut_windows(config: ModelConfig, geometry: Geometry) -> list[Windows]:
    """Return the windows of each curve that the layers use."""
    orders = curve_orders(geometry, min(N_CURVES, config.n_layers)).unbind(0)
    return [Windows(order, inverse(order), _mask(config, geometry, order)) for order in orders]


def _mask(config: ModelConfig, geometry: Geometry, order: Tensor) -> Tensor:
    size = config.window_elements
    score = torch.where(geometry.real.gather(-1, order), 0.0, MASKED_SCORE)
    dtype = score_dtype(order.device)
    mask = (
        with_neighbours(into_windows(score, size, MASKED_SCORE), MASKED_SCORE)
        .flatten(0, 1)[:, None, None]
        .to(dtype)
    )
    if not config.local_attention:
        return mask.expand(-1, -1, size, -1)  # ONNX wants a row per query
    queries = into_windows(take(geometry.position, order), size)
    distance = distances(queries, with_neighbours(queries)).flatten(0, 1)
    return torch.addcmul(
        mask, geometry.slopes.to(dtype)[:, None, None], distance.to(dtype).unsqueeze(1), value=-1
    )


class WindowedBlock(Block):
    """Pre-norm transformer block whose attention sees three windows of a curve.

    Parameters as in full attention.
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        self.curve, self.size = index % N_CURVES, config.window_elements

    def forward(self, x: Tensor, windows: list[Windows]) -> Tensor:  # type: ignore[override]
        """Return updated embeddings [B, N, width]; ``windows`` of ``cut_windows``."""
        order, place, mask = windows[self.curve]
        width = x.shape[-1]
        qkv = self.query_key_value(self.attention_norm(take(x, order))).unflatten(
            -1, (-1, 3, width // self.n_heads)
        )
        # [B, W, size, heads, width / heads]
        query, key, value = into_windows(qkv, self.size).unbind(-2)
        query, key, value = (
            part.flatten(0, 1).transpose(1, 2)
            for part in (query, with_neighbours(key), with_neighbours(value))
        )
        mixed = attend(
            query, key, value, mask.to(query.dtype), self.dropout if self.training else 0.0
        )
        mixed = from_windows(mixed.transpose(1, 2).flatten(2), x.shape)
        x = x + self.attention_output(take(mixed, place))
        updated: Tensor = x + self.feedforward(x)
        return updated
