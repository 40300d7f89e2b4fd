"""Choose which trial a slot above the first rung goes on with.

Inputs -> outputs: the trials so far -> one of the rung below, of the same bracket, that ended well and that no slot has
promoted yet; None if there is none.

* ``rank``: the best at that rung. While nothing failed it lies in the top 1/eta (see :mod:`particleforge.hpo.dag`); after
  failures it may be the next best, so that a slot is left empty only if nothing is left to promote.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from particleforge.config.hpo import HpoConfig
from particleforge.hpo.trials import SearchTrial, succeeded


def promote(
    hpo: HpoConfig,  # noqa: ARG001  rules that predict ask for the space
    seed: int,  # noqa: ARG001  and draw
    defaults: Mapping[str, Any],  # noqa: ARG001  and fill in parameters that were added to the space later
    trials: Sequence[SearchTrial],
    bracket: int,
    rung: int,
) -> SearchTrial | None:
    """Return the trial that a new slot of ``rung`` of ``bracket`` promotes, or None."""
    return next(iter(candidates(trials, bracket, rung)), None)


def candidates(trials: Sequence[SearchTrial], bracket: int, rung: int) -> list[SearchTrial]:
    """Return the trials that a slot of a rung may promote, best first."""
    own = [t for t in trials if t.bracket == bracket]
    promoted = {t.parent for t in own if t.rung == rung}
    return [t for t in succeeded(own, rung - 1) if t.number not in promoted]
