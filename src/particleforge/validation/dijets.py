"""Masses of two bosons of one kind that decay to two jets each, such as W+W-.

Inputs -> outputs: an ``EventBatch`` of a sample that ``plots.dijet_mass`` names -> entries in the
histogram of masses, of truth and of every reconstruction.

All particles of a view, the model's times their weights, become exactly four jets by the Durham
algorithm (Catani et al., PLB 269 (1991) 432; exclusive ``ee_kt`` of FastJet). Of the three ways to
pair them that one is taken whose two masses have the least sum of squared distances from
``mass_gev``. Every view is clustered and paired by itself, as an analysis without truth does it.
An event counts, twice in each view, if both true masses lie within ``window_gev`` of ``mass_gev``:
other decays and hard radiation mostly fall out, in all views alike. A view with fewer than four
particles has no mass. There is no correction; the width of truth is that of boson, fragmentation
and pairing.
"""

import warnings

import awkward as ak
import fastjet
import numpy as np
import numpy.typing as npt

from particleforge.config.detector import DijetMassConfig
from particleforge.validation.events import TRUTH, EventBatch
from particleforge.validation.histograms import Hists, fill_response, reconstructions

N_JETS = 4
_PAIRINGS = np.array([[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 3], [1, 2]]])


def dijet_masses(particles: ak.Array, mass_gev: float) -> npt.NDArray[np.float64]:
    """Return the two masses of every event in GeV, [n_events, 2]; NaN of too few particles."""
    masses = np.full((len(particles), 2), np.nan)
    enough = ak.to_numpy(ak.num(particles) >= N_JETS)
    if not enough.any():
        return masses
    chosen = particles[enough]
    momenta = ak.zip(
        {"px": chosen.px, "py": chosen.py, "pz": chosen.pz, "E": chosen.energy},
        with_name="Momentum4D",
    )
    with warnings.catch_warnings():  # of algorithms without exclusive jets, which this one has
        warnings.filterwarnings("ignore", "dcut and exclusive jets", UserWarning)
        jets = fastjet.ClusterSequence(
            momenta, fastjet.JetDefinition0Param(fastjet.ee_kt_algorithm)
        ).exclusive_jets(n_jets=N_JETS)
    p4 = np.stack([ak.to_numpy(ak.to_regular(jets[name])) for name in ("px", "py", "pz", "E")], -1)
    dijets = p4[:, _PAIRINGS].sum(axis=3)  # [events, pairings, 2, 4]
    squared = dijets[..., 3] ** 2 - (dijets[..., :3] ** 2).sum(axis=-1)
    found = np.sqrt(np.maximum(squared, 0))
    best = ((found - mass_gev) ** 2).sum(axis=-1).argmin(axis=1)
    masses[enough] = found[np.arange(len(found)), best]
    return masses


def fill_dijets(hists: Hists, batch: EventBatch, settings: DijetMassConfig | None) -> None:
    """Count the masses of a batch, if it is of a sample that is named.

    The errors of figures take the two masses of an event as independent, as they do jets.
    """
    if settings is None or batch.sample not in settings.samples:
        return
    masses = {
        view: dijet_masses(batch.weighted[view], settings.mass_gev)
        for view in (TRUTH, *reconstructions(hists))
    }
    inside = (np.abs(masses[TRUTH] - settings.mass_gev) <= settings.window_gev).all(axis=1)
    for view, found in masses.items():
        counted = inside & np.isfinite(found).all(axis=1)
        fill_response(
            hists,
            "dijet_mass",
            found[counted].ravel(),
            np.repeat(batch.weights[counted], 2),
            process=batch.sample,
            view=view,
        )
