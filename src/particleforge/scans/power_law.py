"""Fit of a power law with a floor, L(N) = a N^-b + c, with uncertainties.

Inputs -> outputs: sizes N, losses L and, where trainings were repeated, errors of L ->
``PowerLaw``, or the reason why there is none.

The form is that of Hestness et al. (arXiv:1712.00409, section 2) and Henighan et al.
(arXiv:2010.14701, section 2): b is the exponent, c the loss that no size undercuts. The fit is of
least squares (``scipy.optimize.curve_fit``) in the amplitude A at the geometric mean N0 of the
sizes, since a = A N0^b and b are all but fully correlated. Its covariance is scaled by the spread
of the points about the curve, so errors hold whether or not trainings were repeated. If the floor
comes out at zero, it is fixed there and the other two are fitted again, because the covariance of a
parameter at its limit means nothing.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeWarning, curve_fit

Values = npt.NDArray[np.float64]
SIZES_MIN = 4  # three parameters, and one more point to tell their errors from
_EXPONENT_MAX = 10.0
_FLOOR_SHARE_MIN = 1e-3  # of the smallest loss; a lower floor is none


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law.

    ``covariance`` is that of (log A, b, c) with zeros for a floor that is fixed.
    """

    reference: float  # N0
    log_amplitude: float
    exponent: float
    floor: float
    covariance: Values
    chi2_per_degree: float | None

    @property
    def floor_is_fixed(self) -> bool:
        """Whether the floor was fixed at zero."""
        return not self.covariance[2, 2] > 0

    def at(self, sizes: npt.ArrayLike) -> tuple[Values, Values]:
        """Return the curve at ``sizes`` and its error."""
        x = np.log(np.asarray(sizes, np.float64) / self.reference)
        power = np.exp(self.log_amplitude - self.exponent * x)
        gradient = np.stack([power, -x * power, np.ones_like(power)])
        return power + self.floor, np.sqrt(
            np.einsum("i...,ij,j...->...", gradient, self.covariance, gradient)
        )

    def plain(self) -> dict[str, Any]:
        """Return parameters, each with value and error, as plain values."""
        log_reference = float(np.log(self.reference))
        to_a = np.array([1.0, log_reference, 0.0])  # log a = log A + b log N0
        a = float(np.exp(self.log_amplitude + self.exponent * log_reference))
        amplitude = float(np.exp(self.log_amplitude))
        return {
            "form": "a * N**-b + c",
            "a": {"value": a, "error": a * float(np.sqrt(to_a @ self.covariance @ to_a))},
            "b": {"value": self.exponent, "error": float(np.sqrt(self.covariance[1, 1]))},
            "c": {
                "value": self.floor,
                "error": None if self.floor_is_fixed else float(np.sqrt(self.covariance[2, 2])),
            },
            "amplitude_at_reference": {
                "value": amplitude,
                "error": amplitude * float(np.sqrt(self.covariance[0, 0])),
            },
            "reference": self.reference,
            "covariance_of_log_amplitude_b_c": self.covariance.tolist(),
            "chi2_per_degree": self.chi2_per_degree,
        }


def fit_power_law(
    sizes: Sequence[float], losses: Sequence[float], errors: Sequence[float] | None = None
) -> PowerLaw | str:
    """Return the fit, or in words why there is none; ``errors`` weigh the points."""
    if len(set(sizes)) < SIZES_MIN:
        return (
            f"{len(set(sizes))} sizes; a fit of three parameters and their errors needs {SIZES_MIN}"
        )
    x, y = np.asarray(sizes, np.float64), np.asarray(losses, np.float64)
    reference = float(np.exp(np.log(x).mean()))
    scaled = np.log(x / reference)
    sigma = None if errors is None else np.asarray(errors, np.float64)
    span = float(y.max() - y.min())
    if span <= 0:
        return "the losses are all the same"
    start = [float(np.log(span)), 0.5, max(0.0, float(y.min()) - 0.5 * span)]
    bounds = ([-50.0, -_EXPONENT_MAX, 0.0], [50.0, _EXPONENT_MAX, float(y.max())])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            found, covariance = curve_fit(
                _with_floor,
                scaled,
                y,
                start,
                sigma,
                bounds=bounds,
                x_scale=[1.0, 0.1, span],
                max_nfev=5000,
            )
            if found[2] < _FLOOR_SHARE_MIN * y.min():
                found, inner = curve_fit(
                    _without_floor,
                    scaled,
                    y,
                    start[:2],
                    sigma,
                    bounds=(bounds[0][:2], bounds[1][:2]),
                    max_nfev=5000,
                )
                found, covariance = np.append(found, 0.0), np.zeros((3, 3))
                covariance[:2, :2] = inner
    except (RuntimeError, OptimizeWarning) as error:
        return f"the fit found no minimum: {' '.join(str(error).split())}"
    if found[1] <= 0:
        return f"the loss does not fall with size: exponent {found[1]:.3g}"
    floor_is_fixed = found[2] == 0
    degrees = len(y) - (2 if floor_is_fixed else 3)
    chi2 = (
        None
        if sigma is None
        else float(np.sum(((y - _with_floor(scaled, *found)) / sigma) ** 2)) / degrees
    )
    return PowerLaw(reference, float(found[0]), float(found[1]), float(found[2]), covariance, chi2)


def as_plain(fit: PowerLaw | str) -> Mapping[str, Any]:
    """Return a fit, or the reason why there is none, as plain values."""
    return fit.plain() if isinstance(fit, PowerLaw) else {"reason": fit}


def _with_floor(x: Values, log_amplitude: float, exponent: float, floor: float) -> Values:
    return np.exp(log_amplitude - exponent * x) + floor


def _without_floor(x: Values, log_amplitude: float, exponent: float) -> Values:
    return np.exp(log_amplitude - exponent * x)
