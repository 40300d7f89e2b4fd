"""Propose a configuration for a slot that wants a new one.

A proposal is a function of the trials so far, the run's seed and the slot, so a search whose jobs
run one after another is reproducible; with the samplers that learn nothing, in any order of the
jobs (but for collisions of random points).

No configuration is proposed that a trial has, running or not, while the space has another.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from particleforge.config.hpo import HpoConfig
from particleforge.config.space import grid_points
from particleforge.hpo import model_free, model_samplers
from particleforge.hpo.proposals import Params, Request, Sampler, key_of
from particleforge.hpo.trials import SearchTrial

SAMPLERS: Mapping[str, Sampler] = {
    "random": model_free.sample_at_random,
    "qmc": model_free.sample_qmc,
    "grid": model_free.sample_grid,
    "tpe": model_samplers.sample_tpe,
    "gp": model_samplers.sample_gp,
    "cmaes": model_samplers.sample_cmaes,
    "nsgaii": model_samplers.sample_nsgaii,
}


def propose(
    hpo: HpoConfig,
    seed: int,
    slot: int,
    defaults: Mapping[str, Any],
    trials: Sequence[SearchTrial],
) -> Params:
    """Return the parameters of a new configuration, those that are active in it.

    ``defaults`` are the configured values of the space's settings and of those that its conditions
    name: what trials had that do not record them.
    """
    request = Request(hpo, seed, slot, defaults, trials)
    if hpo.include_default and slot == 0:
        return request.default
    taken = {key_of(point) for point in request.points(trials)}
    for params in SAMPLERS[hpo.sampler](request):
        if key_of(params) not in taken:
            return params
    return _any_new(request, taken)


def _any_new(request: Request, taken: set[frozenset[tuple[str, Any]]]) -> Params:
    """Return a random configuration that no trial has, the first of the space if those are rare.

    One of a trial if there is no other.
    """
    drawn = list(model_free.sample_at_random(request))
    return next(
        (
            params
            for params in chain(drawn, grid_points(request.space, 2, request.defaults))
            if key_of(params) not in taken
        ),
        drawn[0],
    )
