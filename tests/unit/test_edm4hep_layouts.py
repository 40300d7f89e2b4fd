"""The EDM4hep reader: the same events in the layouts of every generation, alternatives, groups, and
links derived from other links.
"""

import awkward as ak
import numpy as np
import pytest
import uproot

from particleforge.config.collections import CollectionsConfig
from particleforge.edm4hep.identities import collection_id
from particleforge.edm4hep.raw_events import Pairs, Table
from particleforge.edm4hep.reader import read_chunks
from particleforge.errors import UserError

from .edm4hep_events import HIT_COLLECTIONS, IDS, Event, leaves_of, random_event, write_leaves

NAMES = CollectionsConfig()
LINKS = ("SiTracksMCTruthLink", "ClusterMCTruthLink", "CalohitMCTruthLink")
NEW_NAMES = {
    "SiTracksMCTruthLink": "SiTracksMCParticleLinks",
    "ClusterMCTruthLink": "ClusterMCParticleLinks",
}
NEW_NAMES |= {"CalohitMCTruthLink": "CaloHitMCParticleLinks"}
TABLES = {"2021": ("metadata", "CollectionIDs", "m_names", "m_collectionIDs"), "none": None}
TABLES |= {"0.99": ("podio_metadata", "events___idTable", "m_names", "m_collectionIDs")}
TABLES |= {"1.7": ("podio_metadata", "events___CollectionTypeInfo", "name", "collectionID")}


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(5)
    return [random_event(rng, *(int(n) for n in rng.integers(0, 7, 4))) for _ in range(20)] + [
        Event()
    ]


def flat(raw):
    """Return every number of a chunk of events by name."""
    out = {}
    for name, value in vars(raw).items():
        if isinstance(value, Table):
            out |= {f"{name}.{column}": values for column, values in value.columns.items()} | {
                f"{name}.offsets": value.offsets
            }
        elif isinstance(value, Pairs):
            out |= {f"{name}.{key}": values for key, values in vars(value).items()}
        else:
            out[name] = value
    return out


def read(path, names=NAMES, chunk=1000):
    (raw,) = read_chunks(path, names, chunk)
    return flat(raw)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def renamed(leaves, old, new):
    """Rename what leaves start with."""
    return {
        new + leaf[len(old) :] if leaf.startswith(old) else leaf: values
        for leaf, values in leaves.items()
    }


def with_ids(leaves, ids):
    """Replace collection IDs."""
    numbers = {old: ids[name] for name, old in IDS.items()}
    return {
        leaf: (
            ([[numbers[i] for i in values] for values in content], np.int64)
            if leaf.endswith("collectionID")
            else (content, dtype)
        )
        for leaf, (content, dtype) in leaves.items()
    }


def write(path, leaves, ntuple, table, ids=IDS):
    """Write leaves into a TTree or an RNTuple with one generation's table of IDs."""
    write_leaves(path, leaves, modern=ntuple)
    # once more, as the helper knows one kind of table per kind of tree
    with uproot.open(path) as file:
        arrays = file["events"].arrays()
    with uproot.recreate(path) as file:
        if ntuple:
            file.mkrntuple("events", {name: arrays[name] for name in arrays.fields})
        else:
            file.mktree(
                "events",
                {
                    name: arrays[name].type.content
                    for name in arrays.fields
                    if not name.startswith("n")
                },
            )
            file["events"].extend(
                {name: arrays[name] for name in arrays.fields if not name.startswith("n")}
            )
        if TABLES[table]:
            tree, stem, names, numbers = TABLES[table]
            content = ak.zip(
                {names: ak.Array([list(ids)]), numbers: ak.Array([list(ids.values())])},
                depth_limit=1,
            )
            file.mkrntuple(tree, {stem: content})


@pytest.mark.parametrize("table", ["2021", "0.99", "1.7", "none"])
@pytest.mark.parametrize("generation", ["2021", "0.99 rec/sim", "1.x", "1.x RNTuple"])
def test_every_layout_gives_the_same_events(tmp_path, events, generation, table):
    write_leaves(tmp_path / "reference.root", leaves_of(events), modern=True)
    leaves = leaves_of(events, modern=generation != "2021")
    ids = IDS
    if generation == "0.99 rec/sim":
        for link in LINKS:
            leaves = renamed(
                renamed(leaves, f"_{link}_from.", f"_{link}_rec."), f"_{link}_to.", f"_{link}_sim."
            )
    if generation.startswith("1.x"):
        for old, new in NEW_NAMES.items():
            leaves = renamed(renamed(leaves, old, new), f"_{old}", f"_{new}")
    if table == "none":  # then IDs must be hashes of names
        ids = {name: collection_id(name) for name in IDS}
        leaves = with_ids(leaves, ids)
    write(tmp_path / "events.root", leaves, "RNTuple" in generation, table, ids)
    assert_same(read(tmp_path / "events.root"), read(tmp_path / "reference.root"))


