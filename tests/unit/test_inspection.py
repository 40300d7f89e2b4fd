"""``particleforge inspect``: what it says about files of both generations, incomplete ones, and
what is no such file.
"""

import json

import awkward as ak
import numpy as np
import pytest
import uproot
from typer.testing import CliRunner

from particleforge.cli import app
from particleforge.config.load import load_detector
from particleforge.errors import UserError
from particleforge.inputs.inspection import inspect_file

from .dataset_settings import CONFIG, NO_LIMITS
from .edm4hep_events import IDS, leaves_of, random_event, write_leaves

DETECTOR = load_detector(CONFIG, "clic")
LINKS = ("SiTracksMCTruthLink", "ClusterMCTruthLink", "CalohitMCTruthLink")


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(1)
    return [random_event(rng, 5, 3, 4, 6) for _ in range(8)]


def inspect(path, leaves, modern=True):
    write_leaves(path, leaves, modern)
    return inspect_file(path, DETECTOR)


@pytest.mark.parametrize("modern", [True, False])
def test_collections_sizes_and_meanings(tmp_path, events, modern):
    found = inspect(tmp_path / "events.root", leaves_of(events, modern), modern)
    assert (found.format, found.n_events, found.tree, found.refused) == (
        "EDM4hep",
        8,
        "RNTuple" if modern else "TTree",
        None,
    )
    sizes = {collection.name: collection.mean_size for collection in found.collections}
    assert {name: sizes[name] for name in ("MCParticles", "SiTracks_Refitted", "ECALBarrel")} == {
        "MCParticles": 5,
        "SiTracks_Refitted": 3,
        "ECALBarrel": 6,
    }
    assert found.mapped["ecal_hits"] == ["ECALBarrel"]
    assert found.mapped["hit_links"] == ["CalohitMCTruthLink"]
    assert (found.read["tracks"], found.read["clusters"], found.read["hits"]) == (24, 32, 144)
    without_state = sum(track["location"] == 0 for event in events for track in event.tracks)
    assert found.missing == [
        (
            f"{without_state} tracks have no state at the interaction point: they are left out"
            " (collections.track_state_at_ip)"
        ),
        "no dE/dx: feature dedx is 0",
        "no track states at the calorimeter: eta_calo and phi_calo repeat eta and phi",
        "tracks name no hits: feature n_hits is 0",
        (
            f"{found.read['references_dropped']} references point nowhere or at what is not read:"
            " what they tell is lost (pile-up, or hits left out)"
        ),
    ]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("EventHeader.", "no EventHeader: events are numbered by their position, weights are 1"),
        (
            ("SiTracks_Refitted.", "_SiTracks_Refitted_"),
            "no tracks: every target stands on a cluster",
        ),
        (
            ("PandoraClusters.", "_PandoraClusters_"),
            "no clusters: neutral particles find no element",
        ),
        ("PandoraPFOs.", "no candidates: no baseline to compare with"),
        ("SiTracksMCTruthLink.", "no track links: no track gets a target"),
        ("CalohitMCTruthLink.", "no hits with links: cluster truth from cluster links"),
        (
            ("CalohitMCTruthLink.", "ClusterMCTruthLink."),
            "no hits with links: no cluster gets a target",
        ),
        (
            ("ECALBarrel.", "HCALBarrel.", "MUON."),
            "no calorimeter hits: n_hits, widths, shape and depth of clusters are 0",
        ),
    ],
)
def test_what_is_missing_is_told_with_its_cost(tmp_path, events, missing, said):
    found = inspect(
        tmp_path / "events.root",
        {
            leaf: values
            for leaf, values in leaves_of(events).items()
            if not leaf.startswith(missing)
        },
    )
    assert found.refused is None
    assert any(line.startswith(said) for line in found.missing)


def test_tracks_without_states_are_not_offered(tmp_path, events):
    """edm4eic has tracks with momentum and charge in place of states."""
    leaves = leaves_of(events)
    for leaf in [leaf for leaf in leaves if "SiTracks_Refitted" in leaf]:
        values = leaves.pop(leaf)
        if "trackStates" not in leaf:
            leaves[leaf.replace("SiTracks_Refitted", "CKFTracks")] = values
    stated = leaves_of(events)
    leaves |= {
        leaf.replace("SiTracks_Refitted", "OtherTracks"): values
        for leaf, values in stated.items()
        if "SiTracks_Refitted" in leaf
    }
    path = tmp_path / "events.root"
    write_leaves(path, leaves)
    types = {"CKFTracks": "edm4eic::Track", "OtherTracks": "edm4hep::Track"}
    with uproot.update(path) as file:
        records = {"collectionID": [1, 2], "name": list(types), "dataType": list(types.values())}
        info = ak.zip({key: ak.Array([values]) for key, values in records.items()})
        ids = {"m_names": ak.Array([list(IDS)]), "m_collectionIDs": ak.Array([list(IDS.values())])}
        file.mkrntuple(
            "podio_metadata",
            {
                "events___CollectionTypeInfo": info,
                "events___idTable": ak.zip(ids, depth_limit=1),
            },
        )
    found = inspect_file(path, DETECTOR)
    assert found.fitting["tracks"] == ["OtherTracks"]
    assert "no states of tracks in CKFTracks: they are not read" in found.missing
    named = DETECTOR.model_copy(
        update={"collections": DETECTOR.collections.model_copy(update={"tracks": "CKFTracks"})}
    )
    refused = inspect_file(path, named).refused
    assert refused is not None
    assert "branch _CKFTracks_trackStates is missing; without it tracks have no momentum" in refused


