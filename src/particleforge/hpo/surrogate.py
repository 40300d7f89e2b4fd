"""A Gaussian process over configurations and budgets, which predicts losses at the full budget.

Model: a configuration x, trained for budget b, has loss

    (f(x) + u(x)) r(b) + g(x) s(b) + noise,

where s falls from 1 at the smallest budget seen to 0 at the full one as a power law b**-beta, and r
= 1 + (rho - 1) s: f + u is what training to the end reaches, g what is still to be gained. f and g
are Gaussian processes with Matern-5/2 kernels, a length scale per dimension and a constant of
unknown size. u differs from one configuration to the next without rule, but is the same at all
budgets: what a training has shown counts for itself, also where the smooth f would take it for
noise. rho says how many times as far final losses spread at the smallest budget: the autoregressive
form of Kennedy and O'Hagan (Biometrika 87, 2000, eq. 1). Part of the noise falls with s(b): what
curves of other shapes than a power law leave unexplained at low budgets. Related models: Swersky et
al., freeze-thaw (arXiv:1406.3896); Klein et al., MOBSTER (arXiv:2003.10865).

All hyperparameters are those of the largest posterior density under log-normal priors, found by
L-BFGS with exact gradients.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

Array = npt.NDArray[np.float64]

_LEARNT_FROM_MAX = 150  # observations that hyperparameters are learnt from; predictions use all
_JITTER = 1e-6
_CONSTANT = 1.0  # variance of the constants of f and g, in units of the standardised losses
_ROOT_5 = math.sqrt(5)


@dataclass(frozen=True)
class _Prior:
    """Medians and widths of the hyperparameters, which are kept as logarithms in one vector.

    Order: length scales of f, length scales of g, standard deviations of f, g and u, beta, noise,
    noise of the smallest budget (standard deviations), rho.
    """

    mean: Array
    width: Array

    @classmethod
    def of(cls, n_dims: int) -> Self:
        """Return the prior for points of the unit cube and losses of unit variance."""
        scale = 0.7 * math.sqrt(n_dims)
        return cls(
            np.log([*[scale] * (2 * n_dims), 1.0, 0.5, 0.2, 0.7, 0.05, 0.1, 1.0]),
            np.array([0.8] * (2 * n_dims) + [0.7, 1.0, 1.0, 0.5, 1.0, 1.0, 0.7]),
        )


def _matern(x: Array, other: Array, scales: Array) -> tuple[Array, Array]:
    """Return the Matern-5/2 correlation of two sets of points, and a factor of its gradient.

    The factor is that for every length scale.
    """
    a, b = x / scales, other / scales
    squared = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0)
    root = _ROOT_5 * np.sqrt(squared)
    decay = np.exp(-root)
    return (1 + root + 5 / 3 * squared) * decay, 5 / 3 * (1 + root) * decay


def _same(x: Array, other: Array) -> Array:
    """Return 1 where a point of ``x`` (m, d) is one of ``other`` (n, d), else 0: (m, n)."""
    numbers: dict[bytes, int] = {}
    mine, others = (
        np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in points])
        for points in (x, other)
    )
    return np.asarray(mine[:, None] == others, dtype=float)


def _remaining(budget: Array, smallest: float, beta: float) -> tuple[Array, Array]:
    """Return s(b) for budgets as shares of the full one, and its derivative by log(beta)."""
    if smallest >= 1:
        return np.zeros_like(budget), np.zeros_like(budget)
    top, ends = budget**-beta - 1, smallest**-beta - 1
    d_top, d_ends = -np.log(budget) * budget**-beta, -math.log(smallest) * smallest**-beta
    return top / ends, beta * (d_top * ends - top * d_ends) / ends**2


class JointGP:
    """The model, conditioned on losses that were seen; make it with :meth:`fit`."""

    def __init__(self, x: Array, budget: Array, y: Array, hyper: Array) -> None:
        """Condition on ``y`` (n), the standardised losses of points ``x`` (n, d) at budgets (n).

        Budgets are shares of the full one.
        """
        self.x, self.budget, self.y, self.hyper = x, budget, y, hyper
        kernel = _kernel(hyper, x, budget, _same(x, x))
        self._r = kernel.r
        self._factor = cho_factor(kernel.covariance, lower=True)
        self._weights = cho_solve(self._factor, y)

    @classmethod
    def fit(cls, x: Array, budget: Array, y: Array, rng: np.random.Generator) -> Self:
        """Learn the hyperparameters, from a random part of very many points; condition on all."""
        n, n_dims = x.shape
        prior = _Prior.of(n_dims)
        chosen = np.arange(n)
        if n > _LEARNT_FROM_MAX:  # the highest budgets are few and tell most: they stay
            order = rng.permutation(n)
            order = order[np.argsort(-budget[order], kind="stable")]
            half = _LEARNT_FROM_MAX // 2
            chosen = np.concatenate(
                [order[:half], rng.choice(order[half:], _LEARNT_FROM_MAX - half, replace=False)]
            )
        data = x[chosen], budget[chosen], y[chosen], _same(x[chosen], x[chosen])
        starts = [
            prior.mean,
            np.concatenate([prior.mean[: 2 * n_dims] - 0.7, prior.mean[2 * n_dims :]]),
        ]
        bounds = list(zip(prior.mean - 4 * prior.width, prior.mean + 4 * prior.width, strict=True))
        found = [
            minimize(
                _loss,
                start,
                args=(*data, prior),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"maxiter": 40},
            )
            for start in starts
        ]
        return cls(x, budget, y, min(found, key=lambda result: result.fun).x)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of f + u, the full budget's loss, at points (m, d)."""
        n_dims = x.shape[1]
        variance, own = np.exp(2 * self.hyper[[2 * n_dims, 2 * n_dims + 2]])
        final = (
            _CONSTANT
            + variance * _matern(x, self.x, np.exp(self.hyper[:n_dims]))[0]
            + own * _same(x, self.x)
        )
        cross = final * self._r
        explained = solve_triangular(self._factor[0], cross.T, lower=True)
        mean: Array = cross @ self._weights
        return mean, np.sqrt(np.maximum(_CONSTANT + variance + own - (explained**2).sum(0), 1e-12))

    def expecting(self, x: Array) -> Self:
        """Return the model as if points (m, d) had been seen to reach their means.

        So what is under way teaches nothing anew.
        """
        if not len(x):
            return self
        y = self.predict(x)[0]
        return type(self)(
            np.concatenate([self.x, x]),
            np.concatenate([self.budget, np.ones(len(x))]),
            np.concatenate([self.y, y]),
            self.hyper,
        )


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return by how much each point is expected to fall below ``best``.

    Source: Jones et al. 1998, eq. 15, for a minimum.
    """
    z = (best - mean) / deviation
    gain: Array = deviation * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    return gain


@dataclass(frozen=True)
class _Kernel:
    """The covariance of all observations (n, n), and what its gradient is made of.

    ``f``, ``g``: variance times correlation; ``df``, ``dg``: the same times the factor for length
    scales; ``own``: that of u; ``s``, ``ds``: see :func:`_remaining`; ``r``: 1 + (rho - 1) s.
    """

    covariance: Array
    f: Array
    df: Array
    g: Array
    dg: Array
    own: Array
    s: Array
    ds: Array
    r: Array


def _kernel(hyper: Array, x: Array, budget: Array, same: Array) -> _Kernel:
    """Return the covariance of observations of points ``x`` (n, d) at budgets (n).

    ``same`` (n, n) as of :func:`_same`.
    """
    n_dims = x.shape[1]
    variance_f, variance_g, variance_own = np.exp(2 * hyper[2 * n_dims : 2 * n_dims + 3])
    beta, noise, noise_low, rho = np.exp(hyper[2 * n_dims + 3 :])
    s, ds = _remaining(budget, float(budget.min()), beta)
    f, df = _matern(x, x, np.exp(hyper[:n_dims]))
    g, dg = _matern(x, x, np.exp(hyper[n_dims : 2 * n_dims]))
    f = variance_f * f
    df = variance_f * df
    g = variance_g * g
    dg = variance_g * dg
    own = variance_own * same
    r = 1 + (rho - 1) * s
    covariance = np.outer(r, r) * (_CONSTANT + f + own) + np.outer(s, s) * (_CONSTANT + g)
    covariance[np.diag_indices_from(covariance)] += noise**2 + (noise_low * s) ** 2 + _JITTER
    return _Kernel(covariance, f, df, g, dg, own, s, ds, r)


def _loss(
    hyper: Array, x: Array, budget: Array, y: Array, same: Array, prior: _Prior
) -> tuple[float, Array]:
    """Return the negative logarithm of the posterior density and its gradient."""
    n_dims = x.shape[1]
    k = _kernel(hyper, x, budget, same)
    noise, noise_low, rho = np.exp(hyper[2 * n_dims + 4 :])
    try:
        factor = cho_factor(k.covariance, lower=True)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(hyper)
    weights = cho_solve(factor, y)
    # d(loss)/d(covariance), times 2
    inner = cho_solve(factor, np.eye(len(y))) - np.outer(weights, weights)
    inner_f, inner_g = inner * np.outer(k.r, k.r), inner * np.outer(k.s, k.s)

    def by_scales(part: Array, scales: Array) -> Array:
        scaled, rows = x / scales, part.sum(1)
        total: Array = 2 * (rows @ scaled**2 - np.einsum("nd,nd->d", scaled, part @ scaled))
        return total

    diagonal = np.diag(inner)
    by_r = 2 * (inner * (_CONSTANT + k.f + k.own)) @ k.r
    by_s = (
        2 * (inner * (_CONSTANT + k.g)) @ k.s + 2 * noise_low**2 * diagonal * k.s + (rho - 1) * by_r
    )
    gradient = 0.5 * np.concatenate(
        [
            by_scales(inner_f * k.df, np.exp(hyper[:n_dims])),
            by_scales(inner_g * k.dg, np.exp(hyper[n_dims : 2 * n_dims])),
            [
                2 * (inner_f * k.f).sum(),
                2 * (inner_g * k.g).sum(),
                2 * (inner_f * k.own).sum(),
                by_s @ k.ds,
                2 * noise**2 * diagonal.sum(),
                2 * noise_low**2 * (diagonal * k.s**2).sum(),
                rho * by_r @ k.s,
            ],
        ]
    )
    offset = (hyper - prior.mean) / prior.width
    value = 0.5 * y @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * (offset**2).sum()
    return float(value), gradient + offset / prior.width
