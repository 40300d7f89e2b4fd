"""Plots of single particles: confusion, efficiency, fakes and response per class.

Of all classes side by side: splitting, merging, and the share of the response above 1.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from particleforge.config.detector import ParticleClassConfig
from particleforge.pages.figures import COLOURS, LABELS, annotate, new_figure
from particleforge.validation.plot_parts import Results, Tree, add_legend, draw_points, log_axis


def confusion(results: Results) -> Figure:
    """Confusion matrices, rows normalised, one per reconstruction."""
    labels = ["none", *(c.label for c in results.settings.particle_classes)]
    names = results.reconstructions
    figure = new_figure(1.4 + 0.56 * len(labels) * len(names), 2.2 + 0.44 * len(labels))
    panels = figure.subplots(1, len(names), sharey=True)
    for axes, reco in zip(panels, names, strict=True):
        counts = np.asarray(results.figures["confusion"][reco], float)
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i, j in np.argwhere(~np.isnan(shares)):
            axes.text(
                j,
                i,
                f"{shares[i, j]:.2f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if shares[i, j] > 0.55 else "black",
            )
        axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()
        axes.set_xlabel("candidate")
        axes.set_title(LABELS[reco], color=COLOURS[reco])
    panels[0].set_ylabel("truth")
    figure.suptitle(f"{results.settings.title}, {results.figures['n_events']} events", fontsize=9.5)
    return figure


def particle_efficiency(results: Results, particle_class: ParticleClassConfig) -> Figure:
    """Efficiency and fake rate of one class against pT and eta."""
    figure = new_figure(8.4, 5.8)
    panels = figure.subplots(2, 2, sharey="row", sharex="col")
    found = results.figures["particles"][particle_class.name]
    for column, (key, edges) in enumerate(
        (
            ("by_pt", results.settings.plots.particle_pt_edges_gev),
            ("by_eta", results.settings.plots.eta_edges),
        )
    ):
        rows = _by_reco(found, key)
        if key == "by_pt":
            log_axis(panels[1, column], edges)
        else:
            panels[1, column].set_xlim(edges[0], edges[-1])
        draw_points(panels[0, column], rows, lambda r: r["efficiency"])
        draw_points(panels[1, column], rows, lambda r: r["fake_rate"])
    panels[0, 0].set(ylabel="efficiency", ylim=(0, 1.08))
    panels[1, 0].set(ylabel="fake rate", xlabel=r"$p_T$ [GeV]")
    panels[1, 0].set_ylim(bottom=0)
    panels[1, 1].set_xlabel(r"$\eta$")
    for axes in panels.flat:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
            break
    annotate(panels[0, 0], results.settings.title, "")
    annotate(panels[0, 1], "", f"{particle_class.label}, {results.figures['n_events']} events")
    return figure


def _by_reco(found: Tree, key: str) -> list[Tree]:
    """Turn one list of bins per reconstruction into one list of bins with all reconstructions."""
    lists = [of_one[key] for of_one in found.values()]
    return [
        {"low": bins[0]["low"], "high": bins[0]["high"], **dict(zip(found, bins, strict=True))}
        for bins in zip(*lists, strict=True)
    ]


def particle_response(results: Results, particle_class: ParticleClassConfig) -> Figure:
    """Median and resolution of the pT and energy response of one class against truth pT."""
    figure = new_figure(8.4, 5.8)
    panels = figure.subplots(2, 2, sharey="row", sharex="col")
    rows = _by_reco(results.figures["particles"][particle_class.name], "by_pt")
    for column, kind in enumerate(("pt_response", "energy_response")):
        log_axis(panels[1, column], results.settings.plots.particle_pt_edges_gev)
        draw_points(panels[0, column], rows, lambda r, kind=kind: r[kind]["median"])  # type: ignore[misc]
        draw_points(panels[1, column], rows, lambda r, kind=kind: r[kind]["resolution"])  # type: ignore[misc]
        panels[0, column].axhline(1, color="#999999", lw=0.8, zorder=0)
        panels[1, column].set_xlabel(r"truth $p_T$ [GeV]")
    panels[0, 0].set_ylabel("median response")
    panels[1, 0].set_ylabel("IQR / median")
    # no room for rounding errors alone
    panels[1, 0].set_ylim(0, max(panels[1, 0].get_ylim()[1], 0.01))
    for axes in panels.flat:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
            break
    annotate(panels[0, 0], results.settings.title, "$p_T$")
    annotate(
        panels[0, 1], f"{particle_class.label}, {results.figures['n_events']} events", "energy"
    )
    return figure


def splitting_merging(results: Results) -> Figure:
    """Shares of truth particles that are split and of candidates that are merged, per class."""
    figure = new_figure(9, 4.4)
    panels = figure.subplots(1, 2)
    for axes, key in zip(panels, ("splitting", "merging"), strict=True):
        _draw_classes(axes, results, results.reconstructions, key)
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("truth particles that are split")
    panels[1].set_ylabel("candidates that are merged")
    add_legend(panels[0], loc="best")
    annotate(panels[0], results.settings.title, "")
    annotate(panels[1], "", f"{results.figures['n_events']} events")
    return figure


def above_one(results: Results) -> Figure:
    """Share of the energy response above 1 per class, to truth and to targets."""
    figure = new_figure(9, 4.4)
    panels = figure.subplots(1, 2, sharey=True)
    _draw_classes(panels[0], results, results.reconstructions, "energy_response", "above_one")
    _draw_classes(panels[1], results, ("mlpf",), "target_energy_response", "above_one")
    for axes, to in zip(panels, ("truth", "target"), strict=True):
        axes.axhline(0.5, color="#999999", lw=0.8, zorder=0)
        axes.set_xlabel(f"candidate over {to}")
    panels[0].set(ylabel="share of response above 1", ylim=(0, 1))
    add_legend(panels[0], loc="best")
    annotate(panels[0], results.settings.title, "")
    annotate(panels[1], "", f"{results.figures['n_events']} events")
    return figure


def _draw_classes(axes: Axes, results: Results, names: Sequence[str], *keys: str) -> None:
    """Draw a figure of every class beside each other, for some reconstructions."""
    classes = results.settings.particle_classes
    rows: list[Tree] = []
    for i, c in enumerate(classes):
        found = results.figures["particles"][c.name]
        row: Tree = {"low": i, "high": i + 1}
        for name in names:
            row[name] = found[name]
            for key in keys:
                row[name] = row[name][key]
        rows.append(row)
    draw_points(axes, rows, lambda r: r if r["value"] is not None else None)
    axes.set_xlim(0, len(classes))
    axes.set_xticks(np.arange(len(classes)) + 0.5, [c.label for c in classes], rotation=30)
    axes.tick_params(axis="x", which="both", length=0)
    axes.minorticks_off()
