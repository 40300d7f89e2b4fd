"""Particle classes by PDG code and by the element that hosts the particle.

Inputs -> outputs: PDG codes, charges, |eta| -> class numbers (0 none, then the order of
``particle_classes``).

A class with ``truth_pdgs`` takes those; one without takes all others of its charge; beyond its
``abs_eta_min`` a forward class comes before a central one. Neutrinos have class 0. A track cannot
be told neutral nor a cluster charged, so a particle's class follows its host: on a track whatever
is neutral counts as a charged hadron, on a cluster an electron counts as a photon and any other
charged particle as a neutral hadron.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from particleforge.config.detector import ParticleClass
from particleforge.edm4hep.constants import ELECTRON, PHOTON, is_neutrino
from particleforge.edm4hep.raw_events import Array, BoolArray
from particleforge.tables import schema

_NO_PDG = 0


def class_of(
    classes: Sequence[ParticleClass], pdg: Array, charged: BoolArray, abs_eta: Array
) -> NDArray[np.int8]:
    """Return the class numbers of particles, all arguments ``[n]``."""
    found = np.zeros(len(pdg), np.int8)
    for number in sorted(
        range(len(classes)), key=lambda i: (classes[i].abs_eta_min, bool(classes[i].truth_pdgs))
    ):
        one = classes[number]
        takes = (charged == one.charged) & (abs_eta >= one.abs_eta_min)
        if one.truth_pdgs:
            takes &= np.isin(np.abs(pdg), one.truth_pdgs)
        found[takes] = number + 1
    found[is_neutrino(pdg)] = schema.NONE_CLASS
    return found


def class_by_host(
    classes: Sequence[ParticleClass],
    pdg: Array,
    charged: BoolArray,
    abs_eta: Array,
    on_track: BoolArray,
) -> NDArray[np.int8]:
    """Return the class numbers of particles that own a track (``on_track``) or a cluster.

    All arguments are ``[n]``.
    """
    kind = np.abs(pdg)
    as_track = np.where(charged, kind, _NO_PDG)
    as_cluster = np.where(kind == ELECTRON, PHOTON, np.where(charged, _NO_PDG, kind))
    return class_of(classes, np.where(on_track, as_track, as_cluster), on_track, abs_eta)


def absolute_eta(px: Array, py: Array, pz: Array) -> Array:
    """Return |eta|, finite along the beam too."""
    return np.arcsinh(np.abs(pz) / np.maximum(np.hypot(px, py), 1e-9))
