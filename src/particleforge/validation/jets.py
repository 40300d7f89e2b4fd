"""Jets of the views, matched to the truth jets.

Inputs -> outputs: an ``EventBatch`` -> entries in the jet histograms.

Algorithm: FastJet (Cacciari, Salam, Soyez, EPJ C 72 (2012) 1896) through its awkward interface, E
scheme, the algorithm of ``jets`` in the detector's configuration, on every particle of a view, the
model's times their weights; jets above ``pt_min_gev`` are matched one-to-one to truth jets within
``match_radius`` (``matching``). No jets are corrected, of no view. Matching sees all jets; only
then do cuts define what is counted:

* response and efficiency: truth jets with |eta| < ``abs_eta_max``;
* fake jets: reconstructed jets with |eta| < ``abs_eta_max`` that match no truth jet, of any eta,
  above ``pt_min_gev``.

Figures called inclusive count jets above the first edge of ``plots.jet_pt_edges_gev``. That edge
should lie well above ``pt_min_gev`` (a factor of two in the shipped detectors), so that the
threshold does not bias the response.
"""

import awkward as ak
import fastjet
import numpy as np

from particleforge.config.detector import JetConfig
from particleforge.validation.events import TRUTH, EventBatch, flat
from particleforge.validation.gap import Draws, fill_resampled
from particleforge.validation.histograms import Hists, fill_response, reconstructions
from particleforge.validation.matching import match

_MATCHED = np.array(["no", "yes"])


def cluster(particles: ak.Array, settings: JetConfig) -> ak.Array:
    """Return jets (pt, eta, phi, energy) per event above ``pt_min_gev``, of px, py, pz, energy."""
    if len(particles) == 0:
        return ak.zip(dict.fromkeys(("pt", "eta", "phi", "energy"), particles.px))
    jets = _sequence(particles, settings).inclusive_jets(min_pt=settings.pt_min_gev)
    pt = np.hypot(jets.px, jets.py)
    return ak.zip(
        {
            "pt": pt,
            "eta": np.arcsinh(jets.pz / pt),
            "phi": np.arctan2(jets.py, jets.px),
            "energy": jets.E,
        }
    )


def constituents(particles: ak.Array, settings: JetConfig) -> ak.Array:
    """Return for each jet of ``cluster`` the indices of its particles within the event."""
    return _sequence(particles, settings).constituent_index(min_pt=settings.pt_min_gev)


def _sequence(particles: ak.Array, settings: JetConfig) -> fastjet.ClusterSequence:
    momenta = ak.zip(
        {"px": particles.px, "py": particles.py, "pz": particles.pz, "E": particles.energy},
        with_name="Momentum4D",
    )
    return fastjet.ClusterSequence(momenta, _definition(settings))


def _definition(settings: JetConfig) -> fastjet.JetDefinition:
    if settings.algorithm == "anti_kt":
        return fastjet.JetDefinition(fastjet.antikt_algorithm, settings.radius)
    return fastjet.JetDefinition(fastjet.ee_genkt_algorithm, settings.radius, settings.power)


def responses(
    truth: ak.Array, jets: ak.Array, partner: ak.Array, settings: JetConfig
) -> tuple[ak.Array, ak.Array]:
    """Return pT over true pT of the jets that count for the response, and their true pT.

    ``partner`` holds the index in ``jets`` of each truth jet, or -1; lists per event.
    """
    both = (abs(truth.eta) < settings.abs_eta_max) & (partner >= 0)
    true_pt = truth.pt[both]
    return jets.pt[partner[both]] / true_pt, true_pt


def fill_jets(hists: Hists, batch: EventBatch, settings: JetConfig, draws: Draws) -> None:
    """Cluster, match and count the jets of a batch; ``draws`` as in ``gap``."""
    truth = cluster(batch.weighted[TRUTH], settings)
    central = abs(truth.eta) < settings.abs_eta_max
    lowest = hists["jet_response"].axes["true_pt"].edges[0]
    of_central = batch.weights_of(truth.pt[central])
    hists["jet_pt"].fill(
        process=batch.sample, view=TRUTH, pt=flat(truth.pt[central]), weight=of_central
    )
    for name in reconstructions(hists):
        where = {"process": batch.sample, "reco": name}
        jets = cluster(batch.weighted[name], settings)
        partner, reverse = match(truth, jets, settings.match_radius)
        found = partner >= 0
        response, true_pt = responses(truth, jets, partner, settings)
        fill_response(
            hists,
            "jet_response",
            flat(response),
            batch.weights_of(response),
            **where,
            true_pt=flat(true_pt),
        )
        counted = response[true_pt >= lowest]
        events = np.repeat(np.arange(batch.n_events), ak.to_numpy(ak.num(counted)))
        fill_resampled(hists, "jet_response", flat(counted), events, draws, **where)
        hists["jet_truth"].fill(
            **where,
            pt=flat(truth.pt[central]),
            matched=_MATCHED[flat(found[central]).astype(int)],
            weight=of_central,
        )
        inside = abs(jets.eta) < settings.abs_eta_max
        of_inside = batch.weights_of(jets.pt[inside])
        hists["jet_reco"].fill(
            **where,
            pt=flat(jets.pt[inside]),
            matched=_MATCHED[flat(reverse[inside] >= 0).astype(int)],
            weight=of_inside,
        )
        hists["jet_pt"].fill(
            process=batch.sample, view=name, pt=flat(jets.pt[inside]), weight=of_inside
        )
