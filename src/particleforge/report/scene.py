"""Events as data for the display in space that ``display.js`` draws.

Inputs -> outputs: one event's tracks, clusters and views -> plain JSON values. Positions are in
units of the radius of the calorimeter's inner face, energies in GeV. A track starts at the origin;
its azimuth is taken to grow evenly to that at the calorimeter. A particle points from the origin
to the face, straight, also where a field would bend it. Of long lists the most energetic entries
are kept, ``MARKS_MAX``.
"""

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from particleforge.config.detector import ParticleClassConfig
from particleforge.pages.figures import LABELS
from particleforge.tables import schema
from particleforge.validation.events import EventBatch

MARKS_MAX = 4000
COLUMNS = ("run_number", "event_number", "tracks", "clusters")  # read beside the views
VIEWS = ("truth", "mlpf", "baseline")
# Okabe & Ito's colours, and a shape for those who cannot tell them apart, by class
STYLES = (
    ("#0072b2", "o"),
    ("#009e73", "s"),
    ("#e69f00", "^"),
    ("#d55e00", "D"),
    ("#cc79a7", "v"),
    ("#56b4e9", "p"),
    ("#7f7f7f", "*"),
    ("#8c564b", "h"),
)
Array = NDArray[np.float64]


def style_of(class_id: int) -> tuple[str, str]:
    """Return colour and shape, as matplotlib names it, of a class's marks."""
    return STYLES[(class_id - 1) % len(STYLES)]


def styles(classes: Sequence[ParticleClassConfig]) -> list[dict[str, Any]]:
    """Return what the display needs to draw particles of each class and its legend."""
    return [
        {"label": c.label, "colour": colour, "shape": shape, "charged": c.charged}
        for c, (colour, shape) in zip(
            classes, map(style_of, range(1, len(classes) + 1)), strict=True
        )
    ]


def scene(batch: EventBatch, event: int, face_mm: tuple[float, float]) -> dict[str, Any]:
    """Return one event: its name, and four panels that are drawn from one point of view."""
    where = batch.events[event]
    radius, half_length = face_mm
    elements = {
        "title": f"tracks and {schema.calorimeter_type(ak.fields(where.clusters))}s",
        "note": f"{len(where.tracks)} + {len(where.clusters)}",
        "tracks": _tracks(where.tracks, half_length / radius),
        "clusters": _clusters(where.clusters, face_mm),
    }
    return {
        "name": event_name(batch, event),
        "panels": [elements, *(_view(batch, event, name, half_length / radius) for name in VIEWS)],
    }


def event_name(batch: EventBatch, event: int) -> str:
    """Return what an event is called on the page."""
    where = batch.events[event]
    return f"{batch.sample}, run {where.run_number}, event {where.event_number}"


def note(batch: EventBatch, event: int, view: str) -> str:
    """Return how much there is of a view of an event."""
    energy = ak.sum(batch.weighted[view][event].energy)
    return f"{len(batch.views[view][event])} particles, {energy:.1f} GeV"


def in_words(batch: EventBatch, event: int) -> str:
    """Return what a picture of the event shows, for those who do not see it."""
    where = batch.events[event]
    views = "; ".join(f"{LABELS[view]} {note(batch, event, view)}" for view in VIEWS)
    calorimeter = schema.calorimeter_type(ak.fields(where.clusters))
    return (
        f"Event display of {event_name(batch, event)}: {len(where.tracks)} tracks and"
        f" {len(where.clusters)} {calorimeter}s; {views}"
    )


def _tracks(tracks: ak.Record, face: float) -> list[list[float]]:
    """Return azimuth at the origin, turn up to the calorimeter, radius and z there, momentum."""
    p, phi = ak.to_numpy(tracks.p), ak.to_numpy(tracks.phi)
    turn = (ak.to_numpy(tracks.phi_calo) - phi + np.pi) % (2 * np.pi) - np.pi
    radius, z = _on_face(ak.to_numpy(tracks.eta_calo), face)
    return _strongest(p, phi, turn, radius, z)


def _clusters(clusters: ak.Record, face_mm: tuple[float, float]) -> list[list[float]]:
    """Return x, y, z and energy; where the file has no positions they lie on the face."""
    radius_mm, half_length_mm = face_mm
    if {"x", "y", "z"} <= set(ak.fields(clusters)):
        position = [ak.to_numpy(clusters[axis]) / radius_mm for axis in "xyz"]
    else:
        eta, phi = ak.to_numpy(clusters.eta), ak.to_numpy(clusters.phi)
        position = [*_pointing(eta, phi, half_length_mm / radius_mm)]
    return _strongest(ak.to_numpy(clusters.energy), *position)


def _view(batch: EventBatch, event: int, name: str, face: float) -> dict[str, Any]:
    particles = batch.views[name][event]
    marks = _strongest(
        ak.to_numpy(particles.energy),
        *_pointing(ak.to_numpy(particles.eta), ak.to_numpy(particles.phi), face),
        ak.to_numpy(particles.class_id) - 1,
        ak.to_numpy(particles.charge) != 0,
    )
    return {"title": LABELS[name], "note": note(batch, event, name), "particles": marks}


def _pointing(eta: Array, phi: Array, face: float) -> tuple[Array, Array, Array]:
    """Return x, y and z of the points of the face in directions."""
    radius, z = _on_face(eta, face)
    return radius * np.cos(phi), radius * np.sin(phi), z


def _on_face(eta: Array, face: float) -> tuple[Array, Array]:
    """Return radius and z of the point of the face in a direction, in units of its radius.

    ``face`` is its half length in these units.
    """
    slope = np.sinh(np.clip(eta, -10, 10))
    radius = np.minimum(1, face / np.maximum(np.abs(slope), 1e-9))
    return radius, radius * slope


def _strongest(energy: Array, *columns: Array) -> list[list[float]]:
    """Return rows of the columns and the energy, the most energetic first."""
    order = np.argsort(-energy, kind="stable")[:MARKS_MAX]
    rows = np.stack([*(column[order] for column in columns), energy[order]], axis=1)
    found: list[list[float]] = np.round(rows.astype(np.float64), 3).tolist()
    return found
