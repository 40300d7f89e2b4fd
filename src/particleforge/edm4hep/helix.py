"""Track states as the origin sees them.

Inputs -> outputs: parameters of helices with regard to the states' reference points (LCIO,
LC-DET-2006-004: D0, phi, omega, Z0, tanLambda; mm, rad, 1/mm) -> the same helices with regard to
the origin. A state's D0 and Z0 count from its reference point, which fits put at the beam spot, a
vertex or a hit, as they like; what is compared between tracks must count from one point.

With the reference point (x, y, z), the circle's centre is at (x + (1/omega - D0) sin phi, y -
(1/omega - D0) cos phi), and the way along the helix from one point of closest approach to the other
is -(change of phi) / omega in the transverse plane. Of all turns of a helix the nearest counts.
"""

from collections.abc import Mapping

import numpy as np

from particleforge.edm4hep.raw_events import Array, FloatArray


def seen_from_origin(states: Mapping[str, Array]) -> dict[str, FloatArray]:
    """Return the columns of states with d0, phi and z0 with regard to the origin, float64 ``[n]``.

    States whose reference point is the origin are left as they are. Where a number is missing, or
    omega is 0, what follows from it is NaN.
    """
    found = {name: np.asarray(column, np.float64) for name, column in states.items()}
    d0, phi, omega, z0, x, y, z = (
        found[name] for name in ("d0", "phi", "omega", "z0", "x", "y", "z")
    )
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        to_centre = 1 / omega - d0
        centre_x, centre_y = x + to_centre * np.sin(phi), y - to_centre * np.cos(phi)
        sense = np.sign(omega)
        turned = np.arctan2(sense * centre_x, -sense * centre_y)
        way = -_wrapped(turned - phi) / omega
        moved = {
            "d0": 1 / omega - sense * np.hypot(centre_x, centre_y),
            "phi": turned,
            "z0": z + z0 + way * found["tan_lambda"],
        }
    elsewhere = (x != 0) | (y != 0)
    found["z0"] = np.where(elsewhere, moved["z0"], z0 + z)
    for name in ("d0", "phi"):
        found[name] = np.where(elsewhere, moved[name], found[name])
    return found


def _wrapped(angle: FloatArray) -> FloatArray:
    return np.asarray(np.arctan2(np.sin(angle), np.cos(angle)))
