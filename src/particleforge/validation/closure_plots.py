"""Plots of targets against the generator: jets, spectra per class, elements per event."""

from collections.abc import Mapping

import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from particleforge.pages.figures import COLOURS, annotate, new_figure
from particleforge.validation.events import GENERATOR
from particleforge.validation.histograms import CLOSURE, ELEMENTS
from particleforge.validation.plot_parts import (
    Results,
    log_axis,
    lowest_shown,
    make_room,
    say_empty,
    summary_text,
    title,
)

_STYLES: Mapping[str, tuple[str, str, str]] = {
    GENERATOR: ("#888888", "--", "generator"),
    "truth": (COLOURS["truth"], ":", "visible"),
    "target": (COLOURS["target"], "-", "targets"),
}
_N_COLUMNS = 3
_TICKS = (0, *(first * 10**decade for decade in range(6) for first in (1, 2, 5)))


def closure_jets(results: Results) -> Figure:
    """Jets of visible particles and of targets over jets of all generated particles."""
    figure = new_figure()
    axes = figure.add_subplot()
    edge = results.settings.plots.jet_pt_edges_gev[0]
    above = results.hists["closure_jet_response"][
        {"process": sum, "true_pt": slice(1j * edge, None)}
    ]
    counts = {stage: above[{"stage": stage}].project("response") for stage in CLOSURE}
    for stage, histogram in counts.items():
        colour, line, label = _STYLES[stage]
        label += ": " + summary_text(results.figures["closure"]["inclusive"][stage])
        mplhep.histplot(
            histogram.values(),
            histogram.axes[0].edges,
            ax=axes,
            color=colour,
            ls=line,
            label=label,
            yerr=False,
        )
    axes.axvline(1, color="#999999", lw=0.8, zorder=0)
    axes.set(xlabel=r"jet $p_T$ / generator jet $p_T$", ylabel="jets per bin", xlim=(0.5, 1.5))
    if any(histogram.values().any() for histogram in counts.values()):
        axes.set_yscale("log")
        lowest = lowest_shown(*(histogram.values() for histogram in counts.values()))
        axes.set_ylim(lowest, 20 * axes.get_ylim()[1])  # room for the legend
    else:
        say_empty(axes)
    axes.legend(loc="upper left", title=f"generator jets above {edge:g} GeV", alignment="left")
    title(axes, results)
    return figure


def class_spectra(results: Results) -> Figure:
    """Spectra of each class: generated, visible, and targets, with their ratio to generated."""
    classes = results.settings.particle_classes
    n_rows = -(-len(classes) // _N_COLUMNS)
    figure = new_figure(3.6 * _N_COLUMNS, 4.0 * n_rows)
    panels = figure.subplots(2 * n_rows, _N_COLUMNS, squeeze=False, height_ratios=[3, 1.2] * n_rows)
    for number, particle_class in enumerate(classes):
        row, column = divmod(number, _N_COLUMNS)
        _spectrum(
            results, particle_class.name, panels[2 * row, column], panels[2 * row + 1, column]
        )
        panels[2 * row, column].set_title(particle_class.label, fontsize=11)
    for number in range(len(classes), n_rows * _N_COLUMNS):
        for part in range(2):
            panels[2 * (number // _N_COLUMNS) + part, number % _N_COLUMNS].set_axis_off()
    panels[0, 0].legend(loc="best", fontsize=9)
    figure.suptitle(f"{results.settings.title}, {results.figures['n_events']} events", fontsize=9.5)
    return figure


def _spectrum(results: Results, name: str, top: Axes, bottom: Axes) -> None:
    edges = np.asarray(results.settings.plots.particle_pt_edges_gev)
    of_class = results.hists["class_pt"][{"process": sum, "true_class": name}]
    counts = {stage: of_class[{"stage": stage}].project("pt").values() for stage in _STYLES}
    known = counts[GENERATOR] > 0
    for stage, values in counts.items():
        colour, line, label = _STYLES[stage]
        mplhep.histplot(
            values / np.diff(edges), edges, ax=top, color=colour, ls=line, label=label, yerr=False
        )
        ratio = np.divide(values, counts[GENERATOR], out=np.full(len(known), np.nan), where=known)
        mplhep.histplot(ratio, edges, ax=bottom, color=colour, ls=line, yerr=False, edges=False)
    if any(values.any() for values in counts.values()):
        top.set_yscale("log")
    else:
        say_empty(top)
    for axes in (top, bottom):
        log_axis(axes, results.settings.plots.particle_pt_edges_gev)
    top.tick_params(axis="x", labelbottom=False)
    top.set_ylabel("particles per GeV")
    bottom.set(xlabel=r"$p_T$ [GeV]", ylabel="ratio", ylim=(0, 2))
    bottom.tick_params(axis="x", labelsize=8, rotation=45)


def elements_per_event(results: Results) -> Figure:
    """Draw the numbers of tracks, calorimeter elements, targets, visible particles per event."""
    figure = new_figure()
    axes = figure.add_subplot()
    found = results.hists["elements"][{"process": sum}]
    edges = found.axes["number"].edges
    filled = np.flatnonzero(found.project("number").values())
    axes.set_xscale("symlog", linthresh=1)
    for number, kind in enumerate(ELEMENTS):
        values = found[{"kind": kind}].values()
        mplhep.histplot(values, edges, ax=axes, color=f"C{number}", label=kind, yerr=False)
    axes.set(xlabel="number per event", ylabel="events per bin")
    if len(filled):
        axes.set_xlim(edges[filled[0]], edges[filled[-1] + 1])
        inside = [tick for tick in _TICKS if edges[filled[0]] <= tick <= edges[filled[-1] + 1]]
        axes.set_xticks(inside, [str(tick) for tick in inside])
        axes.set_xticks([], minor=True)
    else:
        say_empty(axes)
    axes.set_ylim(bottom=0)
    make_room(axes, 1.4)
    axes.legend(loc="upper right")
    annotate(axes, results.settings.title, f"{results.figures['n_events']} events")
    return figure
