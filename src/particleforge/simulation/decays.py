"""Decays of long-lived particles in the tracking volume, and of secondary neutral pions.

Interactions make the neutral pions.

Parents (PDG code, four-momentum in GeV) -> path to the decay in mm; two daughters per decaying
parent. The generator leaves species with c tau > 10 mm undecayed; here the light ones among them
decay into their two-body channels, isotropic in the rest frame (branching ratios: PDG Review of
Particle Physics 2024, rescaled to the channels listed, so that three-body kaon decays, < 12 %,
appear as two-body ones). K0L, neutrons and muons live on to the calorimeter. Four-momentum is
conserved to rounding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from particleforge.simulation import species

Values = NDArray[np.float64]

# parent: ((branching ratio, first daughter, second daughter), ...); antiparticles decay into the
# antiparticles
CHANNELS: dict[int, tuple[tuple[float, int, int], ...]] = {
    111: ((0.98823, 22, 22),),
    211: ((0.99988, -13, 14),),
    321: ((0.6356, -13, 14), (0.2067, 211, 111)),
    310: ((0.6920, 211, -211), (0.3069, 111, 111)),
    3122: ((0.641, 2212, -211), (0.359, 2112, 111)),
    3222: ((0.5147, 2212, 111), (0.4843, 2112, 211)),
    3112: ((0.9985, 2112, -211),),
    3322: ((0.9952, 3122, 111),),
    3312: ((0.9989, 3122, -211),),
    3334: ((0.678, 3122, -321), (0.243, 3322, -211), (0.079, 3312, 111)),
}
_SELF_CONJUGATE = (22, 111, 130, 310)


@dataclass(frozen=True)
class Products:
    """Secondaries and the row of the parent of each."""

    parent: NDArray[np.int64]
    pdg: NDArray[np.int64]
    px: Values
    py: Values
    pz: Values
    mass: Values


def decay_path(
    pdg: NDArray[np.integer], p: Values, mass: Values, rng: np.random.Generator
) -> Values:
    """Return the path in mm at which each particle decays.

    Infinite for species without channels.
    """
    decays = np.isin(np.abs(pdg), tuple(CHANNELS))
    path = np.full(len(pdg), np.inf)
    proper = species.decay_length_of(pdg[decays]) * rng.exponential(size=int(decays.sum()))
    path[decays] = proper * p[decays] / mass[decays]
    return path


def decay(
    pdg: NDArray[np.integer],
    px: Values,
    py: Values,
    pz: Values,
    energy: Values,
    rng: np.random.Generator,
) -> Products:
    """Return the two daughters of every particle.

    ``parent`` counts these rows, first daughters come first.
    """
    first, second = _choose_channels(pdg, rng)
    mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))
    mass_1, mass_2 = species.mass_of(first), species.mass_of(second)
    excess = (mass**2 - (mass_1 + mass_2) ** 2) * (mass**2 - (mass_1 - mass_2) ** 2)
    momentum = np.sqrt(np.maximum(excess, 0.0)) / (2 * mass)
    cos_theta, azimuth = rng.uniform(-1, 1, len(pdg)), rng.uniform(0, 2 * np.pi, len(pdg))
    sin_theta = np.sqrt(1 - cos_theta**2)
    rest = momentum * np.stack(
        [sin_theta * np.cos(azimuth), sin_theta * np.sin(azimuth), cos_theta]
    )
    flight = np.stack([px, py, pz])
    daughters = [
        _boost(sign * rest, np.hypot(momentum, m), flight, energy, mass)
        for sign, m in ((1, mass_1), (-1, mass_2))
    ]
    rows = np.arange(len(pdg))
    x, y, z = np.concatenate(daughters, axis=1)
    return Products(
        np.tile(rows, 2), np.concatenate([first, second]), x, y, z, np.concatenate([mass_1, mass_2])
    )


def _choose_channels(
    pdg: NDArray[np.integer], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw one channel per particle."""
    daughters = np.zeros((2, len(pdg)), np.int64)
    draw = rng.random(len(pdg))
    for parent, channels in CHANNELS.items():  # a handful of species, all their particles at once
        rows = np.flatnonzero(np.abs(pdg) == parent)
        shares = np.cumsum([channel[0] for channel in channels])
        chosen = np.searchsorted(shares / shares[-1], draw[rows], side="right")
        daughters[:, rows] = np.array([channel[1:] for channel in channels]).T[:, chosen]
    conjugate = (pdg < 0) & ~np.isin(daughters, _SELF_CONJUGATE)
    daughters = np.where(conjugate, -daughters, daughters)
    return daughters[0], daughters[1]


def _boost(
    momentum: Values, energy: Values, flight: Values, flight_energy: Values, mass: Values
) -> Values:
    """Boost [3, n] momenta from the rest frame of a particle that has momentum ``flight``."""
    along = np.sum(momentum * flight, axis=0)
    boosted: Values = momentum + flight * (along / (mass * (flight_energy + mass)) + energy / mass)
    return boosted
