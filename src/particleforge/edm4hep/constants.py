"""Constants of nature in the units of EDM4hep (GeV, mm, ns, T, e), and codes of particles (PDG)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPEED_OF_LIGHT = 299.792458  # mm / ns
GEV_PER_TESLA_MM = 0.299792458e-3  # pT = this * B / |omega| for unit charge, omega in 1/mm
ELECTRON_MASS = 0.00051099895
PION_MASS = 0.13957039  # of charged ones

ELECTRON, MUON, PHOTON = 11, 13, 22
CHARGED_HADRON, NEUTRAL_HADRON = 211, 130  # pi+ and K0L stand for all
NEUTRINOS = (12, 14, 16, 18)  # the last of a fourth generation, which files may hold


def is_neutrino(pdg: ArrayLike) -> NDArray[np.bool_]:
    """Tell which codes are neutrinos or antineutrinos."""
    return np.isin(np.abs(pdg), NEUTRINOS)
