"""Choose which trial a slot above the first rung goes on with.

Inputs -> outputs: the trials so far -> one of the rung below, of the same bracket, that ended well
and that no slot has promoted yet; None if there is none.

* ``measured``: the best at that rung. While nothing failed it lies in the top 1/eta (see
  :mod:`particleforge.hpo.dag`); after failures it may be the next best, so that a slot is left
  empty only if nothing is left to promote.
* ``predicted``: the one that is expected to end best (:mod:`particleforge.hpo.joint_gp`); any that
  ended well may be chosen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from particleforge.config.hpo import HpoConfig
from particleforge.hpo.joint_gp import most_promising
from particleforge.hpo.trials import SearchTrial, succeeded
from particleforge.seeds import seed_of


def promote(
    hpo: HpoConfig,
    seed: int,
    defaults: Mapping[str, Any],
    trials: Sequence[SearchTrial],
    bracket: int,
    rung: int,
) -> SearchTrial | None:
    """Return the trial that a new slot of ``rung`` of ``bracket`` promotes, or None.

    ``defaults`` are the configured values: what trials had that were made before a parameter was
    added to the space.
    """
    found = contenders(trials, bracket, rung)
    if hpo.promotion == "predicted":
        n_promoted = sum((t.bracket, t.rung) == (bracket, rung) for t in trials)
        rng = np.random.default_rng(seed_of(seed, "hpo", "promote", bracket, rung, n_promoted))
        return most_promising(hpo, defaults, trials, found, rng)
    return next(iter(found), None)


def contenders(trials: Sequence[SearchTrial], bracket: int, rung: int) -> list[SearchTrial]:
    """Return the trials that a slot of a rung may promote, best first."""
    own = [t for t in trials if t.bracket == bracket]
    promoted = {t.parent for t in own if t.rung == rung}
    return [t for t in succeeded(own, rung - 1) if t.number not in promoted]
