"""The Delphes reader: a real file against a slow reference, and made-up events for every version
and card that can be told apart.
"""

import math

import numpy as np
import pytest

from particleforge.config.load import load_detector
from particleforge.dataset.build import build_dataset
from particleforge.dataset.elements import valid_events
from particleforge.delphes.reader import read_chunks
from particleforge.inputs.formats import is_delphes
from particleforge.inputs.inspection import inspect_file
from particleforge.tables.parquet import read_table

from .dataset_settings import CONFIG, dataset_settings
from .delphes_events import candidate, particle, tower, track, write_delphes

DETECTOR = load_detector(CONFIG, "cms_delphes")
ECAL, FIELD, NAMES = DETECTOR.calorimeter.ecal, DETECTOR.b_field_tesla, DETECTOR.delphes
PION = particle(11, 211, (3, 0, 1.5), 1, mass=0.13957)
PHOTON, KAON = particle(12, 22, (0, 30, 0)), particle(13, 130, (0, 10, 0))
MUON = particle(14, 13, (0, 0, 200), -1)
EVENT = {
    "Event": [{"Number": 5, "Weight": 0.5}],
    "Particle": [particle(9, 23, (0, 0, 0), status=22, mass=91.2), PION, PHOTON, KAON],
    "Track": [track(11, 3.0, 0.0, 1)],
    "Tower": [tower([12, 13], 39.0, 0.0, 1.5, 29.0, 10.0), tower([11], 2.0, 0.4, 0.1, 0.0, 2.0)],
    "EFlowTrack": [track(11, 3.0, 0.0, 1, Mass=0.13957)],
    "EFlowPhoton": [tower([12, 13], 29.0, 0.0, 1.5)],
    "EFlowNeutralHadron": [tower([12, 13], 10.0, 0.0, 1.5, 0.0, 10.0)],
}
OTHER = {
    "Event": [{"Number": 6, "Weight": 2.0}],
    "Particle": [PHOTON],
    "Tower": [tower([12], 28.0, -0.5, 1.0)],
}
EVENTS = [EVENT, OTHER, {"Event": [{"Number": 7, "Weight": 1.0}]}]


def changed(event, **branches):
    return {
        branch: objects for branch, objects in (event | branches).items() if objects is not None
    }


def without(objects, *names):
    return [{name: value for name, value in one.items() if name not in names} for one in objects]


def read(path, names=NAMES, chunk=100):
    (raw,) = read_chunks(path, names, FIELD, ECAL, chunk)
    return raw


def read_events(tmp_path, events, names=NAMES, **options):
    write_delphes(tmp_path / "events.root", events, **options)
    return read(tmp_path / "events.root", names)


def pairs(relation):
    return sorted(
        zip(
            relation.left.tolist(),
            relation.right.tolist(),
            relation.weight.round(3).tolist(),
            strict=True,
        )
    )


def test_events_and_their_relations(tmp_path):
    raw = read_events(tmp_path, EVENTS)
    assert is_delphes(tmp_path / "events.root")
    assert (raw.event_number.tolist(), raw.weight.tolist()) == ([5, 6, 7], [0.5, 2.0, 1.0])
    assert raw.particles.offsets.tolist() == [0, 4, 5, 5]
    assert (raw.particles["pdg"].tolist(), raw.particles["status"].tolist()) == (
        [23, 211, 22, 130, 22],
        [22, 1, 1, 1, 1],
    )
    np.testing.assert_allclose(
        raw.particles["energy"], [91.2, math.hypot(3, 1.5, 0.13957), 30, 10, 30], rtol=1e-6
    )
    assert (raw.tracks.offsets.tolist(), raw.clusters.offsets.tolist()) == (
        [0, 1, 1, 1],
        [0, 2, 3, 3],
    )
    assert pairs(raw.track_links) == [(0, 1, 1.0)]
    # a tower of a 30 GeV photon and a 10 GeV kaon: 3 : 1, whatever it measured; particle 4 is the
    # other event's photon
    assert pairs(raw.cluster_links) == [(0, 2, 30.0), (0, 3, 10.0), (1, 1, 3.357), (2, 4, 30.0)]
    assert raw.candidates["pdg"].tolist() == [211, 22, 130]
    assert raw.candidates["charge"].tolist() == [1, 0, 0]
    np.testing.assert_allclose(
        raw.candidates["energy"], [math.hypot(3, 1.5, 0.13957), 29, 10], rtol=1e-6
    )
    np.testing.assert_allclose(
        raw.candidates["px"], [3.0, 29 * math.cos(1.5), 10 * math.cos(1.5)], rtol=1e-6
    )
    assert pairs(raw.candidate_tracks) == [(0, 0, 1.0)]
    assert pairs(raw.candidate_clusters) == [(1, 0, 1.0), (2, 0, 1.0)]
    assert raw.clusters["energy_ecal"].tolist() == [29.0, 0.0, 28.0]
    assert raw.clusters["energy_hcal"].tolist() == [10.0, 2.0, 0.0]
    assert raw.counts == {"references_dropped": 0}


