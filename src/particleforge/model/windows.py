"""Cutting a sequence of elements into pieces of one size.

So the cost of a backbone grows with the number of elements only.

Inputs -> outputs: elements in some order [B, N, ...] -> windows [B, W, size, ...] with W = N //
size + 1, so that there is always one, also for no element, and no size depends on the values.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

_EXPONENT_MIN = -50.0  # far from numbers that are not normal


def into_windows(x: Tensor, size: int, value: float = 0.0) -> Tensor:
    """Return ``x`` [B, N, ...] cut into windows [B, W, size, ...]; ``value`` fills the last."""
    n_events, n, *rest = x.shape
    n_windows = n // size + 1
    padded = functional.pad(x, (0, 0) * len(rest) + (0, n_windows * size - n), value=value)
    return padded.reshape(n_events, n_windows, size, *rest)


def from_windows(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return windows [B W, size, width] as the sequence that they were cut from.

    Its ``shape`` is B, N, width.
    """
    n_events, n, width = shape
    size = x.shape[1]
    return x.reshape(n_events, (n // size + 1) * size, width)[:, :n]


def with_neighbours(x: Tensor, value: float = 0.0) -> Tensor:
    """Return each window between the one before and the one after, [B, W, 3 size, ...].

    ``value`` fills what lies outside.
    """
    padded = functional.pad(x, (0, 0) * (x.ndim - 2) + (1, 1), value=value)
    return torch.cat((padded[:, :-2], x, padded[:, 2:]), 2)


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the angular distances [..., n, m] between two sets of positions.

    Positions are (eta, sin phi, cos phi), [..., n, 3] and [..., m, 3].

    Coordinate by coordinate, which is nine times faster on a CPU than to form [..., n, m, 3].
    """
    eta, sine, cosine = (
        (a.unsqueeze(-1) - b.unsqueeze(-2)).square()
        for a, b in zip(one.unbind(-1), other.unbind(-1), strict=True)
    )
    return (eta + sine + cosine).sqrt()


def gaussian(squared: Tensor, width: float) -> Tensor:
    """Return exp(-squared / 2 width^2), no smaller than a CPU computes with at full speed."""
    return (-0.5 / width**2 * squared).clamp(min=_EXPONENT_MIN).exp()
