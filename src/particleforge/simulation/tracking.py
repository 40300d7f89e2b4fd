"""Tracks of charged particles: which are found, and with what parameters.

Particles and their flights -> ``Tracks``. A particle is found if it crosses enough measuring
layers, lies in the acceptance and passes the efficiency of its region. Curvature, angles and impact
parameters are smeared independently with the resolutions of the configuration; the state at the
calorimeter is the smeared helix carried to the calorimeter's face. Layers crossed are computed
exactly (first outward crossing of each). Specific ionisation follows Bethe with Sternheimer's
density correction for silicon (PDG Review, "Passage of particles through matter", eq. 34.5;
Sternheimer, Berger, Seltzer 1984).

A track cut short by a decay or an interaction, or starting late, has a shorter lever arm; its
curvature resolution grows as the inverse square of it (Gluckstern 1963). An electron that radiated
is fitted with its mean momentum. Now and then a hit is taken from the neighbouring track; then both
particles are linked. Invariants: ``pt = 0.299792458e-3 B / |omega|``, omega has the sign of the
charge; weights of a track's links sum to 1; links are ordered by track.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from particleforge.config.geometry import TrackerConfig
from particleforge.config.settings import SimulateSettings
from particleforge.edm4hep.constants import ELECTRON_MASS, GEV_PER_TESLA_MM
from particleforge.simulation import helix
from particleforge.simulation.columns import Particles, Tracks
from particleforge.simulation.helix import State
from particleforge.simulation.propagation import Flights

Values = NDArray[np.float64]

LEVER_MIN = 0.1
N_PARAMETERS = 5

# Silicon: K Z/A times density in GeV/mm, mean excitation energy in GeV, Sternheimer's parameters
_BETHE_SCALE = 0.307075e-3 * 0.49848 * 2.329 * 0.1
_EXCITATION = 173e-9
_X0, _X1, _C, _A, _K = 0.2015, 2.8716, 4.4355, 0.1492, 3.2546


@dataclass(frozen=True)
class _Crossings:
    """Layers that each particle crossed."""

    n_hits: NDArray[np.int64]
    innermost: Values  # mm


def make_tracks(
    particles: Particles, flights: Flights, settings: SimulateSettings, rng: np.random.Generator
) -> Tracks:
    """Return the tracks of a batch, ordered by event."""
    tracker, b_field = settings.tracker, settings.b_field_tesla
    start = start_of(particles, flights)
    eta = np.arcsinh(start.pz / np.maximum(start.pt, 1e-12))
    accepted = (start.pt >= tracker.pt_min_gev) & (np.abs(eta) <= tracker.abs_eta_max)
    found = np.flatnonzero(
        accepted & (rng.random(len(eta)) < efficiency_of(start.pt, eta, tracker))
    )
    crossings = cross_layers(start.take(found), flights.path[found], tracker, b_field)
    enough = crossings.n_hits >= tracker.hits_min
    found, n_hits, innermost = found[enough], crossings.n_hits[enough], crossings.innermost[enough]
    particle, start, eta = flights.particle[found], start.take(found), eta[found]
    lever = _lever_arm(start, flights.path[found], tracker, b_field)
    resolution = resolution_of(start.pt, eta, tracker) / lever**2
    fitted = _smear(start, flights.momentum_share[found], resolution, tracker, b_field, rng)
    at_face = _extrapolate(fitted.state, tracker, b_field)
    dedx = ionisation(start.p / np.maximum(particles.mass[particle], ELECTRON_MASS))
    event = particles.event[particle]
    state = fitted.state
    eta = np.arcsinh(state.pz / state.pt)
    links = _share_hits(event, eta, particle, n_hits, tracker.shared_hit_probability, rng)
    return Tracks(
        event=event,
        particle=particle,
        charge=state.charge.astype(np.int8),
        pt=state.pt,
        eta=eta,
        phi0=fitted.phi0,
        p=state.p,
        omega=state.charge * GEV_PER_TESLA_MM * b_field / state.pt,
        tan_lambda=state.pz / state.pt,
        d0=fitted.d0,
        z0=fitted.z0,
        chi2=rng.chisquare(2 * n_hits - N_PARAMETERS),
        ndf=2 * n_hits - N_PARAMETERS,
        n_hits=n_hits,
        dedx=np.maximum(dedx * (1 + tracker.dedx_resolution * rng.normal(size=len(dedx))), 0.0),
        dedx_error=dedx * tracker.dedx_resolution,
        radius_innermost_hit=innermost,
        x_calo=at_face.x,
        y_calo=at_face.y,
        z_calo=at_face.z,
        dx_calo=at_face.px / at_face.p,
        dy_calo=at_face.py / at_face.p,
        dz_calo=at_face.pz / at_face.p,
        link_track=links[0],
        link_particle=links[1],
        link_weight=links[2],
    )


def start_of(particles: Particles, flights: Flights) -> State:
    """Return the states of the flights' particles at their production vertices."""
    return State(
        *(
            getattr(particles, name)[flights.particle]
            for name in ("x", "y", "z", "px", "py", "pz", "charge")
        )
    )


