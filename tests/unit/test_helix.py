"""Helices against a numerical integration of the equation of motion, and against their own
definitions.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from particleforge.edm4hep.constants import GEV_PER_TESLA_MM
from particleforge.simulation import helix
from particleforge.simulation.helix import State

B = 4.0


def state(**values: float) -> State:
    complete = {
        "x": 0.0,
        "y": 0.0,
        "z": 0.0,
        "px": 0.0,
        "py": 0.0,
        "pz": 0.0,
        "charge": 0.0,
    } | values
    return State(**{name: np.array([value]) for name, value in complete.items()})


@pytest.mark.parametrize("charge", [1.0, -1.0, 0.0])
def test_helix_solves_the_lorentz_force(charge: float) -> None:
    start = state(x=12.0, y=-7.0, z=30.0, px=0.4, py=0.9, pz=-0.6, charge=charge)
    p = float(start.p[0])

    def motion(_: float, y: np.ndarray) -> np.ndarray:  # d/ds with dp/ds = q 0.2998e-3 (p/|p|) x B
        u = y[3:] / p
        return np.concatenate([u, charge * GEV_PER_TESLA_MM * np.cross(u, [0, 0, B])])

    path = 1234.5
    initial = [start.x[0], start.y[0], start.z[0], start.px[0], start.py[0], start.pz[0]]
    numeric = solve_ivp(motion, (0, path), initial, rtol=1e-10, atol=1e-10).y[:, -1]
    end = helix.advance(start, np.array([path]), B)
    assert np.allclose(
        [end.x[0], end.y[0], end.z[0], end.px[0], end.py[0], end.pz[0]], numeric, atol=1e-5
    )


@given(
    pt=st.floats(0.05, 500),
    tangent=st.floats(-4, 4),
    phi=st.floats(-3.1, 3.1),
    charge=st.sampled_from([-1.0, 0.0, 1.0]),
    x=st.floats(-400, 400),
    y=st.floats(-400, 400),
)
def test_crossing_lies_on_the_cylinder_and_is_the_first(
    pt: float, tangent: float, phi: float, charge: float, x: float, y: float
) -> None:
    start = state(
        x=x, y=y, px=pt * np.cos(phi), py=pt * np.sin(phi), pz=pt * tangent, charge=charge
    )
    path = helix.path_to_cylinder(start, 1500.0, B)
    steps = np.linspace(0, 1, 50)[:-1]
    if np.isfinite(path[0]):
        end = helix.advance(start, path, B)
        assert np.hypot(end.x, end.y)[0] == pytest.approx(1500.0, abs=1e-3)
        on_the_way = helix.advance(start.column(), path * steps, B)
        assert np.all(np.hypot(on_the_way.x, on_the_way.y) < 1500.0 + 1e-3)
    else:
        turn = 2 * np.pi / np.abs(start.turning(B))
        circle = helix.advance(start.column(), turn * steps, B)
        assert np.all(np.hypot(circle.x, circle.y) < 1500.0 + 1e-3)


def test_particles_along_the_beam_reach_the_end_plane_only() -> None:
    along = state(z=5.0, pz=-3.0)
    assert helix.path_to_surface(along, 1500.0, 2300.0, B)[0] == pytest.approx(2305.0)
    across = state(px=0.1, charge=1.0)  # circles for ever
    assert np.isinf(helix.path_to_surface(across, 1500.0, 2300.0, B)[0])


@pytest.mark.parametrize("charge", [1.0, -1.0])
def test_perigee_has_the_signs_of_lcio(charge: float) -> None:
    d0, phi0 = 0.7, 1.1
    start = state(
        x=-d0 * np.sin(phi0),
        y=d0 * np.cos(phi0),
        z=-3.0,
        px=2 * np.cos(phi0),
        py=2 * np.sin(phi0),
        pz=1.0,
        charge=charge,
    )
    displaced = helix.advance(start, np.array([321.0]), B)
    found = helix.perigee(displaced, B)
    assert np.allclose(np.ravel(found), [d0, phi0, -3.0], atol=1e-8)
