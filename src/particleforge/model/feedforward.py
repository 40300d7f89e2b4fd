"""The feed-forward net that every backbone's layer ends with, and the activations by their names in
the configuration.
"""

from torch import nn

from particleforge.config.model import ModelConfig

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


def feed_forward(config: ModelConfig) -> nn.Sequential:
    """Return a pre-norm net [..., width] -> [..., width] with one hidden layer of
    ``feedforward_factor`` times the width.
    """
    hidden = max(1, round(config.width * config.feedforward_factor))
    return nn.Sequential(
        nn.LayerNorm(config.width),
        nn.Linear(config.width, hidden),
        ACTIVATIONS[config.activation](),
        nn.Dropout(config.dropout),
        nn.Linear(hidden, config.width),
    )
