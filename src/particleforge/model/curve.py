"""Order of an event's elements along a space-filling curve, which keeps neighbours together.

Neighbours in the order are neighbours in the detector.

Inputs -> outputs: where the elements of an event are (``Geometry``) -> for each of a few curves the
order of its elements.

Algorithm: the Hilbert curve (Hilbert, Math. Ann. 38 (1891) 459) over squares of one turn in phi and
2 pi in eta, one after the other in eta, joined where one ends and the next begins. Any curve
separates some neighbours; the three curves are shifted by 0, 1/3 and 2/3 of a square along both
axes, so that two near elements lie in one small cell of at least one of them (Chan, Discrete
Comput. Geom. 20 (1998) 359, for two dimensions). Elements of one cell, of side 2 pi / 2048, follow
by energy.

Invariants: padding comes last; the order of real elements depends on nothing else. Only additions,
products and quotients of single numbers enter, which are rounded alike everywhere, so that torch
and onnxruntime cut windows at the same elements.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

N_CURVES = 3
# cells per side of a square: 2**11; the index of a cell of three squares is exact in float32
_BITS = 11
_ETA_SQUARES = 2  # without the shift; beyond |eta| = 2 pi elements share the outermost cells
_LAST = float(2**24)  # behind every cell


class Geometry(NamedTuple):
    """What a backbone may know of elements before any layer."""

    position: Tensor  # [B, N, 3]: eta, sin(phi), cos(phi) at the calorimeter
    energy: Tensor  # [B, N] in GeV
    real: Tensor  # bool [B, N], False for padding
    slopes: Tensor  # [heads]: ``attention.range_slopes``


def curve_orders(geometry: Geometry, n_curves: int) -> Tensor:
    """Return the order of the elements along ``n_curves`` curves, int64 [curves, B, N]."""
    eta, sine, cosine = geometry.position.unbind(-1)
    slope = sine / (sine.abs() + cosine.abs()).clamp(min=1e-6)
    turn = torch.where(cosine >= 0, slope + 1, 3 - slope) / 4  # grows with phi, from 0 to 1
    along = (eta / (2 * math.pi)).clamp(-_ETA_SQUARES / 2, _ETA_SQUARES / 2) + _ETA_SQUARES / 2
    shifts = torch.arange(n_curves, device=eta.device)[:, None, None] / N_CURVES
    x, y = along + shifts, turn + shifts
    square = x.floor()
    key = square * 4.0**_BITS + _hilbert_index(x - square, y - y.floor())
    return order_by(
        torch.where(geometry.real, key, _LAST).long(), inverse(geometry.energy.argsort(-1))
    )


def order_by(key: Tensor, place: Tensor) -> Tensor:
    """Return the order of elements by ``key``, and among equal ones by ``place``.

    Both are int64 [..., N], place from 0 to N - 1.

    One sort of unique numbers: ONNX knows no stable sort.
    """
    return (key * key.shape[-1] + place).argsort(-1)


def _hilbert_index(x: Tensor, y: Tensor) -> Tensor:
    """Return how far along the curve, (0, 0) to (1, 0), cells of points of the unit square lie."""
    side = float(2**_BITS)
    x, y = ((value * side).floor().clamp(max=side - 1) for value in (x, y))
    index = torch.zeros_like(x)
    while side > 1:  # from the quadrants of the square down to those of two by two cells
        side /= 2
        right, upper = x >= side, y >= side
        x, y = torch.where(right, x - side, x), torch.where(upper, y - side, y)
        index = 4 * index + torch.where(right, 3.0 - upper.to(x.dtype), upper.to(x.dtype))
        turned = right & ~upper  # the curve enters the lower quadrants mirrored
        x, y = torch.where(turned, side - 1 - x, x), torch.where(turned, side - 1 - y, y)
        x, y = torch.where(upper, x, y), torch.where(upper, y, x)
    return index


def inverse(order: Tensor) -> Tensor:
    """Return where each element of an order [B, N] has gone.

    ``x.gather(order).gather(inverse(order))`` is ``x``.
    """
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter(-1, order, places)


def take(x: Tensor, order: Tensor) -> Tensor:
    """Return the rows of ``x`` [B, N, width] in an order [B, N]."""
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
