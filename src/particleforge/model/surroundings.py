"""Energy around each element at a few angular scales: what tracks bring and calorimeters hold.

Inputs -> outputs: positions, energies and types of elements -> features [B, N, N_SURROUNDINGS], for
each of ``SCALES`` the logarithms of the sums of track momentum and of calorimeter energy, their
ratio, and the difference. Sums are weighted with a Gaussian of the angular distance and include the
element itself. What is left of the calorimeters' energy when the tracks' is taken off is the
quantity that particle flow by rules decides on.
"""

import torch
from torch import Tensor

from particleforge.model.curve import Geometry
from particleforge.model.reach import Reach
from particleforge.model.windows import gaussian

SCALES = (0.02, 0.06, 0.2)  # angular distance; from a cell to a shower's halo
N_SURROUNDINGS = 4 * len(SCALES)
_FLOOR_GEV = 0.05
_LOG_RATIO_MAX = 4.0


def surroundings(geometry: Geometry, is_track: Tensor, reach: Reach) -> Tensor:
    """Return the features of each element; ``is_track`` is bool [B, N]."""
    energy = geometry.energy * geometry.real
    both = torch.stack((energy * is_track, energy * ~is_track), -1)
    summed = reach.reached(both)
    squared = reach.distance.square()
    found = []
    for scale in SCALES:
        weighed = gaussian(squared, scale) @ summed
        tracks, calorimeter = reach.rows(weighed).float().unbind(-1)
        log_tracks, log_calorimeter = (tracks + _FLOOR_GEV).log(), (calorimeter + _FLOOR_GEV).log()
        ratio = (log_calorimeter - log_tracks).clamp(-_LOG_RATIO_MAX, _LOG_RATIO_MAX)
        left = (calorimeter - tracks).asinh()
        found += [0.5 * log_tracks, 0.5 * log_calorimeter, 0.7 * ratio, 0.5 * left]
    return torch.stack(found, -1)
