"""The exchangeable part of the network: layers in which elements of an event learn of each other.

A backbone is two callables. ``prepare(config, geometry)`` computes once per forward pass what all
of its layers share, from where the elements are. ``layer(config, index)`` makes layer number
``index``, a module that maps embeddings [B, N, width] and what was prepared to embeddings [B, N,
width].

Invariants of every backbone, by test: the result of a real element depends on the real elements of
its own event only, not on padding, batch-mates or the order of the elements.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from particleforge.config.model import ModelConfig
from particleforge.model.attention import Block, attention_mask
from particleforge.model.curve import Geometry
from particleforge.model.gnn_lsh import GnnLshLayer, order_elements
from particleforge.model.windowed_attention import WindowedBlock, cut_windows


class Backbone(NamedTuple):
    """See the module's docstring."""

    prepare: Callable[[ModelConfig, Geometry], Any]
    layer: Callable[[ModelConfig, int], nn.Module]


def _full_mask(config: ModelConfig, geometry: Geometry) -> Tensor:
    return attention_mask(config, geometry.position, geometry.real, geometry.slopes)


BACKBONES = {
    "attention": Backbone(_full_mask, Block),
    "windowed_attention": Backbone(cut_windows, WindowedBlock),
    "gnn_lsh": Backbone(order_elements, GnnLshLayer),
}