def cross_layers(
    start: State, path: Values, tracker: TrackerConfig, b_field_tesla: float
) -> _Crossings:
    """Return how many layers each particle crosses in ``path`` mm, and its inmost hit's radius."""
    column = start.column()
    radii = np.array([layer.radius_mm for layer in tracker.barrel_layers])
    half_lengths = np.array([layer.half_length_mm for layer in tracker.barrel_layers])
    to_barrel = helix.path_to_cylinder(column, radii, b_field_tesla)
    z = (
        start.z[:, None]
        + np.where(np.isfinite(to_barrel), to_barrel, 0.0) * (start.pz / start.p)[:, None]
    )
    on_barrel = (to_barrel > 0) & (to_barrel < path[:, None]) & (np.abs(z) < half_lengths)
    radius = np.where(on_barrel, radii, np.inf)
    if tracker.disks:
        to_disk = helix.path_to_plane(
            column, np.copysign(np.array([disk.z_mm for disk in tracker.disks]), start.pz[:, None])
        )
        at_disk = helix.advance(column, np.where(np.isfinite(to_disk), to_disk, 0.0), b_field_tesla)
        r = np.hypot(at_disk.x, at_disk.y)
        inner, outer = (
            np.array([getattr(disk, name) for disk in tracker.disks])
            for name in ("inner_radius_mm", "outer_radius_mm")
        )
        on_disk = (to_disk > 0) & (to_disk < path[:, None]) & (r > inner) & (r < outer)
        radius = np.concatenate([radius, np.where(on_disk, r, np.inf)], axis=1)
    hits = np.isfinite(radius)
    return _Crossings(hits.sum(axis=1), radius.min(axis=1))


def efficiency_of(pt: Values, eta: Values, tracker: TrackerConfig) -> Values:
    """Return the efficiency of the first region that holds each particle, 0 outside all."""
    regions = tracker.efficiency
    inside = [(np.abs(eta) <= region.abs_eta_max) & (pt >= region.pt_min_gev) for region in regions]
    return np.select(inside, [region.efficiency for region in regions], 0.0)


def resolution_of(pt: Values, eta: Values, tracker: TrackerConfig) -> Values:
    """Return sigma(pT)/pT for full-length tracks; beyond the last region its numbers go on."""
    regions = tracker.momentum_resolution
    sigma = [np.hypot(region.curvature_per_gev * pt, region.constant) for region in regions]
    return np.select([np.abs(eta) <= region.abs_eta_max for region in regions], sigma, sigma[-1])


def ionisation(beta_gamma: Values) -> Values:
    """Return the mean energy loss in silicon, GeV/mm, of singly charged heavy particles."""
    squared = np.maximum(beta_gamma, 0.1) ** 2
    beta_squared = squared / (1 + squared)
    log10 = 0.5 * np.log10(squared)
    density = np.where(
        log10 > _X0, 2 * np.log(10) * log10 - _C + _A * np.maximum(_X1 - log10, 0.0) ** _K, 0.0
    )
    logarithm = np.log(2 * ELECTRON_MASS * squared / _EXCITATION)
    return np.asarray(_BETHE_SCALE / beta_squared * (logarithm - beta_squared - 0.5 * density))


