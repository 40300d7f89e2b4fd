"""Missing transverse momentum and visible energy of the views.

Inputs -> outputs: an ``EventBatch`` -> entries in the event-level histograms.

Missing transverse momentum is the norm of minus the sum of the transverse momenta of all particles
of a view, the model's times their weights; truth is the sum over visible generator particles, so
that neutrinos count by their recoil and acceptance is the same on both sides. Residuals are
reconstructed - truth in GeV: of the norm, and of the two components (both fill one histogram). The
response of the visible energy is the ratio of the energy sums; events without visible energy have
none.
"""

import awkward as ak
import numpy as np

from particleforge.validation.events import TRUTH, EventBatch
from particleforge.validation.gap import Draws, fill_resampled
from particleforge.validation.histograms import Hists, fill_response, reconstructions


def fill_met(hists: Hists, batch: EventBatch, draws: Draws) -> None:
    """Count missing transverse momentum and visible energy; ``draws`` as in ``gap``."""
    sums = {name: event_sums(view) for name, view in batch.weighted.items()}
    true_x, true_y, true_energy = sums[TRUTH]
    true_met = np.hypot(true_x, true_y)
    weights = batch.weights
    hists["met"].fill(process=batch.sample, view=TRUTH, met=true_met, weight=weights)
    visible = true_energy > 0
    for name in reconstructions(hists):
        x, y, energy = sums[name]
        where = {"process": batch.sample, "reco": name}
        met = np.hypot(x, y)
        hists["met"].fill(process=batch.sample, view=name, met=met, weight=weights)
        fill_response(hists, "met_residual", met - true_met, weights, **where, true_met=true_met)
        fill_response(
            hists,
            "met_component_residual",
            np.concatenate([x - true_x, y - true_y]),
            np.tile(weights, 2),
            **where,
        )
        response = energy[visible] / true_energy[visible]
        fill_response(hists, "visible_energy_response", response, weights[visible], **where)
        events = np.flatnonzero(visible)
        fill_resampled(hists, "visible_energy_response", response, events, draws, **where)


def event_sums(view: ak.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return missing px, missing py and visible energy per event in GeV."""
    return (
        -ak.to_numpy(ak.sum(view.px, axis=1)),
        -ak.to_numpy(ak.sum(view.py, axis=1)),
        ak.to_numpy(ak.sum(view.energy, axis=1)),
    )