@pytest.mark.parametrize("processes", [0, 1, 200])
def test_the_process_in_a_reference_does_not_matter(tmp_path, processes):
    raw = read_events(tmp_path, EVENTS, processes=processes)
    assert pairs(raw.track_links) == [(0, 1, 1.0)]
    assert len(raw.cluster_links.left) == 4


def test_chunks_are_those_of_the_whole_file(tmp_path):
    write_delphes(tmp_path / "events.root", EVENTS)
    parts = list(read_chunks(tmp_path / "events.root", NAMES, FIELD, ECAL, 1))
    whole = read(tmp_path / "events.root")
    assert len(parts) == 3
    for name in ("particles", "tracks", "clusters", "candidates"):
        for column, values in getattr(whole, name).columns.items():
            np.testing.assert_array_equal(
                np.concatenate([getattr(part, name)[column] for part in parts]), values
            )


def test_references_that_point_nowhere_are_counted(tmp_path):
    """With pile-up the branch of particles may hold the hard interaction alone."""
    event = changed(
        EVENT,
        Track=[track(99, 3.0, 0.0, 1)],
        Tower=[tower([12, 98, 0], 39.0, 0.0, 1.5), tower([], 1.0, 0.0, 0.0)],
    )
    raw = read_events(tmp_path, [event])
    assert (pairs(raw.track_links), pairs(raw.cluster_links)) == ([], [(0, 2, 30.0)])
    assert raw.counts == {"references_dropped": 3}
    assert raw.clusters.n_rows == 2


@pytest.mark.parametrize("alternatives", [True, False])
def test_pile_up_is_truth_where_its_particles_are_kept(tmp_path, alternatives):
    both = [PION, PHOTON, KAON, particle(14, 211, (1, 0, 0), 1, IsPU=1)]
    both = [one | {"IsPU": one.get("IsPU", 0)} for one in both]
    event = changed(EVENT, PileUpMix=both, Track=[track(11, 3.0, 0.0, 1), track(14, 1.0, 0.0, 1)])
    names = NAMES if alternatives else NAMES.model_copy(update={"particles": ("Particle",)})
    raw = read_events(tmp_path, [event], names)
    assert pairs(raw.track_links) == ([(0, 0, 1.0), (1, 3, 1.0)] if alternatives else [(0, 1, 1.0)])
    assert raw.counts["references_dropped"] == (0 if alternatives else 1)


def test_versions_name_members_differently(tmp_path):
    """Delphes before 3.4: no D0, DZ, CtgTheta and no Mass of tracks."""
    new = track(11, 3.0, 0.3, -1, D0=0.25, DZ=-1.5)
    old = {
        name: value for name, value in new.items() if name not in ("D0", "DZ", "CtgTheta", "Mass")
    } | {"Dxy": 0.25, "Zd": -1.5}
    expected = read_events(tmp_path, [changed(EVENT, Track=[new], EFlowTrack=[new])])
    found = read_events(tmp_path, [changed(EVENT, Track=[old], EFlowTrack=[old])])
    for column, values in expected.states.columns.items():
        np.testing.assert_allclose(found.states[column], values, rtol=1e-6, err_msg=column)
    assert expected.states["d0"].tolist() == [-0.25, 0.0]  # LCIO counts the other way
    assert found.states["z0"].tolist() == [-1.5, 0.0]
    np.testing.assert_allclose(found.candidates["energy"][0], math.hypot(3, 1.5), rtol=1e-6)


@pytest.mark.parametrize("d0", [0.5, -0.5])
def test_the_sign_of_d0_is_that_of_the_point_of_closest_approach(tmp_path, d0):
    """Tracks of the CMS cards and of the IDEA card count D0 in opposite ways.

    LCIO: the point is at d0 (-sin phi, cos phi).
    """
    tracks = [
        track(11, 3.0, 0.7, 1, D0=d0, Xd=-side * 0.5 * math.sin(0.7), Yd=side * 0.5 * math.cos(0.7))
        for side in (1, -1, 0)
    ]
    raw = read_events(tmp_path, [changed(EVENT, Track=tracks)])
    np.testing.assert_allclose(raw.states["d0"][::2], [0.5, -0.5, -d0])


