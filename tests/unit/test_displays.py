"""Event displays show lists of particles and tell sums; in space they lie where they belong."""

import math
from dataclasses import replace
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.pages.figures import LABELS
from particleforge.report import displays, scene
from particleforge.tables import parquet
from particleforge.validation.events import EventBatch, read_pair

from .report_inputs import report_settings
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


def test_clusters_without_positions_lie_on_the_face(batch: EventBatch) -> None:
    bare = batch.events.clusters[["eta", "phi", "energy"]]
    events = ak.with_field(batch.events, bare, "clusters")
    found = scene.scene(replace(batch, events=events), 0, FACE_MM)["panels"][0]["clusters"]
    assert len(found) == len(bare[0])
    for x, y, z, _ in found:
        assert max(math.hypot(x, y), abs(z) / 2) == pytest.approx(1, abs=2e-3)


def test_long_lists_keep_their_most_energetic(
    batch: EventBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scene.scene(batch, 0, FACE_MM)["panels"]
    monkeypatch.setattr(scene, "MARKS_MAX", 3)
    few = scene.scene(batch, 0, FACE_MM)["panels"]
    assert few[0]["clusters"] == whole[0]["clusters"][:3]
    assert few[2]["particles"] == whole[2]["particles"][:3]
    assert few[2]["note"] == whole[2]["note"]


def test_faint_candidates_are_not_drawn_but_add_their_part(tmp_path: Path) -> None:
    events = many_events(3, seed=4)
    found = visible(events)
    weight = ak.where(ak.local_index(found.px) % 2 == 1, np.float32(0.25), np.float32(1))
    pair = write_pair(tmp_path, events, ak.with_field(found, weight, "weight"))
    made = displays.draw_displays([pair[0]], [pair[1]], report_settings())
    (only,) = made.space["events"]
    panels = {panel["title"]: panel for panel in only["panels"]}
    drawn = parquet.read_table(pair[1], ["event_id"]).event_id.to_list()
    event = next(i for i in range(3) if events.event_id[i] in drawn)
    energy = found.energy[event]
    n = (len(energy) + 1) // 2
    total = ak.sum(energy * weight[event])
    assert n < len(energy)
    assert len(panels[LABELS["mlpf"]]["particles"]) == n
    assert panels[LABELS["mlpf"]]["note"] == f"{n} particles, {total:.1f} GeV"
    of_truth = f"{len(energy)} particles, {ak.sum(energy):.1f} GeV"
    assert panels[LABELS["truth"]]["note"] == of_truth
    assert of_truth in made.flat[0].alternative
