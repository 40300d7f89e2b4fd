"""Samplers that learn nothing: random points, a low-discrepancy sequence, a grid.

The k-th point of the sequence or of the grid belongs to slot k, whatever the order of the jobs. The
default configuration counts as the first point if it is tried at all.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats.qmc import Sobol

from particleforge.config.space import grid_points
from particleforge.errors import UserError
from particleforge.hpo.proposals import Params, Request, key_of
from particleforge.hpo.space import encoded_width, one_hot, unit_points_to_params

# points drawn per point wanted: a space that has a new one left would show it, unless few are left
_DRAWS = 64


def sample_at_random(request: Request) -> Iterator[Params]:
    """Yield uniform points of the space."""
    uniforms = np.random.default_rng(request.own_seed).random(
        (_DRAWS, encoded_width(request.space))
    )
    yield from unit_points_to_params(request.space, uniforms, request.defaults)


def sample_qmc(request: Request) -> Iterator[Params]:
    """Yield the slot's point of a scrambled Sobol sequence, and those after it.

    Each point of the space counts once.
    """
    space, wanted = request.space, request.slot + 1
    powers = range(wanted.bit_length() + 1, (_DRAWS * wanted).bit_length()) if space else ()
    for power in powers:
        uniforms = Sobol(len(space), scramble=True, rng=request.shared_seed).random_base2(power)
        points = _after_default(
            request, unit_points_to_params(space, one_hot(space, uniforms), request.defaults)
        )
        if len(points) >= wanted:
            yield from points[wanted - 1 :]
            return


def sample_grid(request: Request) -> Iterator[Params]:
    """Yield the slot's point of the grid in a random order, and those after it.

    UserError if no point is left.
    """
    grid = list(grid_points(request.space, request.hpo.grid_points, request.defaults))
    shuffled = [grid[k] for k in np.random.default_rng(request.shared_seed).permutation(len(grid))]
    points = _after_default(request, shuffled)
    yield from points[request.slot :] + points[: request.slot]
    raise UserError(
        f"hpo.sampler: all {len(points)} points of the grid are taken; lower hpo.first_rung_slots"
        " or raise hpo.grid_points"
    )


def _after_default(request: Request, points: list[Params]) -> list[Params]:
    """Return the points without repetitions, after the default if the search tries that."""
    distinct: dict[Any, Params] = {}
    for point in [request.default] * request.hpo.include_default + points:
        distinct.setdefault(key_of(point), point)
    return list(distinct.values())
