"""How far the weights of the model's candidates can be believed.

Inputs -> outputs: an ``EventBatch`` -> entries in the reliability histograms; these -> figures.

The weight of a candidate claims to be the probability that its element hosts a particle (of a track
times a factor near 1 for the energy that it hides). Of candidates with like weights, as many as
that should stand for an element with a target: a reliability diagram (DeGroot and Fienberg, The
Statistician 32 (1983) 12). The expected calibration error is the mean distance from it over all
candidates (Naeini, Cooper and Hauskrecht, AAAI 2015, eq. 3). Candidates below
``reconstruction.presence_min`` are not there to be counted.
"""

from typing import Any

import awkward as ak
import numpy as np

from particleforge.tables.schema import NONE_CLASS
from particleforge.validation.events import EventBatch, flat
from particleforge.validation.histograms import Hists, inside_of
from particleforge.validation.quantiles import Sums, proportion

_HOSTS = np.array(["no", "yes"])


def fill_scores(hists: Hists, batch: EventBatch) -> None:
    """Count a batch's candidates by weight, and those whose element hosts a particle."""
    n_elements = ak.num(batch.events.targets)
    candidates = batch.candidates
    of_element = (candidates.element >= 0) & (candidates.element < n_elements)
    candidates = candidates[of_element]
    hosts = batch.events.targets.class_id[candidates.element] != NONE_CLASS
    weight = flat(candidates.weight).astype(np.float64)
    inside = inside_of(hists["reliability"].axes["weight_of_candidate"], weight)
    of_events = batch.weights_of(candidates)
    where = {"process": batch.sample, "weight_of_candidate": inside}
    hists["reliability"].fill(**where, hosts=_HOSTS[flat(hosts).astype(int)], weight=of_events)
    hists["reliability_weight"].fill(**where, weight=of_events * weight)


def reliability(counts: Sums, claimed: Sums, edges: np.ndarray) -> dict[str, Any]:
    """Return ``{"bins", "expected_calibration_error"}``, the latter null without candidates.

    ``counts``: [bins, 2, 2] of candidates whose element hosts none, or one; ``claimed``: [bins, 2]
    of their weights. Bins are ``{"low", "high", "mean_weight", "hosts"}``, the last a proportion.
    """
    total = counts.sum(axis=1)
    bins, missed = [], 0.0
    for i, (found, everyone) in enumerate(zip(counts[:, 1], total, strict=True)):
        hosts = proportion(found, everyone)
        mean = float(claimed[i, 0] / everyone[0]) if hosts["value"] is not None else None
        if mean is not None:
            missed += everyone[0] * abs(mean - hosts["value"])
        bins.append(
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "mean_weight": mean,
                "hosts": hosts,
            }
        )
    n = float(total[:, 0].sum())
    return {"bins": bins, "expected_calibration_error": missed / n if n > 0 else None}