def sound_events():
    """Return events whose references all point somewhere, with more clusters than tracks than
    candidates.
    """
    particle = {"pdg": 22, "status": 1, "charge": 0, "mass": 0.0, "p": [1.0, 0.0, 2.0]}
    events = []
    for n in (1, 2):
        event = Event(particles=[particle | {"parents": [0] if i else []} for i in range(6 * n)])
        event.hits["ECALBarrel"] = [
            {"energy": 0.5 + i, "position": [1500.0, 10.0 * i, 0.0]} for i in range(5 * n)
        ]
        hits = [[("ECALBarrel", i)] for i in range(5 * n)]
        event.clusters = [
            {"energy": 2.0 + i, "position": [1500.0, 0.0, i], "hits": hits[i]} for i in range(4 * n)
        ]
        event.tracks = [
            {"omega": 1e-3, "phi": 0.1 * i, "tan_lambda": 0.5, "location": 1} for i in range(3 * n)
        ]
        event.hit_links = [(("ECALBarrel", i), i, 1.0) for i in range(5 * n)]
        event.cluster_links = [(i, i + 1, 1.0) for i in range(4 * n)]
        event.track_links = [(i, i + 2, 1.0) for i in range(3 * n)]
        event.candidates = [
            {
                "pdg": 22,
                "charge": 0.0,
                "energy": 5.0,
                "p": [5.0, 0.0, 0.0],
                "tracks": [i],
                "clusters": [i, i + 1],
            }
            for i in range(2 * n)
        ]
        events.append(event)
    return events


def members_that_tell_types(leaves):
    """Return members by which types of collections are told where there is no table of IDs."""
    like = {
        "PandoraClusters.iTheta": ("PandoraClusters.energy", np.float32),
        "PandoraPFOs.goodnessOfPID": ("PandoraPFOs.energy", np.float32),
        "ECALBarrel.cellID": ("ECALBarrel.energy", np.uint64),
    }
    return {
        leaf: ([[0] * len(event) for event in leaves[other][0]], dtype)
        for leaf, (other, dtype) in like.items()
    }


def test_small_ids_without_table_follow_from_the_references(tmp_path):
    leaves = leaves_of(sound_events())
    leaves |= members_that_tell_types(leaves)
    write(tmp_path / "table.root", leaves, ntuple=False, table="0.99")
    write(tmp_path / "events.root", leaves, ntuple=False, table="none")
    expected = read(tmp_path / "table.root")
    assert len(expected["cluster_hits.left"]) == 12
    assert_same(read(tmp_path / "events.root"), expected)


@pytest.mark.fault("missing branch")
def test_ids_that_could_mean_two_collections_are_refused(tmp_path):
    leaves = leaves_of(sound_events())
    leaves["PandoraClusters.iTheta"] = leaves["OtherClusters.iTheta"] = (
        leaves["PandoraClusters.energy"][0],
        np.float32,
    )
    write(tmp_path / "events.root", leaves, ntuple=False, table="none")
    with pytest.raises(
        UserError, match=r"events\.root: no table of collection IDs.* \[.*\] mean does not follow"
    ):
        read(tmp_path / "events.root")


