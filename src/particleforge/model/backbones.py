"""The exchangeable part of the network: layers in which the elements of an event learn of each other.

A backbone is two callables. ``prepare(config, position, real, slopes)`` computes once per forward pass what all of its layers
share, from the positions at the calorimeter [B, N, 3] (eta, sin phi, cos phi), which elements are real [B, N] and the
slopes of local attention [heads]. ``layer(config, index)`` makes layer number ``index``, a module that maps embeddings
[B, N, width] and what was prepared to embeddings [B, N, width].

Invariants of every backbone, by test: the result of a real element depends on the real elements of its own event only, not on
padding, batch-mates or the order of the elements.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from particleforge.config.model import ModelConfig
from particleforge.model.attention import Block, attention_mask


class Backbone(NamedTuple):
    """See the module's docstring."""

    prepare: Callable[[ModelConfig, Tensor, Tensor, Tensor], Any]
    layer: Callable[[ModelConfig, int], nn.Module]


BACKBONES = {"attention": Backbone(attention_mask, Block)}
