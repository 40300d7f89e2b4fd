"""Truth and positions that follow from links other than those of tracks and clusters."""

import numpy as np
import pytest
import uproot

from particleforge.edm4hep.reader import read_chunks
from particleforge.errors import UserError

from .edm4hep_events import IDS, leaves_of, write_leaves
from .test_edm4hep_layouts import LINKS, NAMES, members_that_tell_types, read, sound_events, write


def test_candidate_links_give_truth_to_tracks_and_clusters(tmp_path):
    leaves = {
        leaf: values
        for leaf, values in leaves_of(sound_events()).items()
        if not any(link in leaf for link in LINKS)
    }
    leaves["Reco.weight"] = ([[0.0, 0.0, 0.25], [0.0]], np.float32)
    for end, target, index in (
        ("from", "PandoraPFOs", [[0, 1, 1], [3]]),
        ("to", "MCParticles", [[2, 3, 4], [7]]),
    ):
        leaves[f"_Reco_{end}.index"] = (index, np.int32)
        leaves[f"_Reco_{end}.collectionID"] = ([[IDS[target]] * len(i) for i in index], np.uint32)
    write_leaves(tmp_path / "events.root", leaves, modern=True)
    raw = read(tmp_path / "events.root", NAMES.model_copy(update={"candidate_links": ("Reco",)}))
    found = {
        key: sorted(
            zip(*(raw[f"{key}.{end}"].tolist() for end in ("left", "right", "weight")), strict=True)
        )
        for key in ("track_links", "cluster_links")
    }
    energy = float(raw["particles.energy"][0])  # of every particle
    # the second event's tracks start at 3, its clusters at 4, its particles at 6
    assert found["track_links"] == [(0, 2, 1.0), (1, 4, 0.25), (6, 13, 1.0)]
    first = [(0, 2, energy), (1, 2, energy), (1, 4, 0.25), (2, 4, 0.25)]
    assert found["cluster_links"] == [*first, (7, 13, energy), (8, 13, energy)]


@pytest.mark.parametrize(
    "weights",
    [[[0.0, 0.0], [0.0]], [[1.0, 1.0], [1.0]]],
    ids=["never filled", "as podio makes links"],
)
def test_clusters_of_candidate_links_without_weights_are_shared_by_energy(tmp_path, weights):
    leaves = {
        leaf: values
        for leaf, values in leaves_of(sound_events()).items()
        if not any(link in leaf for link in LINKS)
    }
    leaves["MCParticles.mass"] = (
        [[float(i) for i in range(len(event))] for event in leaves["MCParticles.mass"][0]],
        np.float64,
    )
    leaves["Reco.weight"] = (weights, np.float32)
    for end, target, index in (
        ("from", "PandoraPFOs", [[0, 0], [3]]),
        ("to", "MCParticles", [[2, 3], [7]]),
    ):
        leaves[f"_Reco_{end}.index"] = (index, np.int32)
        leaves[f"_Reco_{end}.collectionID"] = ([[IDS[target]] * len(i) for i in index], np.uint32)
    write_leaves(tmp_path / "events.root", leaves, modern=True)
    raw = read(tmp_path / "events.root", NAMES.model_copy(update={"candidate_links": ("Reco",)}))
    energy = raw["particles.energy"]
    assert energy[2] != energy[3]
    assert raw["cluster_links.weight"].tolist() == energy[raw["cluster_links.right"]].tolist()
    assert set(raw["track_links.weight"].tolist()) == {1.0}


