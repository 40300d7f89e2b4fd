"""Interactions with the tracker's material: conversions, bremsstrahlung, nuclear interactions.

Particles crossing the tracking volume (GeV, mm) -> where each interacts, and the secondaries. The
amount of material comes from the configuration as radiation and interaction lengths at normal
incidence and grows as 1/sin(theta); all of it lies in the barrel layers, in equal parts, so that
particles starting further out see less.

Sources: PDG Review, "Passage of particles through matter": conversion probability 1 - exp(-7/9 t)
with t in radiation lengths, energy sharing 1 - 4/3 x (1 - x); Bethe and Heitler (1934): energy
fraction z left after t, -ln z ~ Gamma(t / ln 2, 1). The nuclear interaction is a simplified string
of pions: the leading hadron keeps its species, pions of all charges share what is left after 5-30 %
of the kinetic energy went into breaking the nucleus up, with limited transverse momentum.
Invariants: a conversion conserves energy exactly and momentum up to the recoil of the nucleus
(order m^2/E); secondaries of a nuclear interaction never carry more energy than their parent.
"""

import numpy as np
from numpy.typing import NDArray

from particleforge.config.geometry import TrackerConfig
from particleforge.edm4hep.constants import ELECTRON_MASS, PION_MASS
from particleforge.simulation import species
from particleforge.simulation.decays import Products
from particleforge.simulation.helix import State

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

ENERGY_MIN_GEV = 0.01  # photons below neither convert nor are radiated
KINETIC_MIN_GEV = 0.5  # hadrons below do not break nuclei up
_PIONS = np.array([211, -211, 111])
_PIONS_MAX = 8
_MEAN_PT_GEV = 0.35
# beyond |eta| = 2 layers end one by one, which makes up for the longer way through each
_SIN_THETA_MIN = 0.26


def depth(state: State, tracker: TrackerConfig) -> Values:
    """Return how far out a particle is, from 0 at the origin to 1 at the calorimeter's face."""
    return np.maximum(
        np.hypot(state.x, state.y) / tracker.radius_mm, np.abs(state.z) / tracker.half_length_mm
    )


def crossing_share(state: State, tracker: TrackerConfig, rng: np.random.Generator) -> Values:
    """Return where in the material each particle would interact, as a share of its path.

    The path leads to the face; what lies behind it is infinite.
    """
    layers = np.array([layer.radius_mm for layer in tracker.barrel_layers]) / tracker.radius_mm
    start = depth(state, tracker)
    share = (rng.choice(layers, len(start)) - start) / np.maximum(1 - start, 1e-9)
    return np.where(share > 0, share, np.inf)


def material(state: State, thickness: float) -> Values:
    """Return the material on a particle's way, in the unit of ``thickness`` at normal incidence."""
    return thickness / np.maximum(state.pt / state.p, _SIN_THETA_MIN)


def interacts(
    pdg: NDArray[np.integer],
    state: State,
    mass: Values,
    tracker: TrackerConfig,
    rng: np.random.Generator,
) -> Mask:
    """Draw which photons convert and which hadrons break up a nucleus on the way to the face."""
    energy = np.hypot(state.p, mass)
    photon = (pdg == 22) & (energy > ENERGY_MIN_GEV)
    hadron = species.is_hadron(pdg) & (energy - mass > KINETIC_MIN_GEV)
    exponent = np.where(photon, 7 / 9 * material(state, tracker.material_radiation_lengths), 0.0)
    exponent = np.where(hadron, material(state, tracker.material_interaction_lengths), exponent)
    return rng.random(len(pdg)) < -np.expm1(-exponent)


def radiated_share(
    pdg: NDArray[np.integer], state: State, tracker: TrackerConfig, rng: np.random.Generator
) -> Values:
    """Return the share of its energy that each electron radiates.

    0 for others, and for less than ENERGY_MIN_GEV.
    """
    electrons = np.flatnonzero(np.abs(pdg) == 11)
    passed = material(state.take(electrons), tracker.material_radiation_lengths)
    share = np.zeros(len(pdg))
    # at least 1 MeV is left, so that what remains of the electron has a direction
    share[electrons] = np.minimum(
        -np.expm1(-rng.gamma(passed / np.log(2))), 1 - 0.001 / np.maximum(state.p[electrons], 0.001)
    )
    return np.where(share * state.p > ENERGY_MIN_GEV, share, 0.0)