def test_towers_without_hits_have_no_shape(tmp_path):
    raw = read_events(tmp_path, [EVENT])
    clusters = valid_events(raw, FIELD, DETECTOR.calorimeter, DETECTOR.cluster_shape).clusters
    assert clusters.n_rows == 2
    for name in ("fraction_core_3", "width_minor"):
        assert not clusters[name].any()


def test_a_track_ends_at_the_calorimeter_where_its_helix_leads(tmp_path):
    """States of both ends describe one helix: with the momentum's direction from a slow walk along
    it.
    """
    pt, phi, charge, d0 = 2.0, 0.7, -1, 0.4
    radius = pt / (0.299792458e-3 * FIELD)
    x, y = d0 * math.sin(phi), -d0 * math.cos(phi)  # D0 of Delphes: (x py - y px) / pt
    direction, step = phi, 0.01
    for _ in range(int(1290 / step)):
        x = x + step * math.cos(direction - charge * step / radius / 2)
        y = y + step * math.sin(direction - charge * step / radius / 2)
        direction -= charge * step / radius
    one = track(11, pt, phi, charge, D0=d0, XOuter=x, YOuter=y)
    raw = read_events(tmp_path, [changed(EVENT, Track=[one])])
    assert raw.states["location"].tolist() == [1, 4]
    np.testing.assert_allclose(raw.states["phi"], [phi, direction], atol=1e-4)
    np.testing.assert_allclose(raw.states["omega"], np.full(2, charge / radius), rtol=1e-6)
    tracks = valid_events(raw, FIELD, DETECTOR.calorimeter, DETECTOR.cluster_shape).tracks
    np.testing.assert_allclose(
        [tracks["pt"][0], tracks["phi_calo"][0]], [pt, math.atan2(y, x)], rtol=1e-5
    )


