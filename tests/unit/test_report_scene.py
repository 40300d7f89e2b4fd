"""The data of the event display in space."""

import math
from dataclasses import replace

import numpy as np
import pytest

from particleforge.report import scene
from particleforge.validation.events import EventBatch, read_pair

from .validation_inputs import many_events, visible, write_pair

FACE_MM = (1500.0, 3000.0)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> EventBatch:
    events = many_events(4)
    pair = write_pair(tmp_path_factory.mktemp("scene"), events, visible(events))
    return next(read_pair(*pair, also=scene.COLUMNS))


def test_particles_point_at_the_face(batch: EventBatch) -> None:
    (truth,) = [p for p in scene.scene(batch, 0, FACE_MM)["panels"] if p["title"] == "truth"]
    energies = [mark[-1] for mark in truth["particles"]]
    assert energies == sorted(energies, reverse=True)
    first = batch.views["truth"][0][int(np.argmax(batch.views["truth"][0].energy))]
    x, y, z, kind, charged, energy = truth["particles"][0]
    assert energy == pytest.approx(first.energy, abs=1e-3)
    assert (kind, bool(charged)) == (first.class_id - 1, first.charge != 0)
    assert math.atan2(y, x) == pytest.approx(first.phi, abs=2e-3)
    assert z / math.hypot(x, y) == pytest.approx(math.sinh(first.eta), rel=1e-2)
    for x, y, z, *_ in truth["particles"]:
        on_barrel = math.hypot(x, y) == pytest.approx(1, abs=2e-3)
        on_endcap = abs(z) == pytest.approx(2, abs=2e-3)
        assert (on_barrel and abs(z) <= 2.002) or (on_endcap and math.hypot(x, y) <= 1.002)


def test_tracks_and_clusters_lie_where_the_detector_saw_them(batch: EventBatch) -> None:
    panel = scene.scene(batch, 0, FACE_MM)["panels"][0]
    event = batch.events[0]
    assert panel["note"] == f"{len(event.tracks)} + {len(event.clusters)}"
    strongest = event.clusters[int(np.argmax(event.clusters.energy))]
    x, y, z, _ = panel["clusters"][0]
    found = [1500 * value for value in (x, y, z)]
    assert found == pytest.approx([strongest.x, strongest.y, strongest.z], abs=1)
    track = event.tracks[int(np.argmax(event.tracks.p))]
    phi, turn, *_ = panel["tracks"][0]
    assert phi == pytest.approx(track.phi, abs=1e-3)
    assert math.remainder(phi + turn - track.phi_calo, 2 * math.pi) == pytest.approx(0, abs=2e-3)
    assert all(abs(turn) <= math.pi + 1e-3 for _, turn, *_ in panel["tracks"])


def test_long_lists_keep_their_most_energetic(
    batch: EventBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scene.scene(batch, 0, FACE_MM)["panels"]
    monkeypatch.setattr(scene, "MARKS_MAX", 3)
    few = scene.scene(batch, 0, FACE_MM)["panels"]
    assert few[0]["clusters"] == whole[0]["clusters"][:3]
    assert few[2]["particles"] == whole[2]["particles"][:3]
    assert few[2]["note"] == whole[2]["note"]


def test_energies_count_weights_and_lists_do_not(batch: EventBatch) -> None:
    halves = batch.weighted | {"mlpf": batch.weighted["baseline"][:, :0]}
    assert scene.note(replace(batch, weighted=halves), 0, "mlpf").endswith("particles, 0.0 GeV")
    assert scene.note(batch, 0, "mlpf").split()[0] == str(len(batch.views["mlpf"][0]))
