"""Captions of the validation's plots: how to read each, and what limits it."""

from collections.abc import Sequence

from particleforge.config.detector import ParticleClassConfig

_EVENTS = {
    "jet_response": (
        """Jet response: pT of the reconstructed jet over that of the matched truth jet. A narrow
        peak at one is best. Tails come from showers that share a cluster or leave no element, and
        stay in the targets."""
    ),
    "jet_resolution": (
        """Median and resolution (IQR/median) of the jet response against truth pT. The bottom panel
        divides by the baseline: below one is better than the baseline. Unmatched jets count in the
        efficiency, not here."""
    ),
    "jet_resolution_by_sample": (
        """Resolution of the jet response per process; lower is better. Differences between
        processes mix jet momenta, flavours and how crowded the events are."""
    ),
    "jet_efficiency": (
        """Share of truth jets with a matched jet (left, higher is better) and of reconstructed jets
        without a truth jet (right, lower is better). A jet displaced by more than the match radius
        counts against both."""
    ),
    "jet_pt": (
        "Spectrum of jets in density per GeV, and its ratio to truth. Jets beyond the last edge are"
        " not shown."
    ),
    "dijet_mass": (
        """Mass of two jets in events that hold two bosons decaying to two jets each: every view is
        clustered to four jets and paired by itself. The width of truth comes from the boson, the
        fragmentation and wrong pairs; what a view has beyond it is its own."""
    ),
    "met": (
        """Missing transverse momentum (left) and its residual against truth (right). Truth sums
        visible generator particles, so the targets show what the elements lose, not the
        neutrinos."""
    ),
    "met_resolution": (
        """Bias (median) and width (IQR) of the missing-momentum residual against its true value;
        closer to zero is better. At small true values the bias is positive by construction, because
        a norm cannot be negative."""
    ),
    "visible_energy": (
        """Total reconstructed over total visible truth energy per event. The median tells the
        overall energy scale, the width how well showers are measured and shared."""
    ),
    "confusion": (
        """Truth class (rows) against class of the matched candidate (columns), each row normalised
        to one. Column none: missed; row none: what candidates without a truth particle are called.
        Matching is by direction alone."""
    ),
    "splitting_merging": (
        """Share of truth particles whose energy two or more candidates share (left), and of
        candidates that have the energy of two or more truth particles (right), per class; lower is
        better. Targets show what elements cannot separate."""
    ),
    "above_one": (
        """Share of the energy response above 1, per class: to truth, of matched pairs (left), and
        of the model's candidates to the targets of their elements (right). Near one half, gains and
        losses balance. A share near 0 or 1 says that energy is lost, or added, by rule."""
    ),
    "reliability": (
        """Share of the model's candidates whose element hosts a particle, against their weight, and
        how many candidates there are. On the diagonal weights are the probabilities that they claim
        to be, so that sums of candidates times weights are right on average."""
    ),
    "closure_jets": (
        """What the model learns from, without any model: pT of jets of visible particles, and of
        targets, over jets of all generated particles but neutrinos. Both should peak narrowly at
        one; what lies below is energy that left no element."""
    ),
    "class_spectra": (
        """Spectra per class of generated particles, of the visible ones, and of targets, and their
        ratios to generated. A target has the class of its element: a charged particle without track
        counts as neutral, lost to one class, gained by another."""
    ),
    "elements_per_event": (
        """Tracks, clusters (or hits), elements with a target and visible particles per event.
        Visible particles beyond the elements with a target are merged or dropped; elements beyond
        those with a target are to become nothing."""
    ),
}
_EFFICIENCY = """: share of truth particles matched to a candidate of the same class (top) and share
    of candidates that match no truth particle (bottom), against pT and pseudorapidity. Where the
    targets are below one, the elements themselves lack the particle or show it as another
    class."""
_RESPONSE = """: median and resolution (IQR/median) of candidate over truth, for transverse momentum
    and energy, for pairs of the same class. Particles merged into one element move the targets
    above one."""
# of ideal particle flow, where there is one
_IDEAL = {
    "jet_response": "Ideal PF assigns everything rightly and takes energies as measured.",
    "efficiency": "Ideal PF lacks what left no energy.",
    "response": "Ideal PF shows how well the particles themselves are measured.",
}


def captions(
    particle_classes: Sequence[ParticleClassConfig], *, ideal: bool = True, dijets: bool = True
) -> dict[str, str]:
    """Return the caption of every plot by file name, in the order in which to read them.

    Without ``ideal`` they do not speak of ideal particle flow, without ``dijets`` there is no plot
    of dijet masses.
    """
    found = {name: text for name, text in _EVENTS.items() if dijets or name != "dijet_mass"}
    for c in particle_classes:
        label = c.label[:1].upper() + c.label[1:]
        found |= {
            f"efficiency_{c.name}": label + _EFFICIENCY,
            f"response_{c.name}": label + _RESPONSE,
        }
    if ideal:
        for name in found:
            for kind, sentence in _IDEAL.items():
                if name.startswith(kind):
                    found[name] += f" {sentence}"
    return {name: " ".join(caption.split()) for name, caption in found.items()}