def convert(state: State, rng: np.random.Generator) -> Products:
    """Return the electron and the positron of every photon, collinear with it."""
    energy = state.p
    share = _pair_share(len(energy), rng)
    share = np.clip(share, 2 * ELECTRON_MASS / energy, 1 - 2 * ELECTRON_MASS / energy)
    energies = np.concatenate([share * energy, (1 - share) * energy])
    scale = np.sqrt(energies**2 - ELECTRON_MASS**2) / np.tile(energy, 2)
    rows = np.arange(len(energy))
    return Products(
        parent=np.tile(rows, 2),
        pdg=np.repeat([11, -11], len(energy)),
        px=scale * np.tile(state.px, 2),
        py=scale * np.tile(state.py, 2),
        pz=scale * np.tile(state.pz, 2),
        mass=np.full(2 * len(energy), ELECTRON_MASS),
    )


def _pair_share(n: int, rng: np.random.Generator) -> Values:
    """Draw x from 1 - 4/3 x (1 - x) on [0, 1]: 6/7 flat, 1/7 proportional to (2x - 1)^2."""
    flat = rng.random(n) < 6 / 7
    edge = np.cbrt(rng.uniform(-1, 1, n))  # density proportional to the square
    return np.where(flat, rng.random(n), 0.5 * (1 + edge))


def break_up(
    pdg: NDArray[np.integer], state: State, mass: Values, rng: np.random.Generator
) -> Products:
    """Return the leading hadron and the pions of nuclear interactions."""
    kinetic = np.hypot(state.p, mass) - mass
    available = kinetic * (1 - rng.uniform(0.05, 0.3, len(pdg)))
    affordable = np.floor(available / (2 * PION_MASS)).astype(np.int64) - 1
    n_pions = np.clip(np.minimum(1 + rng.poisson(np.log1p(kinetic)), affordable), 0, _PIONS_MAX)
    parent = np.repeat(np.arange(len(pdg)), n_pions + 1)
    leading = np.zeros(len(parent), bool)
    leading[np.cumsum(n_pions + 1) - n_pions - 1] = True
    kind = np.where(leading, pdg[parent], rng.choice(_PIONS, len(parent)))
    own_mass = np.where(leading, mass[parent], species.mass_of(kind))
    weight = rng.gamma(np.where(leading, 3.0, 1.0))
    to_share = available - np.bincount(parent, np.where(leading, 0.0, own_mass), len(pdg))
    own_kinetic = to_share[parent] * weight / np.bincount(parent, weight, len(pdg))[parent]
    momentum = np.sqrt(own_kinetic * (own_kinetic + 2 * own_mass))
    px, py, pz = _around(state.take(parent), momentum, rng)
    return Products(parent, kind, px, py, pz, own_mass)


def _around(
    axis: State, momentum: Values, rng: np.random.Generator
) -> tuple[Values, Values, Values]:
    """Return momenta of this size around the axis, at most 45 degrees off.

    Their transverse mass falls exponentially.
    """
    across = np.minimum(rng.rayleigh(_MEAN_PT_GEV / 1.2533, len(momentum)), momentum / np.sqrt(2))
    along = np.sqrt(momentum**2 - across**2)
    azimuth = rng.uniform(0, 2 * np.pi, len(momentum))
    ux, uy, uz = axis.px / axis.p, axis.py / axis.p, axis.pz / axis.p
    phi = np.arctan2(uy, ux)
    ax, ay = -np.sin(phi), np.cos(phi)  # unit vector across, horizontal
    # and the third of the right-handed frame: u x a
    bx, by, bz = -uz * ay, uz * ax, np.hypot(ux, uy)
    first, second = across * np.cos(azimuth), across * np.sin(azimuth)
    return (
        along * ux + first * ax + second * bx,
        along * uy + first * ay + second * by,
        along * uz + second * bz,
    )
