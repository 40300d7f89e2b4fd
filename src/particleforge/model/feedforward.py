"""The feed-forward net that ends every backbone's layer, and the activations by configured name."""

from torch import nn

from particleforge.config.model import ModelConfig

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


def feed_forward(config: ModelConfig) -> nn.Sequential:
    """Return a pre-norm net [..., width] -> [..., width] with one hidden layer.

    The hidden layer has ``feedforward_factor`` times the width.
    """
    hidden = max(1, round(config.width * config.feedforward_factor))
    return nn.Sequential(
        nn.LayerNorm(config.width),
        nn.Linear(config.width, hidden),
        ACTIVATIONS[config.activation](),
        nn.Dropout(config.dropout),
        nn.Linear(hidden, config.width),
    )
