"""Plots of jets: response, resolution, efficiency, fakes, spectrum and masses of pairs."""

from collections.abc import Sequence

import mplhep
import numpy as np
from matplotlib.figure import Figure

from particleforge.pages.figures import COLOURS, LABELS, LINES, annotate, new_figure
from particleforge.validation.events import TRUTH
from particleforge.validation.plot_parts import (
    Results,
    Tree,
    add_legend,
    draw_distributions,
    draw_points,
    log_axis,
    lowest_shown,
    make_room,
    say_empty,
    summary_text,
    title,
)


def jet_response(results: Results) -> Figure:
    """Distribution of the jet response."""
    figure = new_figure()
    axes = figure.add_subplot()
    edge = results.settings.plots.jet_pt_edges_gev[0]
    above = {"jet_response": results.hists["jet_response"][{"true_pt": slice(1j * edge, None)}]}
    notes = {
        reco: summary_text(results.figures["jets"]["inclusive"][reco]["response"])
        for reco in results.reconstructions
    }
    draw_distributions(axes, above, "jet_response", results.reconstructions, "reco", notes)
    axes.axvline(1, color="#999999", lw=0.8, zorder=0)
    axes.set(xlabel=r"jet $p_T$ reconstructed / truth", ylabel="jets per bin")
    if above["jet_response"].values().any():
        axes.set_yscale("log")
        lowest = lowest_shown(above["jet_response"].values())
        axes.set_ylim(lowest, 60 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", title=f"truth jets above {edge:g} GeV", alignment="left")
    title(axes, results)
    return figure


def jet_resolution(results: Results) -> Figure:
    """Median and resolution of the jet response against truth pT, and the ratio to the baseline."""
    figure = new_figure(6.4, 7.2)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[2, 3, 1.5])
    rows = results.figures["jets"]["pt_bins"]
    log_axis(bottom, results.settings.plots.jet_pt_edges_gev)
    draw_points(top, rows, lambda r: r["response"]["median"])
    draw_points(middle, rows, lambda r: r["response"]["resolution"])
    top.axhline(1, color="#999999", lw=0.8, zorder=0)
    bottom.axhline(1, color=COLOURS["baseline"], lw=1)
    compared = [reco for reco in results.reconstructions if reco != "baseline"]
    draw_points(bottom, [_ratio_to_baseline(row, compared) for row in rows], lambda r: r)
    top.set_ylabel("median response")
    middle.set(ylabel="IQR / median")
    middle.set_ylim(bottom=0)
    add_legend(middle, loc="best")
    bottom.set(xlabel=r"truth jet $p_T$ [GeV]", ylabel="over baseline")
    title(top, results)
    return figure


def _ratio_to_baseline(row: Tree, compared: Sequence[str]) -> Tree:
    """Return resolutions over the baseline's; errors add as if independent, so are too large."""
    ratio: Tree = {"low": row["low"], "high": row["high"]}
    base = row["baseline"]["response"]["resolution"]
    for reco in compared:
        own = row[reco]["response"]["resolution"]
        ratio[reco] = None
        if own and base and own["value"] and base["value"]:
            value = own["value"] / base["value"]
            error = value * float(
                np.hypot(own["error"] / own["value"], base["error"] / base["value"])
            )
            ratio[reco] = {"value": value, "error": error}
    return ratio


def jet_resolution_by_sample(results: Results) -> Figure:
    """Resolution of the jet response per sample."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    names = sorted(results.settings.samples)
    rows = [
        {"low": i, "high": i + 1, **results.figures["by_sample"][name]["jets"]["inclusive"]}
        for i, name in enumerate(names)
    ]
    draw_points(axes, rows, lambda r: r["response"]["resolution"])
    axes.set_xticks(
        np.arange(len(names)) + 0.5,
        [
            f"{results.settings.samples[n].label}\n{results.figures['by_sample'][n]['n_events']}"
            f" events{', held out' * results.settings.samples[n].held_out}"
            for n in names
        ],
    )
    axes.tick_params(axis="x", which="both", length=0)
    axes.set(ylabel="jet IQR / median", xlim=(0, len(names)))
    axes.set_ylim(bottom=0)
    make_room(axes, 1.3)
    add_legend(axes, ncols=len(results.reconstructions))
    annotate(
        axes,
        results.settings.title,
        f"truth jets above {results.settings.plots.jet_pt_edges_gev[0]:g} GeV",
    )
    return figure


def jet_efficiency(results: Results) -> Figure:
    """Matching efficiency and fake-jet rate against pT."""
    figure = new_figure(9, 4.2)
    left, right = figure.subplots(1, 2)
    rows = results.figures["jets"]["pt_bins"]
    for axes, key, x, y in (
        (left, "efficiency", r"truth jet $p_T$ [GeV]", "matching efficiency"),
        (right, "fake_rate", r"reconstructed jet $p_T$ [GeV]", "fake-jet rate"),
    ):
        log_axis(axes, results.settings.plots.jet_pt_edges_gev)
        draw_points(axes, rows, lambda r, key=key: r[key])  # type: ignore[misc]
        axes.set(xlabel=x, ylabel=y)
    left.set_ylim(top=1.005)
    right.set_ylim(bottom=0)
    add_legend(left, loc="lower right")
    annotate(left, results.settings.title, "")
    annotate(right, "", f"{results.figures['n_events']} events")
    return figure


def jet_pt(results: Results) -> Figure:
    """Spectra of jets and their ratio to truth."""
    figure = new_figure(6.4, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.3])
    edges = np.asarray(results.settings.plots.jet_pt_edges_gev)
    views = (TRUTH, *results.reconstructions)
    counts = {
        view: results.hists["jet_pt"][{"view": view}].project("pt").values() for view in views
    }
    for view in views:
        style: Tree = {"color": COLOURS[view], "yerr": False, "ls": LINES[view]}
        mplhep.histplot(counts[view] / np.diff(edges), edges, ax=top, label=LABELS[view], **style)
        if view != TRUTH:
            known = counts[TRUTH] > 0
            ratio = np.divide(
                counts[view], counts[TRUTH], out=np.full(len(known), np.nan), where=known
            )
            mplhep.histplot(ratio, edges, ax=bottom, **style)
    if not counts[TRUTH].any():
        say_empty(top)
    else:
        top.set_yscale("log")
    bottom.axhline(1, color="#999999", lw=0.8, zorder=0)
    top.set_ylabel("jets per GeV")
    bottom.set(xlabel=r"jet $p_T$ [GeV]", ylabel="over truth", ylim=(0, 2))
    log_axis(bottom, results.settings.plots.jet_pt_edges_gev)
    top.legend(loc="best")
    title(top, results)
    return figure


def dijet_mass(results: Results) -> Figure:
    """Mass of two jets, where samples hold bosons that decay to two jets."""
    figure = new_figure()
    axes = figure.add_subplot()
    views = (TRUTH, *results.reconstructions)
    notes = {view: summary_text(results.figures["dijet_mass"][view]) for view in views}
    draw_distributions(axes, results.hists, "dijet_mass", views, "view", notes)
    axes.set_ylabel("dijets per bin")
    make_room(axes, 1.5)
    axes.legend(loc="upper left", fontsize=9)
    labels = [
        results.settings.samples[name].label
        for name in results.hists["dijet_mass"].axes["process"]
        if results.hists["dijet_mass"][{"process": name}].values(flow=True).any()
    ]
    annotate(axes, results.settings.title, ", ".join(labels))
    return figure
