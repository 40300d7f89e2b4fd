"""From directions, which is what Delphes' objects have, to momenta (GeV) and points (mm)."""

import numpy as np

from particleforge.config.geometry import SamplingConfig
from particleforge.edm4hep.raw_events import FloatArray

ETA_MAX = 20.0  # along the beam; Delphes writes 999.9


def momentum_of(pt: FloatArray, eta: FloatArray, phi: FloatArray) -> dict[str, FloatArray]:
    """Return px, py, pz in GeV."""
    return {
        "px": pt * np.cos(phi),
        "py": pt * np.sin(phi),
        "pz": pt * np.sinh(np.clip(eta, -ETA_MAX, ETA_MAX)),
    }


def on_face(
    eta: FloatArray, phi: FloatArray, ecal: SamplingConfig
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return where lines from the origin meet the inner face of barrel or endcap, in mm."""
    eta = np.clip(eta, -ETA_MAX, ETA_MAX)
    sin_theta, cos_theta = 1 / np.cosh(eta), np.tanh(eta)
    barrel = ecal.barrel_inner_radius_mm / sin_theta
    endcap = ecal.endcap_z_min_mm / np.maximum(np.abs(cos_theta), 1e-9)
    distance = np.minimum(barrel, endcap)
    return (
        distance * sin_theta * np.cos(phi),
        distance * sin_theta * np.sin(phi),
        distance * cos_theta,
    )
