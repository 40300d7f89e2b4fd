"""The validation's histograms: booking, conversion to JSON.

Every count behind a figure or a number of the validation is held in a ``hist.Hist``, as the sum of
the entries' event weights and of their squares; files are streamed through ``fill`` calls, so
memory does not grow with the number of events. Only ``events`` counts events, whatever they weigh.

Two kinds exist: the ones that plots show, written to ``histograms.json``; and fine ones (names
ending in ``_fine``) from which medians and IQRs are taken (``quantiles``), kept in memory only. The
fine axis is asinh-spaced around the value of a perfect reconstruction, so that its width is at most
2 % of the distance from that value. Those that end in ``_resampled_fine`` hold a count for every
resampling of the events (``gap``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import hist
import numpy as np
import numpy.typing as npt

from particleforge.config.detector import PlotConfig
from particleforge.config.settings import ValidateSettings
from particleforge.validation.events import GENERATOR, RECONSTRUCTIONS, TRUTH

Histogram = Any  # hist.Hist, whose annotations know no category axes
Hists = dict[str, Histogram]
_Axes = tuple[Any, ...]
OUTCOMES = ("none", "other", "same")  # no match; match of another class; match of the same class
CLOSURE = (TRUTH, "target")  # what is compared with all generated particles
ELEMENTS = ("tracks", "clusters", "elements with a target", "visible particles")
SHARED = ("no", "yes")
RESAMPLED = ("jet_response", "visible_energy_response")  # what the gap is closed in
_FINE_BINS = 1201  # odd: one bin is centred on the perfect value
_ANGLES_MRAD = np.concatenate([[0.0], np.geomspace(1e-3, 1e3 * np.pi, _FINE_BINS)])


def fine_edges(centre: float, core: float, reach: float) -> npt.NDArray[np.float64]:
    """Return edges evenly spaced in asinh((x - centre) / core) up to ``reach`` on both sides."""
    end = np.arcsinh(reach / core)
    return centre + core * np.sinh(np.linspace(-end, end, _FINE_BINS + 1))


def count_edges(largest: float) -> npt.NDArray[np.float64]:
    """Return edges for counts: 0, 1, 2 ...

    6, then ten bins per decade, up to ``largest`` at least.
    """
    n_bins = int(np.ceil(10 * np.log10(largest)))
    return np.concatenate([[0.0], np.unique(np.round(10 ** (np.arange(n_bins + 1) / 10)))])


def category(name: str, values: Sequence[str], label: str) -> Any:
    """Return an axis of names; a name that is not listed is refused when filling."""
    return hist.axis.StrCategory(list(values), name=name, label=label, overflow=False)


def reconstructions(hists: Hists) -> tuple[str, ...]:
    """Return the reconstructions that histograms were booked for."""
    return tuple(hists["jet_truth"].axes["reco"])


def book(settings: ValidateSettings, reconstructed: Sequence[str] = RECONSTRUCTIONS) -> Hists:
    """Return all histograms, empty, for the given reconstructions."""
    # hist keeps the name "sample" for itself
    sample = category("process", sorted(settings.samples), "sample")
    classes = category(
        "true_class", ["none", *(c.name for c in settings.particle_classes)], "truth class"
    )
    pt = hist.axis.Variable(
        settings.plots.particle_pt_edges_gev, name="pt", label="particle $p_T$ [GeV]"
    )
    number = hist.axis.Variable(count_edges(1e5), name="number", label="number per event")
    stage = category("stage", (GENERATOR, *CLOSURE), "stage")
    reco = category("reco", reconstructed, "reconstruction")
    view = category("view", (TRUTH, *reconstructed), "truth or reconstruction")
    # 1 and above fall into the last bin
    weight = hist.axis.Regular(20, 0, 1, name="weight_of_candidate", label="weight of candidate")
    axes: dict[str, _Axes] = {
        "sum_of_weights": (sample,),
        "reliability": (sample, weight, category("hosts", ("no", "yes"), "hosts a particle")),
        "reliability_weight": (sample, weight),
        "class_pt": (sample, stage, classes, pt),
        "elements": (sample, category("kind", ELEMENTS, "counted"), number),
        **_axes_of_jets(settings.plots, sample, reco, view),
        **_axes_of_events(settings.plots, sample, reco, view),
        **_axes_of_particles(settings, sample, reco, classes, pt),
        **_axes_of_dijets(settings, sample, view),
    }
    found: Hists = {
        name: hist.Hist(*of_one, storage=hist.storage.Weight()) for name, of_one in axes.items()
    }
    found["events"] = hist.Hist(sample, storage=hist.storage.Int64())
    resampling = hist.axis.Integer(
        0, settings.validation.n_bootstrap, name="resampling", underflow=False, overflow=False
    )
    for name in RESAMPLED:
        fine = axes[f"{name}_fine"][-1]
        found[f"{name}_resampled_fine"] = hist.Hist(
            sample, reco, resampling, fine, storage=hist.storage.Double()
        )
    return found


def _responses() -> tuple[Any, Any]:
    """Return the plotted and the fine axis of reconstructed over true quantities."""
    label = "reconstructed / truth"
    return (
        hist.axis.Regular(100, 0, 2, name="response", label=label),
        hist.axis.Variable(fine_edges(1, 1e-3, 9), name="response", label=label),
    )


def _axes_of_jets(plots: PlotConfig, sample: Any, reco: Any, view: Any) -> dict[str, _Axes]:
    response, ratio_fine = _responses()
    pt = hist.axis.Variable(plots.jet_pt_edges_gev, name="pt", label="jet $p_T$ [GeV]")
    true_pt = hist.axis.Variable(
        plots.jet_pt_edges_gev, name="true_pt", label="truth jet $p_T$ [GeV]"
    )
    matched = category("matched", ("no", "yes"), "matched")
    closure = category("stage", CLOSURE, "stage")
    # the middle bin is centred on one
    close = hist.axis.Regular(101, 0.5, 1.5, name="response", label="over generator")
    return {
        "closure_jet_response": (sample, closure, true_pt, close),
        "closure_jet_response_fine": (sample, closure, true_pt, ratio_fine),
        "jet_pt": (sample, view, pt),
        "jet_truth": (sample, reco, pt, matched),
        "jet_reco": (sample, reco, pt, matched),
        "jet_response": (sample, reco, true_pt, response),
        "jet_response_fine": (sample, reco, true_pt, ratio_fine),
    }


def _axes_of_events(plots: PlotConfig, sample: Any, reco: Any, view: Any) -> dict[str, _Axes]:
    response, ratio_fine = _responses()
    met_max = plots.met_max_gev
    met = hist.axis.Regular(30, 0, met_max, name="met", label="missing transverse momentum [GeV]")
    true_met = hist.axis.Regular(
        5, 0, met_max, name="true_met", label="truth missing transverse momentum [GeV]"
    )
    label = "reconstructed - truth [GeV]"
    residual = hist.axis.Regular(81, -0.4 * met_max, 0.4 * met_max, name="residual", label=label)
    residual_fine = hist.axis.Variable(fine_edges(0, 1e-2, 1e4), name="residual", label=label)
    return {
        "met": (sample, view, met),
        "met_residual": (sample, reco, true_met, residual),
        "met_residual_fine": (sample, reco, true_met, residual_fine),
        "met_component_residual": (sample, reco, residual),
        "met_component_residual_fine": (sample, reco, residual_fine),
        "visible_energy_response": (sample, reco, response),
        "visible_energy_response_fine": (sample, reco, ratio_fine),
    }


def _axes_of_particles(
    settings: ValidateSettings, sample: Any, reco: Any, true_class: Any, pt: Any
) -> dict[str, _Axes]:
    response, ratio_fine = _responses()
    found_class = category("found_class", list(true_class), "candidate class")
    eta = hist.axis.Variable(settings.plots.eta_edges, name="eta", label=r"$\eta$")
    outcome = category("outcome", OUTCOMES, "match")
    is_shared = category("shared", SHARED, "shared by two or more")
    sign = category("charge", ("wrong", "right"), "sign of the charge")
    label = "angle to truth [mrad]"
    angle = hist.axis.Regular(100, 0, 50, name="angle", label=label)
    angle_fine = hist.axis.Variable(_ANGLES_MRAD, name="angle", label=label)
    return {
        "truth_by_pt": (sample, reco, true_class, pt, outcome),
        "truth_by_eta": (sample, reco, true_class, eta, outcome),
        "candidates_by_pt": (sample, reco, found_class, pt, outcome),
        "candidates_by_eta": (sample, reco, found_class, eta, outcome),
        "confusion": (sample, reco, true_class, found_class),
        "charge": (sample, reco, true_class, sign),
        "splitting": (sample, reco, true_class, is_shared),
        "merging": (sample, reco, found_class, is_shared),
        "target_pt_response": (sample, true_class, response),
        "target_pt_response_fine": (sample, true_class, ratio_fine),
        "target_energy_response": (sample, true_class, response),
        "target_energy_response_fine": (sample, true_class, ratio_fine),
        "particle_angle": (sample, reco, true_class, angle),
        "particle_angle_fine": (sample, reco, true_class, pt, angle_fine),
        "particle_pt_response": (sample, reco, true_class, response),
        "particle_pt_response_fine": (sample, reco, true_class, pt, ratio_fine),
        "particle_energy_response": (sample, reco, true_class, response),
        "particle_energy_response_fine": (sample, reco, true_class, pt, ratio_fine),
    }


def _axes_of_dijets(settings: ValidateSettings, sample: Any, view: Any) -> dict[str, _Axes]:
    """Return the axes of dijet masses, if there is a sample that has them."""
    dijets = settings.plots.dijet_mass
    if dijets is None or not set(dijets.samples) & set(settings.samples):
        return {}
    label = "dijet mass [GeV]"
    low, high = dijets.mass_gev - 2 * dijets.window_gev, dijets.mass_gev + 2 * dijets.window_gev
    mass = hist.axis.Regular(60, max(low, 0), high, name="mass", label=label)
    fine = hist.axis.Variable(fine_edges(dijets.mass_gev, 0.1, 1e4), name="mass", label=label)
    return {"dijet_mass": (sample, view, mass), "dijet_mass_fine": (sample, view, fine)}


def without_held_out(hists: Hists, settings: ValidateSettings) -> Hists:
    """Return the histograms without the samples that are held out of training."""
    held_out = [name for name, sample in settings.samples.items() if sample.held_out]
    if not held_out:
        return hists
    left = {name: h.copy() for name, h in hists.items()}
    for h in left.values():
        for name in held_out:  # the first axis is that of samples
            np.asarray(h.view(flow=True))[h.axes[0].index(name)] = 0
    return left


def fill_response(
    hists: Hists,
    name: str,
    values: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    **where: Any,
) -> None:
    """Fill the plotted and the fine histogram of a ratio or residual.

    Values beyond the fine axis count in its last bins. ``weights`` are those of the events.

    ``where`` holds the other axes by name; an axis that only one of the two histograms has goes to
    that one.
    """
    for key in (name, f"{name}_fine"):
        histogram = hists[key]
        axis = histogram.axes[-1]
        inside = inside_of(axis, values) if key.endswith("_fine") else values
        histogram.fill(
            **{k: v for k, v in where.items() if k in histogram.axes.name},
            **{axis.name: inside},
            weight=weights,
        )


def inside_of(axis: Any, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values with those beyond an axis moved into its first or last bin."""
    return np.clip(values, axis.edges[0], np.nextafter(axis.edges[-1], -np.inf))


def to_json(hists: Hists) -> dict[str, Any]:
    """Return the plotted histograms as plain values: axes, counts and variances.

    Flow bins are included.

    A numeric axis has ``edges`` and its counts start with the underflow and end with the overflow
    bin; a category axis has ``categories``. Values are sums of event weights, variances sums of
    their squares.
    """
    return {name: _plain(h) for name, h in hists.items() if not name.endswith("_fine")}


def _plain(histogram: Histogram) -> Mapping[str, Any]:
    axes = []
    for axis in histogram.axes:
        kind = (
            {"categories": list(axis)}
            if isinstance(axis, hist.axis.StrCategory)
            else {"edges": [float(e) for e in axis.edges]}
        )
        axes.append({"name": axis.name, "label": axis.label, **kind})
    return {
        "axes": axes,
        "values": plain(histogram.values(flow=True)),
        "variances": plain(histogram.variances(flow=True)),
    }


def plain(sums: npt.ArrayLike) -> Any:
    """Return sums of weights as plain values: integers if they all are."""
    found = np.asarray(sums)
    return (found.astype(int) if np.array_equal(found, np.rint(found)) else found).tolist()
