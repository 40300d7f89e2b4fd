"""Event displays in pseudorapidity and azimuth: what the detector saw and what was made of it.

Inputs -> outputs: selected and reconstructed files -> PNG pictures of the first events of each
sample that were reconstructed and have anything visible. The area of a marker grows with energy.
Drawn are particles as lists have them; the energy told is the sum, to which every candidate adds by
its weight.
"""

from collections.abc import Sequence
from pathlib import Path

import awkward as ak
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from particleforge.config.detector import ParticleClassConfig
from particleforge.pages.figures import LABELS, annotate, new_figure, png_bytes, styled
from particleforge.pages.rendering import Picture, data_uri
from particleforge.tables import schema
from particleforge.validation.events import EventBatch, read_pair, sample_of

_COLUMNS = ("run_number", "event_number", "tracks", "clusters")
_COLOURS = ("#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9", "#7f7f7f", "#8c564b")
_CAPTION = """Event {event} of run {run} ({sample}, {split}). Top left: tracks (+, at the
    interaction point) and clusters (squares, at the calorimeter); the other panels: particles by
    class, charged ones filled, of MLPF those whose weight reaches the presence threshold; the
    energy is that of all, each by its weight. Larger is more energetic. A track and its cluster lie
    apart in azimuth because of the magnetic field. Compare the panels: what is missing, what is too
    much, what has another colour."""


def draw_displays(
    selected: Sequence[Path],
    reconstructed: Sequence[Path],
    n_per_sample: int,
    classes: Sequence[ParticleClassConfig],
) -> list[Picture]:
    """Return up to ``n_per_sample`` displays of every sample."""
    pictures: list[Picture] = []
    drawn: dict[str, int] = {}
    for pair in zip(selected, reconstructed, strict=True):
        sample = sample_of(pair[0])
        wanted = n_per_sample - drawn.get(sample, 0)
        if wanted <= 0:
            continue
        made = _displays_of(pair, wanted, classes)
        drawn[sample] = drawn.get(sample, 0) + len(made)
        pictures += made
    return pictures


def _displays_of(
    pair: tuple[Path, Path], wanted: int, classes: Sequence[ParticleClassConfig]
) -> list[Picture]:
    """Return displays of the first ``wanted`` events with visible particles of a pair of files."""
    pictures: list[Picture] = []
    for batch in read_pair(*pair, also=(*_COLUMNS, "split")):
        visible = np.flatnonzero(ak.to_numpy(ak.num(batch.views["truth"])) > 0)
        pictures += [
            _display(batch, int(event), classes) for event in visible[: wanted - len(pictures)]
        ]
        if len(pictures) == wanted:
            break
    return pictures


def _display(batch: EventBatch, event: int, classes: Sequence[ParticleClassConfig]) -> Picture:
    where = batch.events[event]
    run, number = int(where.run_number), int(where.event_number)
    with styled():
        figure = new_figure(10, 8.2)
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        _draw_elements(panels[0, 0], where)
        annotate(
            panels[0, 0],
            f"tracks and {schema.calorimeter_type(ak.fields(where.clusters))}s",
            f"{len(where.tracks)} + {len(where.clusters)}",
        )
        for axes, name in zip(panels.flat[1:], ("truth", "mlpf", "baseline"), strict=True):
            particles, summed = batch.views[name][event], batch.weighted[name][event]
            _draw_particles(axes, particles)
            annotate(
                axes,
                LABELS[name],
                f"{len(particles)} particles, {ak.sum(summed.energy):.1f} GeV",
            )
        panels[0, 0].set(ylim=(-np.pi, np.pi), xlim=_eta_range(batch, event))
        for axes in panels[1]:
            axes.set_xlabel(r"$\eta$")
        for axes in panels[:, 0]:
            axes.set_ylabel(r"$\phi$ [rad]")
        _add_legend(figure, classes)
        png = png_bytes(figure)
    caption = _CAPTION.format(
        event=number, run=run, sample=batch.sample, split=f"{where.split} split"
    )
    return Picture(f"event_{batch.sample}_{run}_{number}", data_uri(png), " ".join(caption.split()))


def _eta_range(batch: EventBatch, event: int) -> tuple[float, float]:
    """Return a symmetric range that holds what is drawn, up to 5."""
    found = [batch.views[name][event].eta for name in ("truth", "mlpf", "baseline")]
    reach = max(float(np.max(np.abs(ak.to_numpy(eta)), initial=2.5)) for eta in found)
    return -min(reach + 0.2, 5.2), min(reach + 0.2, 5.2)


def _areas(energies: ak.Array) -> np.ndarray:
    """Return marker areas (points^2): 10 GeV is about 60."""
    areas: np.ndarray = np.clip(19 * np.sqrt(np.maximum(ak.to_numpy(energies), 0)), 6, 400)
    return areas


def _draw_elements(axes: Axes, where: ak.Record) -> None:
    tracks, clusters = where.tracks, where.clusters
    eta, phi = ak.to_numpy(clusters.eta), ak.to_numpy(clusters.phi)
    axes.scatter(
        eta,
        phi,
        _areas(clusters.energy),
        marker="s",
        facecolor="#bbbbbb55",
        edgecolor="#777777",
        linewidth=0.7,
    )
    axes.scatter(
        ak.to_numpy(tracks.eta),
        ak.to_numpy(tracks.phi),
        _areas(tracks.p),
        marker="+",
        color="#222222",
        linewidth=1,
    )


def _draw_particles(axes: Axes, particles: ak.Array) -> None:
    """Draw particles in the colours of their classes.

    The most energetic come first so that they hide none.
    """
    particles = particles[ak.argsort(particles.energy, ascending=False)]
    colours = np.array(_COLOURS)[(ak.to_numpy(particles.class_id) - 1) % len(_COLOURS)]
    # "none" would turn black where alpha is set
    filled = np.where(ak.to_numpy(particles.charge) != 0, colours, "#ffffff00")
    axes.scatter(
        ak.to_numpy(particles.eta),
        ak.to_numpy(particles.phi),
        _areas(particles.energy),
        facecolors=list(filled),
        edgecolors=list(colours),
        linewidths=1.2,
        alpha=0.8,
    )


def _add_legend(figure: Figure, classes: Sequence[ParticleClassConfig]) -> None:
    marks = [
        Line2D(
            [],
            [],
            ls="",
            marker="o",
            ms=7,
            mec=colour,
            mfc=colour if c.charged else "none",
            label=c.label,
        )
        for c, colour in zip(classes, _COLOURS * 4, strict=False)
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), 5))
