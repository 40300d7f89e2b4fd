"""Properties of particle species, looked up for whole arrays of PDG codes.

PDG codes -> charge in e, mass in GeV, mean proper decay length in mm. Source: the particle data
table that ships with Pythia8 (Bierlich et al. 2022, "A comprehensive guide to the physics and usage
of PYTHIA 8.3"), so that generator and detector simulation agree. Each distinct code is looked up
once per process.
"""

from functools import cache
from typing import Any

import numpy as np
import pythia8mc
from numpy.typing import NDArray

Codes = NDArray[np.integer]
Values = NDArray[np.float64]


@cache
def _table() -> Any:
    # owns the table; without init() only the data are loaded
    generator = pythia8mc.Pythia("", False)
    return generator.particleData, generator


@cache
def _properties(pdg: int) -> tuple[float, float, float]:
    data = _table()[0]
    return float(data.charge(pdg)), float(data.m0(pdg)), float(data.tau0(pdg))


def _look_up(pdg: Codes, column: int) -> Values:
    distinct, where = np.unique(pdg, return_inverse=True)
    return np.array([_properties(int(code))[column] for code in distinct], np.float64)[where]


def charge_of(pdg: Codes) -> Values:
    """Return the charges in e."""
    return _look_up(pdg, 0)


def mass_of(pdg: Codes) -> Values:
    """Return the nominal masses in GeV."""
    return _look_up(pdg, 1)


def decay_length_of(pdg: Codes) -> Values:
    """Return the mean proper decay lengths c tau in mm.

    0 for species whose decay the table does not describe.
    """
    return _look_up(pdg, 2)


def is_baryon(pdg: Codes) -> NDArray[np.bool_]:
    """Tell which codes are baryons or antibaryons; diquarks, whose tens digit is 0, are not."""
    code = np.abs(pdg)
    baryon: NDArray[np.bool_] = (code > 1000) & (code < 10000) & (code // 10 % 10 != 0)
    return baryon


def is_hadron(pdg: Codes) -> NDArray[np.bool_]:
    """Tell which codes are hadrons, ground states and excitations.

    Diquarks, pomerons and diffractive systems are not.
    """
    code = np.abs(pdg)
    hadron: NDArray[np.bool_] = (
        (code > 100) & (code % 10000 // 10 % 10 != 0) & (code != 990) & (code < 9_000_000)
    )
    return hadron
