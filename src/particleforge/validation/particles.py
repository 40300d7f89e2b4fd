"""Single particles: efficiency, fakes, confusion, charge and response per class.

Inputs -> outputs: an ``EventBatch`` -> entries in the particle histograms.

Every reconstruction is matched to the same visible generator particles, one-to-one by direction at
the interaction point, nearest pairs first, within ``validation.match_radius`` (``matching``). Of
particles that fly in one direction, as the two electrons of a photon do, pT tells which is which.
Classes are those of the generator by PDG code (``particles.class_id``) and of the candidate.
Definitions:

* efficiency of class c: truth particles of class c matched to a candidate of class c, over all
  truth particles of class c;
* found fraction: likewise, candidate of any class;
* fake rate of class c: candidates of class c that match no truth particle, over all candidates of
  class c;
* mislabelled fraction: candidates of class c matched to truth of another class, over all candidates
  of class c;
* confusion: rows are truth classes ("none": fakes), columns are candidates ("none": missed);
* response: candidate / truth of pT and energy, for pairs of the same class;
* angle: between the directions of candidate and truth, for pairs of the same class;
* wrong charge: sign differs, for pairs of the same charged class;
* splitting and merging: ``sharing``.

The model's candidates are compared with targets, too: each with that of its own element, without
any matching, if the classes agree. Where the response to truth or to targets is hardly ever above 1
(or below), energy is lost (or added) by rule, not by chance: ``metrics`` names it as one-sided.

Limits: in a dense jet a missed particle may match an unrelated fake nearby, which raises efficiency
and lowers the fake rate of all reconstructions alike. Particles that share a cluster cannot all be
found from the elements: the targets show it.
"""

import awkward as ak
import numpy as np

from particleforge.config.settings import ValidateSettings
from particleforge.validation.events import TRUTH, EventBatch, flat
from particleforge.validation.histograms import (
    OUTCOMES,
    SHARED,
    Hists,
    fill_response,
    reconstructions,
)
from particleforge.validation.matching import match, starts
from particleforge.validation.sharing import shared

_OUTCOMES = np.array(OUTCOMES)
_SHARED = np.array(SHARED)
_READ = ("pt", "eta", "phi", "energy", "charge", "class_id")
LOG_PT_SCALE = 0.01  # a factor e of pT is as far as the typical error of a direction


def fill_particles(hists: Hists, batch: EventBatch, settings: ValidateSettings) -> None:
    """Match and count the particles of a batch."""
    names = np.array(["none", *(c.name for c in settings.particle_classes)])
    truth = batch.views[TRUTH]
    true = {key: flat(truth[key]) for key in _READ}
    true["weight"] = batch.weights_of(truth)
    first_truth = starts(truth)
    radius = settings.validation.match_radius
    for reco in reconstructions(hists):
        view = batch.views[reco]
        found = {key: flat(view[key]) for key in _READ}
        found["weight"] = batch.weights_of(view)
        partner, reverse = match(truth, view, radius, LOG_PT_SCALE)
        to_found, to_true = flat(partner + starts(view)), flat(reverse + first_truth)
        has_found, has_true = flat(partner) >= 0, flat(reverse) >= 0
        class_of_match = np.where(has_found, _take(found["class_id"], to_found), 0)
        true_of_match = np.where(has_true, _take(true["class_id"], to_true), 0)
        where = {"process": batch.sample, "reco": reco}
        split = shared(truth, view, partner, reverse, radius)
        merged = shared(view, truth, reverse, partner, radius)
        for class_axis, own, other, matched, key, sharing, is_shared in (
            ("true_class", true, class_of_match, has_found, "truth", "splitting", split),
            ("found_class", found, true_of_match, has_true, "candidates", "merging", merged),
        ):
            outcome = _OUTCOMES[np.where(matched, 1 + (own["class_id"] == other), 0)]
            labels = {**where, class_axis: names[own["class_id"]], "outcome": outcome}
            labels["weight"] = own["weight"]
            hists[f"{key}_by_pt"].fill(**labels, pt=own["pt"])
            hists[f"{key}_by_eta"].fill(**labels, eta=own["eta"])
            labels.pop("outcome")
            hists[sharing].fill(**labels, shared=_SHARED[is_shared.astype(int)])
        confusion = hists["confusion"]
        confusion.fill(
            **where,
            true_class=names[true["class_id"]],
            found_class=names[class_of_match],
            weight=true["weight"],
        )
        confusion.fill(
            **where,
            true_class=names[0],
            found_class=names[found["class_id"][~has_true]],
            weight=found["weight"][~has_true],
        )
        same = has_found & (class_of_match == true["class_id"])
        _fill_pairs(
            hists,
            {k: v[same] for k, v in true.items()},
            {k: v[to_found[same]] for k, v in found.items()},
            names,
            where,
        )


def _fill_pairs(
    hists: Hists,
    true: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    names: np.ndarray,
    where: dict[str, str],
) -> None:
    """Fill response, angle and charge of pairs of the same class."""
    labels = {**where, "true_class": names[true["class_id"]]}
    for kind in ("pt", "energy"):
        ratio = found[kind] / true[kind]
        name = f"particle_{kind}_response"
        fill_response(hists, name, ratio, true["weight"], **labels, pt=true["pt"])
    angle = angle_mrad(true, found)
    fill_response(hists, "particle_angle", angle, true["weight"], **labels, pt=true["pt"])
    charged = true["charge"] != 0
    right = np.sign(true["charge"]) == np.sign(found["charge"])
    hists["charge"].fill(
        **where,
        true_class=labels["true_class"][charged],
        charge=np.array(["wrong", "right"])[right[charged].astype(int)],
        weight=true["weight"][charged],
    )


def fill_against_targets(hists: Hists, batch: EventBatch, settings: ValidateSettings) -> None:
    """Fill the response of the model's candidates against the targets of their elements."""
    names = np.array(["none", *(c.name for c in settings.particle_classes)])
    targets, found = batch.events.targets, batch.views["mlpf"]
    found = found[(found.element >= 0) & (found.element < ak.num(targets))]
    target = targets[found.element]
    same = target.class_id == found.class_id
    found, target = found[same], target[same]
    true_pt = np.hypot(ak.values_astype(target.px, np.float64), target.py)
    for kind, true in (("pt", true_pt), ("energy", target.energy)):
        fill_response(
            hists,
            f"target_{kind}_response",
            flat(found[kind]) / flat(true),
            batch.weights_of(found),
            process=batch.sample,
            true_class=names[flat(found.class_id)],
        )


def angle_mrad(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> np.ndarray:
    """Return the angles between directions given as eta and phi, in mrad.

    From the chord, which is exact where angles are small and their cosine is 1.
    """
    first, second = (
        np.stack(
            [np.cos(v["phi"]) / np.cosh(v["eta"]), np.sin(v["phi"]) / np.cosh(v["eta"])]
            + [np.tanh(v["eta"])]
        )
        for v in (one, other)
    )
    chord = np.linalg.norm(first - second, axis=0)
    found: np.ndarray = 2e3 * np.arcsin(np.minimum(chord / 2, 1))
    return found


def _take(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return ``values[indices]``, where an index of an unmatched particle may be any number."""
    return (
        values[np.clip(indices, 0, len(values) - 1)]
        if len(values)
        else np.zeros(len(indices), values.dtype)
    )