def test_collections_read_as_one_keep_rows_and_relations(tmp_path, events):
    """Clusters and tracks split over two collections are those of one, in the order of the
    collections within each event.
    """
    write_leaves(tmp_path / "one.root", leaves_of(events), modern=True)
    one = read(tmp_path / "one.root")
    twice = leaves_of(events)
    for name in ("SiTracks_Refitted", "PandoraClusters"):
        for leaf in [
            leaf
            for leaf in twice
            if leaf.lstrip("_").startswith(f"{name}.") or leaf.startswith(f"_{name}_")
        ]:
            twice[leaf.replace(name, "SomethingElse" if name.startswith("Si") else "Copied")] = (
                twice[leaf]
            )
    write_leaves(tmp_path / "two.root", twice, modern=True)
    names = NAMES.model_copy(
        update={
            "tracks": "SiTracks_Refitted + SomethingElse",
            "clusters": ("Absent", "Copied + PandoraClusters"),
        }
    )
    two = read(tmp_path / "two.root", names)
    n_tracks, n_clusters = np.diff(one["tracks.offsets"]), np.diff(one["clusters.offsets"])
    np.testing.assert_array_equal(np.diff(two["tracks.offsets"]), 2 * n_tracks)
    np.testing.assert_array_equal(np.diff(two["clusters.offsets"]), 2 * n_clusters)
    event = np.repeat(np.arange(len(n_clusters)), n_clusters)
    second = (
        two["clusters.offsets"][event]
        + n_clusters[event]
        + np.arange(len(event))
        - one["clusters.offsets"][event]
    )
    np.testing.assert_array_equal(two["clusters.energy"][second], one["clusters.energy"])
    # links name the second alone
    np.testing.assert_array_equal(two["cluster_links.left"], second[one["cluster_links.left"]])
    np.testing.assert_array_equal(
        np.sort(two["cluster_hits.right"]), np.sort(np.repeat(one["cluster_hits.right"], 2))
    )
    first = two["tracks.offsets"][np.repeat(np.arange(len(n_tracks)), n_tracks)] + np.concatenate(
        [np.arange(n) for n in n_tracks]
    )
    np.testing.assert_array_equal(two["track_links.left"], first[one["track_links.left"]])
    omega = np.full(len(two["tracks.chi2"]), np.nan)
    omega[two["track_states.left"]] = two["states.omega"][two["track_states.right"]]
    np.testing.assert_array_equal(omega[first], one["states.omega"][one["track_states.right"]])


def test_first_alternative_that_the_file_has_is_read(tmp_path, events):
    leaves = leaves_of(events)
    write_leaves(tmp_path / "events.root", leaves, modern=True)
    given = {
        "particles": ("Particle", "MCParticles"),
        "ecal_hits": (("EcalHits", "ECALBarrel"),),
        "candidates": ("PFOs", "PandoraPFOs"),
    }
    assert_same(
        read(tmp_path / "events.root", NAMES.model_copy(update=given)),
        read(tmp_path / "events.root"),
    )


@pytest.mark.parametrize(
    "spelling",
    ["in the track", "quantities of the track", "beside", "beside, another name", "nowhere"],
)
def test_specific_ionisation_wherever_it_is(tmp_path, spelling):
    leaves, names = leaves_of(sound_events()), NAMES
    values = [[1.5, 2.5, 3.5], [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]]
    counts = [3, 6]
    if spelling == "in the track":
        leaves["SiTracks_Refitted.dEdx"] = (values, np.float32)
    elif spelling == "quantities of the track":  # two each, the first counts
        leaves["_SiTracks_Refitted_dxQuantities.value"] = (
            [[x for v in event for x in (v, -1.0)] for event in values],
            np.float32,
        )
        leaves["SiTracks_Refitted.dxQuantities_begin"] = (
            [[2 * i for i in range(n)] for n in counts],
            np.uint32,
        )
        leaves["SiTracks_Refitted.dxQuantities_end"] = (
            [[2 * i + 2 for i in range(n)] for n in counts],
            np.uint32,
        )
    elif spelling.startswith("beside"):
        beside = "SiTracks_Refitted_dQdx" if spelling == "beside" else "Ionisation"
        names = (
            names
            if spelling == "beside"
            else names.model_copy(update={"dqdx": ("Absent", "Ionisation")})
        )
        leaves[f"{beside}.dQdx.value"] = ([event[::-1] for event in values], np.float32)
        leaves[f"_{beside}_track.index"] = ([list(range(n))[::-1] for n in counts], np.int32)
        leaves[f"_{beside}_track.collectionID"] = (
            [[IDS["SiTracks_Refitted"]] * n for n in counts],
            np.uint32,
        )
    write_leaves(
        tmp_path / "events.root",
        leaves,
        modern=False if "." in spelling else spelling != "beside, another name",
    )
    expected = [0.0] * 9 if spelling == "nowhere" else values[0] + values[1]
    np.testing.assert_array_equal(read(tmp_path / "events.root", names)["tracks.dedx"], expected)


def test_hit_collections_are_one_table(tmp_path, events):
    write_leaves(tmp_path / "events.root", leaves_of(events), modern=True)
    raw = read(tmp_path / "events.root")
    expected = [
        (hit["energy"], system)
        for event in events
        for system, name in enumerate(HIT_COLLECTIONS)
        for hit in event.hits[name]
    ]
    np.testing.assert_array_equal(raw["hits.energy"], [energy for energy, _ in expected])
    np.testing.assert_array_equal(raw["hits.system"], [system for _, system in expected])
