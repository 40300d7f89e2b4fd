"""Plots of whole events: missing momentum, visible energy, and the weights of candidates."""

import numpy as np
from matplotlib.figure import Figure

from particleforge.pages.figures import COLOURS, LABELS, MARKERS, annotate, new_figure
from particleforge.validation.events import TRUTH
from particleforge.validation.plot_parts import (
    Results,
    add_legend,
    draw_distributions,
    draw_points,
    make_room,
    say_empty,
    summary_text,
    title,
)


def met(results: Results) -> Figure:
    """Missing transverse momentum and its residual."""
    figure = new_figure(9.6, 4.4)
    left, right = figure.subplots(1, 2)
    draw_distributions(left, results.hists, "met", (TRUTH, *results.reconstructions), "view")
    left.set(ylabel="events per bin")
    left.legend(loc="upper right")
    notes = {
        reco: summary_text(results.figures["met"]["inclusive"][reco]["residual"], " GeV")
        for reco in results.reconstructions
    }
    draw_distributions(right, results.hists, "met_residual", results.reconstructions, "reco", notes)
    right.set(ylabel="events per bin")
    make_room(right, 1.4)
    right.legend(loc="upper left", fontsize=9)
    annotate(left, results.settings.title, "")
    annotate(right, "", f"{results.figures['n_events']} events")
    return figure


def met_resolution(results: Results) -> Figure:
    """Bias and width of the missing-momentum residual against truth."""
    figure = new_figure(6.4, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True)
    rows = results.figures["met"]["truth_bins"]
    draw_points(top, rows, lambda r: r["median"])
    draw_points(bottom, rows, lambda r: r["iqr"])
    top.axhline(0, color="#999999", lw=0.8, zorder=0)
    top.set_ylabel("median residual [GeV]")
    bottom.set(
        xlabel="truth missing transverse momentum [GeV]",
        ylabel="IQR of residual [GeV]",
        xlim=(0, results.settings.plots.met_max_gev),
    )
    bottom.set_ylim(bottom=0)
    add_legend(top, loc="best")
    title(top, results)
    return figure


def visible_energy(results: Results) -> Figure:
    """Response of the visible energy."""
    figure = new_figure()
    axes = figure.add_subplot()
    names = results.reconstructions
    notes = {reco: summary_text(results.figures["visible_energy"][reco]) for reco in names}
    draw_distributions(axes, results.hists, "visible_energy_response", names, "reco", notes)
    axes.axvline(1, color="#999999", lw=0.8, zorder=0)
    axes.set(
        xlabel="visible energy reconstructed / truth", ylabel="events per bin", xlim=(0.5, 1.5)
    )
    make_room(axes)
    axes.legend(loc="upper left")
    title(axes, results)
    return figure


def reliability(results: Results) -> Figure:
    """Share of candidates whose element hosts a particle, against their weight."""
    figure = new_figure(6.4, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins = results.figures["reliability"]["bins"]
    filled = [row for row in bins if row["hosts"]["value"] is not None]
    colour = COLOURS["mlpf"]
    top.plot([0, 1], [0, 1], color="#999999", lw=0.8, zorder=0)
    if filled:
        value, low, high = (
            np.array([row["hosts"][key] for row in filled]) for key in ("value", "low", "high")
        )
        top.errorbar(
            [row["mean_weight"] for row in filled],
            value,
            [value - low, high - value],
            fmt=MARKERS["mlpf"],
            color=colour,
            label=LABELS["mlpf"],
        )
        edges = [*(row["low"] for row in bins), bins[-1]["high"]]
        bottom.stairs([row["hosts"]["total"] for row in bins], edges, color=colour)
        bottom.set_yscale("log")
    else:
        say_empty(top)
    top.set(ylabel="hosts a particle", xlim=(0, 1), ylim=(0, 1.05))
    bottom.set(xlabel="weight of candidate", ylabel="candidates")
    add_legend(top, loc="upper left")
    title(top, results)
    return figure
