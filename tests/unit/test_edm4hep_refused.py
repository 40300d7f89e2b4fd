"""What an EDM4hep file must have, and what is said where it has not."""

import numpy as np
import pytest

from particleforge.config.load import load_detector
from particleforge.edm4hep.leaves import NTupleLeaves
from particleforge.edm4hep.reader import read_chunks
from particleforge.errors import UserError
from particleforge.inputs.inspection import inspect_file

from .dataset_settings import CONFIG
from .edm4hep_events import HIT_COLLECTIONS, leaves_of, write_events, write_leaves
from .real_files import real_file
from .test_edm4hep_layouts import LINKS, NAMES, sound_events
from .test_edm4hep_versions import CLIC, linked, read_leaves


def test_hit_relations_to_simulated_hits_that_are_gone_are_no_truth(tmp_path):
    """Reduced files keep the relations but drop what they mean.

    The links of clusters still tell.
    """
    leaves = {
        leaf: values
        for leaf, values in leaves_of(sound_events()).items()
        if "CalohitMCTruthLink" not in leaf
    }
    linked(leaves, "RelationCaloHit", [[(0, 0, 1.0)], []])
    linked(leaves, "VXDTrackerHitRelations", [[(0, 0, 1.0)], []])
    raw = read_leaves(tmp_path, leaves, CLIC.collections)
    assert not raw["truth_from_hits"]
    assert len(raw["cluster_links.left"]) == 12
    assert len(raw["track_links.left"]) == 9


SUBSET = {
    "PandoraClusters_objIdx.index": ([[0]] * 2, np.int32),
    "PandoraClusters_objIdx.collectionID": ([[11]] * 2, np.uint32),
}


@pytest.mark.fault("missing branch")
@pytest.mark.parametrize(
    ("gone", "more", "said"),
    [
        (
            ("MCParticles.", "_MCParticles_"),
            {},
            "no collection MCParticles or MCParticle or MCParticlesSkimmed; name that of type",
        ),
        (
            ("PandoraClusters.", "_PandoraClusters_"),
            SUBSET,
            "PandoraClusters is a subset collection, a list of some objects of another",
        ),
        (
            ("PandoraClusters", "_PandoraClusters", "SiTracks", "_SiTracks", *HIT_COLLECTIONS),
            {},
            "neither SiTracks_Refitted nor Pandora",
        ),
        (
            ("_MCParticles_parents.",),
            {},
            "branch _MCParticles_parents.index is missing; truth needs the particles' parents",
        ),
        (
            ("_SiTracks_Refitted_trackStates.",),
            {},
            "branch _SiTracks_Refitted_trackStates is missing; without it tracks have no momentum",
        ),
        (
            ("PandoraClusters.position.x",),
            {},
            "branch PandoraClusters.position.x is missing; check the file and the detector's",
        ),
        (
            ("_CalohitMCTruthLink_to.",),
            {},
            "link CalohitMCTruthLink lacks its ends (_CalohitMCTruthLink_from.index",
        ),
        (
            tuple(f"{edge}{link}" for link in LINKS for edge in ("", "_")),
            {},
            "no truth link of what the file holds to particles (known: Calohit",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_is_one_line_with_a_remedy(tmp_path, gone, more, said):
    leaves = {
        leaf: values
        for leaf, values in leaves_of(sound_events()).items()
        if not leaf.startswith(gone)
    }
    write_leaves(tmp_path / "events.root", leaves | more, modern=True)
    with pytest.raises(UserError) as caught:
        list(read_chunks(tmp_path / "events.root", CLIC.collections, 10))
    assert str(caught.value).startswith(f"{tmp_path}/events.root: {said}")
    assert "\n" not in str(caught.value)
    assert inspect_file(tmp_path / "events.root", CLIC).refused == str(caught.value)


@pytest.mark.fault("damaged bytes in a ROOT file")
@pytest.mark.parametrize("offsets", [(0, 9, 4), (0, 2, 99)])
def test_lists_of_events_that_fall_or_end_beyond_their_values(tmp_path, monkeypatch, offsets):
    """Pages of an RNTuple's offsets have checksums, at which uproot does not look."""
    write_events(tmp_path / "events.root", sound_events(), modern=True)
    read = NTupleLeaves.read

    def torn(leaves, leaf, start, stop):
        sound, values = read(leaves, leaf, start, stop)
        return (np.array(offsets) if leaf == "MCParticles.mass" else sound), values

    monkeypatch.setattr(NTupleLeaves, "read", torn)
    with pytest.raises(UserError, match=r"branch MCParticles.mass: lists of events end before"):
        list(read_chunks(tmp_path / "events.root", CLIC.collections, 10))


@pytest.mark.fault("damaged bytes in a ROOT file")
@pytest.mark.parametrize(
    ("modern", "end"),
    [
        *((True, f"_CalohitMCTruthLink_{end}") for end in ("from", "to")),
        *((False, f"CalohitMCTruthLink#{end}") for end in (0, 1)),
    ],
)
def test_ends_of_links_that_lie_in_other_events(tmp_path, modern, end):
    """As many in all, but not event by event, so that links of one would point into another."""
    leaves = leaves_of(sound_events(), modern)
    for member in ("index", "collectionID"):
        leaf = f"{end}.{member}"
        (first, second), dtype = leaves[leaf]
        leaves[leaf] = ([[*first, second[0]], second[1:]], dtype)
    write_leaves(tmp_path / "events.root", leaves, modern)
    with pytest.raises(UserError, match=rf"branch {end}.index and what it belongs to"):
        list(read_chunks(tmp_path / "events.root", CLIC.collections, 10))


@pytest.mark.fault("missing branch")
def test_objects_that_were_not_split(tmp_path):
    """A branch without leaves holds objects that only ROOT with their classes reads."""
    leaves = {
        leaf: values
        for leaf, values in leaves_of(sound_events(), modern=False).items()
        if not leaf.startswith("MCParticles.")
    }
    leaves["MCParticles"] = ([[1.0], [1.0]], np.float32)
    write_leaves(tmp_path / "events.root", leaves, modern=False)
    with pytest.raises(
        UserError, match="MCParticles is stored as whole objects; write the file with podio"
    ):
        list(read_chunks(tmp_path / "events.root", NAMES, 10))


def test_truth_through_candidates_is_that_of_the_links():
    """In full simulation, links of candidates hold what those of tracks and clusters do, to a
    permil, for all that candidates use.
    """
    path = real_file("cld_hbb_full_rec_1ev.edm4hep.root")
    names = load_detector(CONFIG, "cld").collections
    given = {
        "track_links": (),
        "tracker_hit_sim_links": (),
        "cluster_links": (),
        "hit_links": (),
        "hit_sim_links": (),
    }
    (stored,), (found,) = (
        list(read_chunks(path, these, 10)) for these in (names, names.model_copy(update=given))
    )
    for kind, used in (
        ("track_links", stored.candidate_tracks.right),
        ("cluster_links", stored.candidate_clusters.right),
    ):
        links, derived = getattr(stored, kind), getattr(found, kind)
        expected = {
            (left, right): weight
            for left, right, weight in zip(
                links.left.tolist(), links.right.tolist(), links.weight.tolist(), strict=True
            )
            if left in used and weight >= 0.002
        }
        there = dict(
            zip(
                zip(derived.left.tolist(), derived.right.tolist(), strict=True),
                derived.weight.tolist(),
                strict=True,
            )
        )
        assert len(expected) > 15
        assert {key: there.get(key, 0.0) for key in expected} == pytest.approx(
            expected, abs=0.0011
        ), kind