@pytest.mark.fault("missing branch")
def test_an_unusable_file_is_shown_with_the_reason(tmp_path, events):
    leaves = {
        leaf: values
        for leaf, values in leaves_of(events).items()
        if not any(link in leaf for link in LINKS)
    }
    write_leaves(tmp_path / "events.root", leaves)
    arguments = [
        "inspect",
        str(tmp_path / "events.root"),
        "--detector",
        "clic",
        "--config",
        str(CONFIG),
    ]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[-1].startswith(
        f"no dataset can be built: {tmp_path}/events.root: no truth link"
    )
    assert "  MCParticles " in shown.stdout
    assert shown.stdout.splitlines()[-2] == (
        "it can be reconstructed, which needs no truth (reconstruct-events, target apply):"
        f" {sum(len(e.tracks) for e in events)} tracks, {sum(len(e.clusters) for e in events)}"
        f" clusters, {sum(len(hits) for e in events for hits in e.hits.values())} hits"
    )
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(as_json.stdout)["refused"] == shown.stdout.splitlines()[-1].removeprefix(
        "no dataset can be built: "
    )


LOOSE = [f"dataset.{name}={limit:g}" for name, limit in NO_LIMITS.items()]


def status(command, path, *settings):
    """Return the exit status of inspect, or of the build that it predicts, and what was said."""
    arguments = [command, "--detector", "clic", "--config-dir", str(CONFIG)]
    arguments += [word for setting in settings for word in ("--set", setting)]
    if command == "inspect":
        arguments.append(str(path))
    else:
        arguments += ["--set", "simulation.backend=files", "--input", str(path)]
        arguments += ["--output", str(path.with_suffix(".parquet"))]
    ended = CliRunner().invoke(app, arguments)
    said = str(ended.exception) if isinstance(ended.exception, UserError) else ended.stdout
    return ended.exit_code, said


def gun(events):
    """Return leaves of a gun's shots: the same particle each time, and no header."""
    for event in events:
        event.particles = events[0].particles
    leaves = leaves_of(events)
    return {leaf: values for leaf, values in leaves.items() if not leaf.startswith("EventHeader")}


def no_state(events):
    """Return leaves of tracks whose states are at no location that is read."""
    leaves = leaves_of(events)
    rows, dtype = leaves["_SiTracks_Refitted_trackStates.location"]
    leaves["_SiTracks_Refitted_trackStates.location"] = ([[0 for _ in row] for row in rows], dtype)
    return leaves


@pytest.mark.fault("file that only the whole stage refuses")
@pytest.mark.parametrize(
    ("make", "settings", "refused"),
    [
        (leaves_of, LOOSE, None),
        (leaves_of, [], "tracks are unusable"),
        (gun, LOOSE, "events occur twice, with the same numbers and particles"),
        (
            no_state,
            [*LOOSE, "dataset.dropped_objects_fraction_max=0.5"],
            "24 have no state at the interaction point",
        ),
        (leaves_of, [*LOOSE, "dataset.dropped_energy_fraction_max=0"], "finds no element"),
    ],
)
def test_the_status_of_inspect_is_that_of_the_build(tmp_path, make, settings, refused):
    rng = np.random.default_rng(1)
    path = tmp_path / "events.root"
    write_leaves(path, make([random_event(rng, 5, 3, 4, 6) for _ in range(8)]))
    predicted, text = status("inspect", path, *settings)
    ended, said = status("build-dataset", path, *settings)
    assert (predicted, ended) == ((0, 0) if refused is None else (1, 1))
    assert "the first 8 events as the dataset stage reads them: " in text
    last = text.splitlines()[-1]
    assert last.startswith("no dataset can be built") == (refused is not None)
    if refused is not None:
        assert refused in said
        assert last == f"no dataset can be built: {said}"


def test_inspect_tries_all_events_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("particleforge.inputs.inspection.EVENTS_LOOKED_AT", 1)
    rng = np.random.default_rng(1)
    path = tmp_path / "events.root"
    write_leaves(path, gun([random_event(rng, 5, 3, 4, 6) for _ in range(2)]))
    loose = [word for setting in LOOSE for word in ("--set", setting)]
    arguments = ["inspect", str(path), "--detector", "clic", "--config", str(CONFIG), *loose]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--all"]).exit_code == 1


@pytest.mark.fault("file that is not EDM4hep")
def test_what_is_no_file_of_events_is_one_line(tmp_path):
    (tmp_path / "page.root").write_text("<html></html>")
    with pytest.raises(UserError, match=r"page\.root: not a ROOT file but a web page"):
        inspect_file(tmp_path / "page.root", DETECTOR)
