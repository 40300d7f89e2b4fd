"""Full attention: every element of an event attends to all of its event.

Cost grows with the square of their number.

Inputs -> outputs: embeddings [B, N, width], positions at the calorimeter [B, N, 3] and which
elements are real -> updated embeddings.

Algorithm: pre-norm transformer blocks (Vaswani et al., arXiv:1706.03762; pre-norm: Xiong et al.,
arXiv:2002.04745, section 3). With ``model.local_attention`` the scores of each head but the last
fall linearly with the angular distance between the elements, with a fixed range per head (as ALiBi
does with distance in a text, Press et al., arXiv:2108.12409): which track made which cluster is a
question of hundredths of a radian, which dot products of smooth embeddings resolve only after long
training.

Invariant: padding is no key of any query.
"""

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from particleforge.config.model import ModelConfig
from particleforge.model.feedforward import feed_forward
from particleforge.model.windows import distances

# Vanishes in softmax in every precision, and stays finite when all keys are masked.
MASKED_SCORE = -3e4
_PLAIN_LENGTH_MAX = 1024  # elements; the scores of one event and head then take 2 MB
# Angular distance over which a head's score falls by one: the narrowest and the widest local head.
_RANGES = (0.02, 0.5)


def range_slopes(config: ModelConfig) -> Tensor:
    """Return by how much each head's scores fall per unit of angular distance, [heads].

    0 for a head that sees all alike.
    """
    slopes = torch.zeros(config.n_heads)
    if config.local_attention:
        narrow, wide = map(math.log10, _RANGES)
        slopes[:-1] = 1 / torch.logspace(narrow, wide, config.n_heads - 1)
    return slopes


def score_dtype(device: torch.device) -> torch.dtype:
    """Return the type that scores of attention have on a device: that of autocast, if it is on."""
    return (
        torch.get_autocast_dtype(device.type)
        if torch.is_autocast_enabled(device.type)
        else torch.float32
    )


def attention_mask(config: ModelConfig, position: Tensor, real: Tensor, slopes: Tensor) -> Tensor:
    """Return what all blocks add to their scores, [B, 1 or heads, N, N].

    ``position``: eta, sin(phi), cos(phi) at the calorimeter [B, N, 3]; ``real``: bool [B, N];
    ``slopes`` of ``range_slopes``. Distances are sqrt(d_eta^2 + chord(d_phi)^2). Under autocast the
    mask has its type, so that no layer converts it again.
    """
    dtype = score_dtype(real.device)
    # ONNX wants a row per query
    mask = torch.where(real, 0.0, MASKED_SCORE)[:, None, None, :].expand(-1, -1, real.shape[1], -1)
    mask = mask.to(dtype)
    if config.local_attention:
        distance = distances(position, position).to(dtype)
        mask = torch.addcmul(mask, slopes.to(dtype)[:, None, None], distance.unsqueeze(1), value=-1)
    return mask


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Return softmax(query key^T / sqrt(D) + mask) value, [B, heads, N, D].

    ``key`` and ``value`` [B, heads, M, D]; ``mask`` [B, 1 or heads, N, M].

    bfloat16 on CPUs: torch's fused kernel has no matrix instructions for the gradient there
    (benchmarks/LOG.md), so that three plain products win as long as the scores are small. Longer
    events and all else take the fused kernel, which never stores the scores.
    """
    b, heads, n, d = query.shape
    m = key.shape[2]
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or n > _PLAIN_LENGTH_MAX:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout
        )
    with torch.autocast("cpu", enabled=False):  # which would turn the softmax into float32
        bias = mask.expand(b, heads, n, m).reshape(b * heads, n, m)
        scores = torch.baddbmm(
            bias,
            query.reshape(b * heads, n, d),
            key.reshape(b * heads, m, d).transpose(1, 2),
            alpha=d**-0.5,
        )
        share = functional.dropout(torch.softmax(scores, -1), dropout)
        return torch.bmm(share, value.reshape(b * heads, m, d)).view(b, heads, n, d)


class Block(nn.Module):
    """Pre-norm transformer block: self-attention in the event, feed-forward net per element."""

    def __init__(self, config: ModelConfig, _index: int) -> None:
        super().__init__()
        width = config.width
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.attention_norm = nn.LayerNorm(width)
        # softmax is blind to a bias of the keys
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_output = nn.Linear(width, width)
        self.feedforward = feed_forward(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return updated embeddings [B, N, width].

        ``mask`` [B, 1 or heads, N, N] is added to the attention scores.
        """
        width = x.shape[-1]
        # head by head, so that some of the rows of the weight are whole heads, as tensor
        # parallelism needs it
        qkv = self.query_key_value(self.attention_norm(x)).unflatten(
            -1, (-1, 3, width // self.n_heads)
        )
        # the way back gathers the parts in one pass
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(-2))
        mixed = attend(
            query, key, value, mask.to(query.dtype), self.dropout if self.training else 0.0
        )
        x = x + self.attention_output(mixed.transpose(1, 2).flatten(2))
        updated: Tensor = x + self.feedforward(x)
        return updated
