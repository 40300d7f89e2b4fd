"""Motion of particles in a homogeneous field along +z, vectorised and exact.

States (position in mm, momentum in GeV, charge in e) -> path lengths to surfaces in mm, and states
after a path length.

The path length s counts in three dimensions, so that flight along the beam needs no special case.
With the azimuth phi of the momentum and w = dphi/ds = -0.299792458e-3 B q / p (B in T, p in GeV, w
in 1/mm):

    x(s) = x0 + s sin(theta) cos(phi0 + w s / 2) sinc(w s / 2),
    phi(s) = phi0 + w s,
    z(s) = z0 + s cos(theta)

(R. Fruehwirth et al., "Data Analysis Techniques for High-Energy Physics", ch. 3). Energy is
conserved. A path that never reaches its surface is infinite.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from particleforge.edm4hep.constants import GEV_PER_TESLA_MM

Values = NDArray[np.float64]
_STRAIGHT = 1e-9  # turning per mm below which the circle's centre is too far away to compute with


@dataclass(frozen=True)
class State:
    """Positions in mm, momenta in GeV and charges in e; all arrays of one shape."""

    x: Values
    y: Values
    z: Values
    px: Values
    py: Values
    pz: Values
    charge: Values

    @property
    def pt(self) -> Values:
        """Transverse momentum, GeV."""
        return np.hypot(self.px, self.py)

    @property
    def p(self) -> Values:
        """Momentum, GeV; never 0, so that it can divide."""
        return np.maximum(np.hypot(self.pt, self.pz), 1e-12)

    def turning(self, b_field_tesla: float) -> Values:
        """Return dphi/ds in 1/mm."""
        return -GEV_PER_TESLA_MM * b_field_tesla * self.charge / self.p

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """Return the states of these rows."""
        return type(self)(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def column(self) -> Self:
        """Return the states as columns [n, 1], to be combined with a row of surfaces."""
        return type(self)(*(getattr(self, name)[:, None] for name in self.__dataclass_fields__))


def advance(state: State, path: Values, b_field_tesla: float) -> State:
    """Return the states after ``path`` mm (finite, broadcast against the states)."""
    half_turn = 0.5 * state.turning(b_field_tesla) * path
    phi = np.arctan2(state.py, state.px)
    chord = path / state.p * state.pt * np.sinc(half_turn / np.pi)
    return State(
        x=state.x + chord * np.cos(phi + half_turn),
        y=state.y + chord * np.sin(phi + half_turn),
        z=state.z + path * state.pz / state.p,
        px=state.pt * np.cos(phi + 2 * half_turn),
        py=state.pt * np.sin(phi + 2 * half_turn),
        pz=np.broadcast_to(state.pz, half_turn.shape),
        charge=np.broadcast_to(state.charge, half_turn.shape),
    )


def path_to_cylinder(state: State, radius: Values | float, b_field_tesla: float) -> Values:
    """Return the path to the first crossing of the cylinder from inside, infinite if there is none.

    0 or less from outside.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        straight = _straight_to_cylinder(state, radius)
        curved = _curved_to_cylinder(state, radius, b_field_tesla)
    is_straight = np.abs(state.turning(b_field_tesla)) < _STRAIGHT
    path = np.where(is_straight, straight, curved)
    inside = np.hypot(state.x, state.y) < radius
    return np.where(inside, path, 0.0)


def _straight_to_cylinder(state: State, radius: Values | float) -> Values:
    along = (state.x * state.px + state.y * state.py) / state.pt
    transverse = -along + np.sqrt(along**2 + np.maximum(radius**2 - state.x**2 - state.y**2, 0.0))
    return np.where(state.pt > 0, transverse * state.p / state.pt, np.inf)


def _circle(state: State, b_field_tesla: float) -> tuple[Values, Values, Values, Values]:
    """Return turning, signed radius and centre (x, y) of the helix's circle."""
    turning = state.turning(b_field_tesla)
    signed_radius = state.pt / state.p / turning
    phi = np.arctan2(state.py, state.px)
    centre_x = state.x - signed_radius * np.sin(phi)
    centre_y = state.y + signed_radius * np.cos(phi)
    return turning, signed_radius, centre_x, centre_y


def _curved_to_cylinder(state: State, radius: Values | float, b_field_tesla: float) -> Values:
    """Intersect the circle of the helix with the cylinder's.

    The angle, seen from the circle's centre, fixes the turn.
    """
    turning, signed_radius, centre_x, centre_y = _circle(state, b_field_tesla)
    distance = np.hypot(centre_x, centre_y)
    cosine = (radius**2 - distance**2 - signed_radius**2) / (2 * distance * np.abs(signed_radius))
    crossing = np.arccos(cosine)  # nan where the circles do not meet
    start = np.arctan2(state.y - centre_y, state.x - centre_x) - np.arctan2(centre_y, centre_x)
    sense = np.sign(turning)
    turns = np.minimum(
        np.mod(sense * (crossing - start), 2 * np.pi),
        np.mod(sense * (-crossing - start), 2 * np.pi),
    )
    return np.where(np.abs(cosine) <= 1, turns / np.abs(turning), np.inf)


def path_to_plane(state: State, z: Values | float) -> Values:
    """Return the path to the plane, at this z.

    Infinite if the particle flies away from it or along it.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        path = (z - state.z) * state.p / state.pz
    return np.where(path >= 0, path, np.inf)


def path_to_surface(
    state: State, radius: float, half_length: float, b_field_tesla: float
) -> Values:
    """Return the path to the first crossing of a closed cylinder (barrel or end planes).

    Infinite for endless circling.
    """
    end = path_to_plane(state, np.copysign(half_length, state.pz))
    return np.minimum(path_to_cylinder(state, radius, b_field_tesla), end)


def perigee(state: State, b_field_tesla: float) -> tuple[Values, Values, Values]:
    """Return (d0, phi0, z0) at the closest approach to the z axis, with EDM4hep's signs.

    Charged particles only.

    The point of closest approach is ``d0 (-sin phi0, cos phi0)`` (LCIO track parameters,
    LC-DET-2006-004).
    """
    turning, signed_radius, centre_x, centre_y = _circle(state, b_field_tesla)
    sense = np.sign(turning)
    d0 = sense * np.hypot(centre_x, centre_y) - signed_radius
    phi0 = np.arctan2(-sense * centre_x, sense * centre_y)
    phi = np.arctan2(state.py, state.px)
    turn = np.mod(phi0 - phi + np.pi, 2 * np.pi) - np.pi
    return d0, phi0, state.z + turn / turning * state.pz / state.p
