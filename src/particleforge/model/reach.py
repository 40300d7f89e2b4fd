"""Which elements each element of an event may deal with: all of them, or those near it.

Inputs -> outputs: where the elements of an event are -> a ``Reach``, which lays elements out as
groups of queries [G, S, ...] and of what these reach [G, M, ...], and brings results back to the
order of the event.

With full attention a group is an event: cost grows with the square of its elements anyway. For the
backbones of linear cost, groups are the windows of a Hilbert curve (``curve``), which reach the
windows before and after them.

Invariant: what an element reaches depends on neither padding, batch-mates nor order.
"""

from typing import Protocol

import torch
from torch import Tensor

from particleforge.config.model import ModelConfig
from particleforge.model.curve import Geometry, curve_orders, inverse, take
from particleforge.model.windows import distances, from_windows, into_windows, with_neighbours


class Reach(Protocol):
    """See the module's docstring; N elements, W windows of S elements."""

    place: Tensor  # int64 [B, N]: where each element stands in the order of what is reached
    first: Tensor  # int64 [B, N]: the place of the first element that each reaches
    distance: Tensor  # angular distance of queries and what they reach, float32 [G, S, M]

    def queries(self, x: Tensor) -> Tensor:
        """Return ``x`` [B, N, width] as queries [G, S, width]."""

    def reached(self, x: Tensor) -> Tensor:
        """Return ``x`` [B, N, width] as what each group reaches [G, M, width]."""

    def rows(self, y: Tensor) -> Tensor:
        """Return the queries' results [G, S, width] in the order of the event [B, N, width]."""

    def sums(self, y: Tensor) -> Tensor:
        """Return results for what is reached [G, M, width], summed over groups [B, N, width]."""


class Everything:
    """All elements of an event reach each other."""

    def __init__(self, geometry: Geometry) -> None:
        real = geometry.real
        self.place = torch.arange(real.shape[1], device=real.device).expand_as(real)
        self.first = torch.zeros_like(self.place)
        self.distance = distances(geometry.position, geometry.position)

    def queries(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    reached = rows = sums = queries


class Windows:
    """Elements reach their own window of a Hilbert curve, the one before and the one after."""

    def __init__(self, geometry: Geometry, size: int) -> None:
        self._shape, self._size = geometry.real.shape, size
        self._order = curve_orders(geometry, 1)[0]
        self.place = inverse(self._order)
        self.first = (torch.div(self.place, size, rounding_mode="floor") - 1) * size
        position = geometry.position
        self.distance = distances(self.queries(position), self.reached(position))

    def queries(self, x: Tensor) -> Tensor:
        """Return the windows [B W, S, width]."""
        return into_windows(take(x, self._order), self._size).flatten(0, 1)

    def reached(self, x: Tensor) -> Tensor:
        """Return each window between its neighbours [B W, 3 S, width]."""
        return with_neighbours(into_windows(take(x, self._order), self._size)).flatten(0, 1)

    def rows(self, y: Tensor) -> Tensor:
        """Return the windows' rows in the order of the event."""
        return take(from_windows(y, (*self._shape, y.shape[-1])), self.place)

    def sums(self, y: Tensor) -> Tensor:
        """Add up what a window, the one before and the one after say of its elements."""
        parts = y.reshape(self._shape[0], -1, 3, self._size, y.shape[-1])
        before, own, after = parts.unbind(2)  # of the window before, the own, the one after
        shifted = torch.zeros_like(own[:, :1])
        total = (
            own + torch.cat((before[:, 1:], shifted), 1) + torch.cat((shifted, after[:, :-1]), 1)
        )
        return self.rows(total.flatten(0, 1))


def reach_of(config: ModelConfig, geometry: Geometry) -> Reach:
    """Return what the elements of events reach with the configured backbone."""
    if config.backbone == "attention":
        return Everything(geometry)
    return Windows(geometry, config.window_elements)