def test_towers_lie_on_the_face_of_the_calorimeter(tmp_path):
    towers = [tower([12], 1.0, eta, 0.5) for eta in (0.0, 1.0, -3.0, 5.0)]
    raw = read_events(tmp_path, [changed(EVENT, Tower=towers)])
    x, y, z = (raw.clusters[axis] for axis in "xyz")
    np.testing.assert_allclose(
        np.arcsinh(z / np.hypot(x, y)), [0.0, 1.0, -3.0, 5.0], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(np.hypot(x, y)[:2], ECAL.barrel_inner_radius_mm, rtol=1e-6)
    np.testing.assert_allclose(z[2:], [-ECAL.endcap_z_min_mm, ECAL.endcap_z_min_mm], rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(y, x), 0.5, rtol=1e-6)


def test_energy_in_neither_calorimeter_is_elsewhere(tmp_path):
    raw = read_events(tmp_path, [changed(EVENT, Tower=[tower([12], 5.0, 0.0, 0.0, 0.0, 0.0)])])
    assert [raw.clusters[f"energy_{system}"].tolist() for system in ("ecal", "hcal", "other")] == [
        [0.0],
        [0.0],
        [5.0],
    ]


def test_without_towers_the_neutral_e_flow_is_the_clusters(tmp_path):
    """The IDEA card keeps no towers."""
    raw = read_events(tmp_path, [changed(EVENT, Tower=None)])
    assert raw.clusters["energy"].tolist() == [29.0, 10.0]
    assert pairs(raw.cluster_links) == [
        (row, right, weight) for row in (0, 1) for right, weight in ((2, 30.0), (3, 10.0))
    ]
    assert pairs(raw.candidate_clusters) == [(1, 0, 1.0), (2, 1, 1.0)]


def test_without_tracks_those_of_the_e_flow_are_read(tmp_path):
    raw = read_events(tmp_path, [changed(EVENT, Track=None)])
    assert pairs(raw.track_links) == [(0, 1, 1.0)]


def test_branches_read_as_one(tmp_path):
    """Cards that keep towers of ECAL and HCAL, or muons' tracks, apart."""
    event = changed(
        EVENT,
        Tower=None,
        ECal=[EVENT["Tower"][0]],
        HCal=[EVENT["Tower"][1]],
        MuonTrack=[track(14, 2.0, 0.1, -1, pid=13)],
    )
    event["Particle"] = [*event["Particle"], MUON]
    given = {"clusters": ("Tower", "ECal + HCal"), "tracks": "Track + MuonTrack"}
    raw = read_events(
        tmp_path,
        [event, OTHER | {"ECal": OTHER["Tower"], "Tower": []}],
        NAMES.model_copy(update=given),
    )
    assert raw.clusters["energy"].tolist() == [39.0, 2.0, 28.0]
    assert pairs(raw.cluster_links) == [(0, 2, 30.0), (0, 3, 10.0), (1, 1, 3.357), (2, 5, 30.0)]
    assert pairs(raw.track_links) == [(0, 1, 1.0), (1, 4, 1.0)]
    assert raw.tracks.offsets.tolist() == [0, 2, 2]


def test_e_flow_in_one_branch(tmp_path):
    """Cards with PUPPI, or of CEPC, keep ParticleFlowCandidate alone.

    What is neutral is told by where its energy lies.
    """
    flow = [
        candidate([11], 211, 1, 3.4, 3.0, 0.4, 0.0),
        candidate([12, 13], 0, 0, 29.0, 29.0, 0.0, 1.5),
    ]
    flow.append(candidate([12, 13], 0, 0, 10.0, 10.0, 0.0, 1.5, hcal=10.0))
    event = changed(
        EVENT,
        EFlowTrack=None,
        EFlowPhoton=None,
        EFlowNeutralHadron=None,
        ParticleFlowCandidate=flow,
    )
    raw = read_events(tmp_path, [event])
    assert raw.candidates["pdg"].tolist() == [211, 22, 130]
    np.testing.assert_allclose(raw.candidates["energy"], [3.4, 29.0, 10.0], rtol=1e-6)
    assert pairs(raw.candidate_tracks) == [(0, 0, 1.0)]
    assert pairs(raw.candidate_clusters) == [(1, 0, 1.0), (2, 0, 1.0)]
    both = changed(EVENT, ParticleFlowCandidate=flow)
    # the same objects twice: one kind is read
    assert read_events(tmp_path, [both]).candidates.n_rows == 3


def test_no_e_flow_no_baseline(tmp_path):
    write_delphes(
        tmp_path / "events.root",
        [changed(EVENT, EFlowTrack=None, EFlowPhoton=None, EFlowNeutralHadron=None)],
    )
    assert read(tmp_path / "events.root").candidates.n_rows == 0
    found = inspect_file(tmp_path / "events.root", DETECTOR)
    assert found.missing == ["no e-flow: no baseline to compare with"]


@pytest.mark.parametrize(
    ("events", "own_numbers"),
    [
        ([changed(EVENT, Event=None), changed(OTHER, Event=None)], [0, 0]),
        ([EVENT, changed(OTHER, Event=EVENT["Event"])], [5, 5]),
        ([changed(EVENT, Event=[{"Number": -1, "Weight": 1.0}]), OTHER], [2**64 - 1, 6]),
    ],
    ids=["no Event", "numbers repeat", "negative"],
)
def test_events_are_numbered_by_position_where_the_file_does_not(tmp_path, events, own_numbers):
    raw = read_events(tmp_path, events)
    assert raw.event_number.tolist() == [0, 1]
    assert raw.own_number.tolist() == own_numbers


def test_an_event_without_weight_weighs_one(tmp_path):
    raw = read_events(
        tmp_path, [changed(one, Event=without(one["Event"], "Weight")) for one in (EVENT, OTHER)]
    )
    assert raw.weight.tolist() == [1.0, 1.0]


def test_several_weights_leave_the_nominal_one(tmp_path):
    raw = read_events(tmp_path, [EVENT | {"Weight": [{"Weight": 3.0}, {"Weight": 4.0}]}])
    assert raw.weight.tolist() == [0.5]


@pytest.mark.fault("file without events")
def test_a_file_without_events_is_an_empty_dataset(tmp_path):
    write_delphes(tmp_path / "events.root", [], empty=[EVENT])
    assert list(read_chunks(tmp_path / "events.root", NAMES, FIELD, ECAL, 10)) == []
    found = inspect_file(tmp_path / "events.root", DETECTOR)
    assert (found.n_events, found.refused) == (0, None)
    build_dataset(
        dataset_settings("cms_delphes"), [tmp_path / "events.root"], tmp_path / "out.parquet"
    )
    assert len(read_table(tmp_path / "out.parquet")) == 0