def leaves_with_simulated_hits(particle):
    """Return leaves without links to particles, and the IDs of their collections.

    A track has three hits, one of them not in the file, and a calorimeter hit two particles, which
    are called ``particle`` there.
    """
    event = sound_events()[0]
    leaves = {
        leaf: values
        for leaf, values in leaves_of([event]).items()
        if not any(link in leaf for link in LINKS)
    }
    ids = IDS | {
        name: 100 + i
        for i, name in enumerate(
            ("Pixels", "SimPixels", "SimECAL", "Contributions", "PixelLinks", "ECALLinks")
        )
    }

    def references(leaf, pairs):
        leaves[f"{leaf}.index"] = ([[index for _, index in pairs]], np.int32)
        leaves[f"{leaf}.collectionID"] = ([[ids[name] for name, _ in pairs]], np.uint32)

    leaves["Pixels.cellID"] = leaves["SimPixels.cellID"] = ([[1, 2]], np.uint64)
    leaves["SiTracks_Refitted.trackerHits_begin"] = ([[0, 3, 3]], np.uint32)
    leaves["SiTracks_Refitted.trackerHits_end"] = ([[3, 3, 3]], np.uint32)
    references(
        "_SiTracks_Refitted_trackerHits", [("Pixels", 0), ("Pixels", 1), ("SomethingElse", 0)]
    )
    leaves["PixelLinks.weight"] = ([[1.0, 1.0, 1.0]], np.float32)
    references("_PixelLinks_from", [("Pixels", 0), ("Pixels", 1), ("Pixels", 1)])
    references("_PixelLinks_to", [("SimPixels", 0), ("SimPixels", 0), ("SimPixels", 1)])
    leaves["SimPixels.pathLength"] = ([[0.05, 0.05]], np.float32)
    references(f"_SimPixels_{particle}", [("MCParticles", 4), ("MCParticles", 5)])
    leaves["ECALLinks.weight"] = ([[1.0]], np.float32)
    references("_ECALLinks_from", [("ECALBarrel", 2)])
    references("_ECALLinks_to", [("SimECAL", 0)])
    leaves["SimECAL.cellID"] = ([[9]], np.uint64)
    leaves["SimECAL.contributions_begin"] = ([[0]], np.uint32)
    leaves["SimECAL.contributions_end"] = ([[3]], np.uint32)
    references("_SimECAL_contributions", [("Contributions", i) for i in range(3)])
    leaves["Contributions.energy"] = ([[0.5, 0.25, 2.0]], np.float32)
    leaves["Contributions.stepPosition.x"] = ([[1500.0, 1500.0, 1500.0]], np.float32)
    references(
        f"_Contributions_{particle}", [("MCParticles", 1), ("MCParticles", 1), ("MCParticles", 3)]
    )
    return leaves, ids


@pytest.mark.parametrize("particle", ["particle", "MCParticle"])
def test_truth_of_tracks_and_hits_from_simulated_hits(tmp_path, particle):
    leaves, ids = leaves_with_simulated_hits(particle)
    write(tmp_path / "events.root", leaves, ntuple=True, table="0.99", ids=ids)
    names = NAMES.model_copy(
        update={"tracker_hit_sim_links": ("PixelLinks", "Absent"), "hit_sim_links": ("ECALLinks",)}
    )
    raw = read(tmp_path / "events.root", names)
    assert raw["linked_hits"]
    np.testing.assert_array_equal([raw["hit_links.left"], raw["hit_links.right"]], [[2, 2], [1, 3]])
    np.testing.assert_array_equal(raw["hit_links.weight"], [0.75, 2.0])
    np.testing.assert_array_equal(
        [raw["track_links.left"], raw["track_links.right"]], [[0, 0], [4, 5]]
    )
    np.testing.assert_allclose(raw["track_links.weight"], [1.5 / 3, 0.5 / 3])
    write(
        tmp_path / "skim.root",
        leaves | members_that_tell_types(leaves),
        ntuple=True,
        table="none",
        ids=ids,
    )
    with pytest.raises(
        UserError,
        match=(
            r"truth comes from simulated hits \(ECALLinks, PixelLinks\), .*; use the file as podio"
            r" wrote it"
        ),
    ):
        read(tmp_path / "skim.root", names)
    write_leaves(
        tmp_path / "empty.root",
        {leaf: ([], dtype) for leaf, (_, dtype) in leaves.items()},
        modern=True,
    )
    with (
        uproot.open(tmp_path / "empty.root") as file,
        uproot.recreate(tmp_path / "nothing.root") as skim,
    ):
        skim.mkrntuple("events", file["events"].arrays())
    assert list(read_chunks(tmp_path / "nothing.root", names, 10)) == []


def test_clusters_without_position_get_that_of_their_hits(tmp_path):
    event = sound_events()[0]
    event.hits["ECALBarrel"][0]["energy"], event.hits["ECALBarrel"][1]["energy"] = 1.0, 3.0
    event.clusters[0] |= {
        "position": [0.0, 0.0, 0.0],
        "hits": [("ECALBarrel", 0), ("ECALBarrel", 1)],
    }
    write_leaves(tmp_path / "events.root", leaves_of([event]), modern=True)
    raw = read(tmp_path / "events.root")
    np.testing.assert_allclose([raw[f"clusters.{axis}"][0] for axis in "xyz"], [1500.0, 7.5, 0.0])
    np.testing.assert_array_equal(raw["clusters.z"][1:], [1, 2, 3])