def _lever_arm(start: State, path: Values, tracker: TrackerConfig, b_field_tesla: float) -> Values:
    """Return the share of the tracker's depth, centre to calorimeter, that a particle flew."""
    end = helix.advance(start, path, b_field_tesla)
    outer = np.maximum(
        np.hypot(end.x, end.y) / tracker.radius_mm, np.abs(end.z) / tracker.half_length_mm
    )
    # along z the start does not count: the length of the luminous region costs no layers
    return np.clip(outer - np.hypot(start.x, start.y) / tracker.radius_mm, LEVER_MIN, 1.0)


@dataclass(frozen=True)
class _Fitted:
    """Smeared track parameters; ``state`` lies at the closest approach to the z axis."""

    state: State
    d0: Values
    phi0: Values
    z0: Values


def _smear(
    start: State,
    momentum_share: Values,
    resolution: Values,
    tracker: TrackerConfig,
    b_field_tesla: float,
    rng: np.random.Generator,
) -> _Fitted:
    """Smear curvature, dip angle, azimuth and both impact parameters at the closest approach."""
    d0, phi0, z0 = helix.perigee(start, b_field_tesla)
    n = len(d0)
    curvature = start.charge / (start.pt * momentum_share) * (1 + resolution * rng.normal(size=n))
    pt = np.minimum(1 / np.maximum(np.abs(curvature), 1e-9), 1e6)
    sin_theta = start.pt / start.p
    impact = np.hypot(
        tracker.impact_resolution_mm, tracker.impact_scattering_mm_gev / (start.p * sin_theta**1.5)
    )
    theta = np.arctan2(start.pt, start.pz) + tracker.angle_resolution_rad * rng.normal(size=n)
    phi0 = (
        np.mod(phi0 + tracker.angle_resolution_rad * rng.normal(size=n) + np.pi, 2 * np.pi) - np.pi
    )
    d0, z0 = d0 + impact * rng.normal(size=n), z0 + impact * rng.normal(size=n)
    state = State(
        x=-d0 * np.sin(phi0),
        y=d0 * np.cos(phi0),
        z=z0,
        px=pt * np.cos(phi0),
        py=pt * np.sin(phi0),
        pz=pt / np.tan(theta),
        charge=np.sign(curvature),
    )
    return _Fitted(state, d0, phi0, z0)


def _extrapolate(state: State, tracker: TrackerConfig, b_field_tesla: float) -> State:
    """Return the state on the calorimeter's face.

    Helices that circle on are followed for one turn at most beyond reach.
    """
    path = helix.path_to_surface(state, tracker.radius_mm, tracker.half_length_mm, b_field_tesla)
    turn = 2 * np.pi / np.maximum(np.abs(state.turning(b_field_tesla)), 1e-12)
    return helix.advance(state, np.where(np.isfinite(path), path, turn), b_field_tesla)


def _share_hits(
    event: NDArray[np.integer],
    eta: Values,
    particle: NDArray[np.integer],
    n_hits: NDArray[np.integer],
    probability: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Values]:
    """Return (track, particle, weight) of all links.

    Some tracks took one hit from their neighbour in pseudorapidity.
    """
    order = np.lexsort((eta, event))
    after, before = np.roll(order, -1), np.roll(order, 1)
    last = event[after] != event[order]
    last[-1:] = True
    neighbour = np.empty(len(order), np.int64)
    neighbour[order] = np.where(last, before, after)
    shares = (
        (rng.random(len(event)) < probability)
        & (event[neighbour] == event)
        & (neighbour != np.arange(len(event)))
    )
    foreign = np.flatnonzero(shares)
    track = np.concatenate([np.arange(len(event)), foreign])
    linked = np.concatenate([particle, particle[neighbour[foreign]]])
    weight = np.concatenate([np.where(shares, 1 - 1 / n_hits, 1.0), 1 / n_hits[foreign]])
    by_track = np.argsort(track, kind="stable")
    return track[by_track], linked[by_track], weight[by_track]
