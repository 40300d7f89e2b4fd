"""Event displays: what the detector saw and what was made of it.

Inputs -> outputs: selected and reconstructed files -> of the first events of each sample that were
reconstructed and have anything visible, data for the display in space (``scene``) and PNG pictures
in pseudorapidity and azimuth. The area of a marker grows with energy. Drawn are particles as lists
have them; the energy told is the sum, to which every candidate adds by its weight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from particleforge.config.detector import ParticleClassConfig
from particleforge.config.settings import ReportSettings
from particleforge.pages.figures import LABELS, annotate, new_figure, png_bytes, styled
from particleforge.pages.rendering import Picture, data_uri
from particleforge.report import scene
from particleforge.tables import schema
from particleforge.validation.events import EventBatch, read_pair, sample_of

_CAPTION = """Event {event} of run {run} ({sample}, {split}). Top left: tracks (+, at the
    interaction point) and clusters (squares, at the calorimeter). A track and its cluster lie apart
    in azimuth because of the magnetic field."""


@dataclass(frozen=True)
class Displays:
    """The same events twice: data for the display in space, and flat pictures."""

    space: dict[str, Any]
    flat: list[Picture]


def draw_displays(
    selected: Sequence[Path], reconstructed: Sequence[Path], settings: ReportSettings
) -> Displays:
    """Return displays of the first events of every sample."""
    scenes: list[dict[str, Any]] = []
    pictures: list[Picture] = []
    drawn: dict[str, int] = {}
    for pair in zip(selected, reconstructed, strict=True):
        sample = sample_of(pair[0])
        wanted = settings.report.n_event_displays - drawn.get(sample, 0)
        for batch, event in _first_events(pair, wanted):
            scenes.append(scene.scene(batch, event, settings.calorimeter_face_mm))
            pictures.append(_flat(batch, event, settings.particle_classes))
            drawn[sample] = drawn.get(sample, 0) + 1
    radius, half_length = settings.calorimeter_face_mm
    space = {
        "events": scenes,
        "classes": scene.styles(settings.particle_classes),
        "face": half_length / radius,
    }
    return Displays(space, pictures)


def _first_events(pair: tuple[Path, Path], wanted: int) -> Iterator[tuple[EventBatch, int]]:
    """Yield the first ``wanted`` events with visible particles of a pair of files."""
    if wanted <= 0:
        return
    for batch in read_pair(*pair, also=(*scene.COLUMNS, "split")):
        visible = np.flatnonzero(ak.to_numpy(ak.num(batch.views["truth"])) > 0)[:wanted]
        yield from ((batch, int(event)) for event in visible)
        wanted -= len(visible)
        if not wanted:
            return


def _flat(batch: EventBatch, event: int, classes: Sequence[ParticleClassConfig]) -> Picture:
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
        for axes, name in zip(panels.flat[1:], scene.VIEWS, strict=True):
            _draw_particles(axes, batch.views[name][event])
            annotate(axes, LABELS[name], scene.note(batch, event, name))
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
    return Picture(
        f"event_{batch.sample}_{run}_{number}",
        data_uri(png),
        " ".join(caption.split()),
        alternative=scene.in_words(batch, event),
    )


def _eta_range(batch: EventBatch, event: int) -> tuple[float, float]:
    """Return a symmetric range that holds what is drawn, up to 5."""
    found = [batch.views[name][event].eta for name in scene.VIEWS]
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
    """Draw particles in the colours and shapes of their classes.

    The most energetic of a class come first so that they hide none.
    """
    particles = particles[ak.argsort(particles.energy, ascending=False)]
    for number in np.unique(ak.to_numpy(particles.class_id)):
        own = particles[particles.class_id == number]
        colour, marker = scene.style_of(int(number))
        # "none" would turn black where alpha is set
        filled = np.where(ak.to_numpy(own.charge) != 0, colour, "#ffffff00")
        axes.scatter(
            ak.to_numpy(own.eta),
            ak.to_numpy(own.phi),
            _areas(own.energy),
            marker=marker,
            facecolors=list(filled),
            edgecolors=colour,
            linewidths=1.2,
            alpha=0.8,
        )


def _add_legend(figure: Figure, classes: Sequence[ParticleClassConfig]) -> None:
    marks = [
        Line2D(
            [],
            [],
            ls="",
            marker=marker,
            ms=7,
            mec=colour,
            mfc=colour if c.charged else "none",
            label=c.label,
        )
        for number, c in enumerate(classes, start=1)
        for colour, marker in [scene.style_of(number)]
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), 5))
