"""Whether the learnt targets hold what the generator made: jets, spectra, numbers of elements.

Inputs -> outputs: an ``EventBatch`` -> entries in the closure histograms. No candidates are
involved. Three stages of the same events:

* ``generator``: all truth particles but neutrinos, whether or not the detector could see them;
* ``truth``: those of them that are visible;
* ``target``: the targets, after the cuts on objects.

Jets of ``truth`` and ``target`` are matched to those of ``generator`` as in ``jets``. Classes are
the generator's, of a target that of its host: a charged particle that a cluster stands for is a
neutral hadron or a photon there (docs/truth.md).
"""

import awkward as ak
import numpy as np

from particleforge.config.settings import ValidateSettings
from particleforge.validation.events import GENERATOR, TRUTH, EventBatch, flat
from particleforge.validation.histograms import CLOSURE, Hists, fill_response
from particleforge.validation.jets import cluster
from particleforge.validation.matching import match


def fill_closure(hists: Hists, batch: EventBatch, settings: ValidateSettings) -> None:
    """Count jets, particles and elements of a batch."""
    names = np.array(["none", *(c.name for c in settings.particle_classes)])
    generated = cluster(batch.views[GENERATOR], settings.jets)
    central = abs(generated.eta) < settings.jets.abs_eta_max
    for name in (GENERATOR, *CLOSURE):
        view = batch.views[name]
        hists["class_pt"].fill(
            process=batch.sample,
            stage=name,
            true_class=names[flat(view.class_id)],
            pt=flat(view.pt),
            weight=batch.weights_of(view),
        )
        if name == GENERATOR:
            continue
        jets = cluster(view, settings.jets)
        partner, _ = match(generated, jets, settings.jets.match_radius)
        found = central & (partner >= 0)
        response = jets.pt[partner[found]] / generated.pt[found]
        where = {"process": batch.sample, "stage": name, "true_pt": flat(generated.pt[found])}
        weights = batch.weights_of(response)
        fill_response(hists, "closure_jet_response", flat(response), weights, **where)
    targets = batch.views["target"]
    counts = {
        **batch.n_elements,
        "elements with a target": ak.num(targets),
        "visible particles": ak.num(batch.views[TRUTH]),
    }
    for kind, numbers in counts.items():
        hists["elements"].fill(
            process=batch.sample, kind=kind, number=ak.to_numpy(numbers), weight=batch.weights
        )
