"""Propose and promote by what a configuration is expected to reach at the full budget.

Inputs -> outputs: the trials so far -> a new configuration for a first-rung slot, or the trial that
a slot above promotes. Both ask the same model (:mod:`particleforge.hpo.surrogate`), which sees the
values of all rungs, never takes a low rung's value for a final one, and expects of trials under way
what it predicts for them.

Rules:

* a new configuration is, of some hundred drawn at random, the one of largest expected improvement
  at the full budget, over the best prediction for any configuration tried, times the squared
  probability that its training does not fail (squared, as losses are extrapolated without bounds to
  where none can be). The maximum itself is not searched for: it tends to lie in corners of the
  space, where the model knows least, and again in the same ones;
* a promotion is the contender that is expected to end lowest: what is uncertain about it is no
  reason to promote it (benchmarks/LOG.md gives figures), and its own training has not failed so
  far, which says more than its neighbours' failures;
* failures are no losses: they enter the probability of failing alone, a second process over all
  configurations that ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from particleforge.config.hpo import HpoConfig
from particleforge.hpo import dag
from particleforge.hpo.model_free import sample_qmc
from particleforge.hpo.proposals import Params, Request
from particleforge.hpo.space import encode, encoded_width, unit_points_to_params
from particleforge.hpo.surrogate import Array, JointGP, expected_improvement
from particleforge.hpo.trials import SearchTrial

_DRAWN = 300  # points drawn anywhere, of which the best is proposed


@dataclass(frozen=True)
class _Seen:
    """What the model has been told of a search."""

    model: JointGP
    fails: JointGP | None
    best: float  # smallest prediction for the full budget of any configuration tried

    @classmethod
    def of(
        cls,
        hpo: HpoConfig,
        defaults: Mapping[str, Any],
        trials: Sequence[SearchTrial],
        rng: np.random.Generator,
    ) -> Self | None:
        """Learn from the trials; None if none ended well."""
        done = [t for t in trials if t.status == "complete"]
        if not done:
            return None
        x = encode(hpo.space, [t.params for t in done], defaults)
        y = standardised(np.array([t.loss for t in done]))
        model = JointGP.fit(x, np.array([_share(hpo, t.rung) for t in done]), y, rng)
        pending = encode(hpo.space, [t.params for t in trials if not t.finished], defaults)
        best = float(model.predict(x)[0].min())
        return cls(model.expecting(pending), _failures(hpo, defaults, trials, rng), best)

    def improvement(self, x: Array) -> Array:
        """Return the expected improvement of points (m, d), less where failures are expected."""
        gain = expected_improvement(*self.model.predict(x), self.best)
        if self.fails is not None:
            gain = gain * np.clip(1 - self.fails.predict(x)[0], 0.01, 1) ** 2
        return gain


def sample_joint_gp(request: Request) -> Iterator[Params]:
    """Yield new configurations, the most promising first.

    Points of a Sobol sequence while little is known.
    """
    rng = np.random.default_rng(request.own_seed)
    trials = request.usable()
    seen = None
    if sum(t.parent is None for t in trials) >= request.n_startup:
        seen = _Seen.of(request.hpo, request.defaults, trials, rng)
    if seen is None:
        yield from sample_qmc(request)
        return
    points = _valid(request, rng.random((_DRAWN, encoded_width(request.space))))
    order = np.argsort(-seen.improvement(points), kind="stable")
    yield from unit_points_to_params(request.space, points[order], request.defaults)


def most_promising(
    hpo: HpoConfig,
    defaults: Mapping[str, Any],
    trials: Sequence[SearchTrial],
    contenders: Sequence[SearchTrial],
    rng: np.random.Generator,
) -> SearchTrial | None:
    """Return the contender that is expected to end lowest, the first of equals.

    None if there is none.
    """
    seen = _Seen.of(hpo, defaults, trials, rng) if len(contenders) > 1 else None
    if seen is None:
        return next(iter(contenders), None)
    mean, _ = seen.model.predict(encode(hpo.space, [t.params for t in contenders], defaults))
    return contenders[int(np.argmin(mean))]


def standardised(losses: Array) -> Array:
    """Return losses (n) on a logarithmic scale, with mean 0 and variance 1.

    The unit is the distance from the best to the median, so that bad configurations do not set the
    scale on which the good ones differ.
    """
    best = losses.min()
    unit = np.median(losses) - best
    scaled = np.log1p((losses - best) / unit) if unit > 0 else losses - best
    deviation = scaled.std()
    return np.asarray((scaled - scaled.mean()) / (deviation if deviation > 0 else 1.0))


def _share(hpo: HpoConfig, rung: int) -> float:
    """Return a rung's budget as a share of the full one."""
    return dag.budget(hpo, rung) / dag.budget(hpo, dag.n_rungs(hpo) - 1)


def _failures(
    hpo: HpoConfig,
    defaults: Mapping[str, Any],
    trials: Sequence[SearchTrial],
    rng: np.random.Generator,
) -> JointGP | None:
    """Return a model of the probability that a configuration fails, or None if none did."""
    ended = {t.config: t for t in sorted(trials, key=lambda t: t.rung) if t.finished}
    failed = np.array([float(t.status != "complete") for t in ended.values()])
    if not failed.any():
        return None
    x = encode(hpo.space, [t.params for t in ended.values()], defaults)
    return JointGP.fit(x, np.ones(len(x)), failed, rng)


def _valid(request: Request, points: Array) -> Array:
    """Return points rounded to configurations that exist, without doubles."""
    rounded = encode(
        request.space,
        unit_points_to_params(request.space, points, request.defaults),
        request.defaults,
    )
    return np.unique(rounded.round(12), axis=0)
