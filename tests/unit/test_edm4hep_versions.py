"""What versions of podio and EDM4hep, reconstructions and converters did differently, one thing at
a time, and what no version explains.
"""

import awkward as ak
import numpy as np
import pytest
import uproot

from particleforge.config.load import load_detector
from particleforge.dataset.build import build_dataset
from particleforge.dataset.elements import valid_events
from particleforge.edm4hep.identities import collection_id
from particleforge.edm4hep.reader import read_chunks
from particleforge.inputs.inspection import inspect_file
from particleforge.tables.parquet import read_metadata, read_table

from .dataset_settings import CONFIG, dataset_settings
from .edm4hep_events import IDS, Event, leaves_of, random_event, write_events, write_leaves
from .test_edm4hep_layouts import (
    LINKS,
    NAMES,
    assert_same,
    read,
    renamed,
    sound_events,
    with_ids,
    write,
)

CLIC = load_detector(CONFIG, "clic")
MEMBERS = (
    "omega",
    "phi",
    "tanLambda",
    "location",
    "D0",
    "Z0",
    "referencePoint.x",
    "referencePoint.y",
    "referencePoint.z",
)


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(11)
    return [random_event(rng, *(int(n) for n in rng.integers(1, 7, 4))) for _ in range(6)] + [
        Event()
    ]


def pairs(raw, relation):
    return sorted(
        zip(
            *(raw[f"{relation}.{end}"].tolist() for end in ("left", "right", "weight")), strict=True
        )
    )


def linked(leaves, link, ends):
    """Add a link collection.

    ``ends`` are, for each event, (index of PandoraPFOs, index of MCParticles, weight).
    """
    leaves[f"{link}.weight"] = ([[weight for _, _, weight in event] for event in ends], np.float32)
    for number, (end, target) in enumerate((("from", "PandoraPFOs"), ("to", "MCParticles"))):
        leaves[f"_{link}_{end}.index"] = (
            [[one[number] for one in event] for event in ends],
            np.int32,
        )
        leaves[f"_{link}_{end}.collectionID"] = (
            [[IDS[target]] * len(event) for event in ends],
            np.uint32,
        )


def test_signed_ids(tmp_path, events):
    """podio 0.17 kept the 32 bits of a hash as a signed number, in tables and in references."""
    ids = {
        name: collection_id(name) - (1 << 32 if collection_id(name) >= 1 << 31 else 0)
        for name in IDS
    }
    assert min(ids.values()) < 0
    write_leaves(tmp_path / "reference.root", leaves_of(events), modern=True)
    write(
        tmp_path / "events.root",
        with_ids(leaves_of(events), ids),
        ntuple=False,
        table="0.99",
        ids=ids,
    )
    assert_same(read(tmp_path / "events.root"), read(tmp_path / "reference.root"))


def test_ntuples_before_podio_1_1_have_names_and_ids_as_lists(tmp_path, events):
    write_leaves(tmp_path / "reference.root", leaves_of(events), modern=True)
    arrays = uproot.open(tmp_path / "reference.root")["events"].arrays()
    metadata = {
        "events_collectionNames": list(IDS),
        "events___CollectionTypeInfo": [f"edm4hep::{name}Collection" for name in IDS],
    }
    with uproot.recreate(tmp_path / "events.root") as file:
        file.mkrntuple("events", {name: arrays[name] for name in arrays.fields})
        ids = np.array(list(IDS.values()), np.uint32)
        versions = {
            "PodioBuildVersion": np.array([[0, 99, 0]], np.uint16),
            "events___idTable": ids[None],
        }
        fields = {name: ak.Array([values]) for name, values in metadata.items()}
        file.mkrntuple(
            "podio_metadata",
            fields
            | {name: ak.Array(ak.Array(values).to_list()) for name, values in versions.items()},
        )
    assert_same(read(tmp_path / "events.root"), read(tmp_path / "reference.root"))
    found = inspect_file(tmp_path / "events.root", CLIC)
    assert found.versions == {"podio": "0.99.0"}
    assert {one.name: one.type for one in found.collections}["PandoraClusters"] == "PandoraClusters"


@pytest.mark.parametrize("ntuple", [True, False])
def test_types_of_numbers_may_differ(tmp_path, ntuple):
    """Momenta in single and double precision, event numbers with and without sign: what is read is
    the same.
    """
    leaves = leaves_of(sound_events())
    write(tmp_path / "one.root", leaves, ntuple, "0.99")
    other = {
        leaf: (values, np.float32 if dtype is np.float64 else dtype)
        for leaf, (values, dtype) in leaves.items()
    }
    other |= {
        f"EventHeader.{name}Number": (leaves[f"EventHeader.{name}Number"][0], np.int32)
        for name in ("run", "event")
    }
    other |= {"PandoraPFOs.energy": (leaves["PandoraPFOs.energy"][0], np.float64)}
    write(tmp_path / "other.root", other, ntuple, "0.99")
    assert_same(read(tmp_path / "other.root"), read(tmp_path / "one.root"))


def with_states(leaves, states):
    """Give each event tracks with these states, one list of (location, omega, x of the reference
    point) for each track.
    """
    name, stem = "SiTracks_Refitted", "_SiTracks_Refitted_trackStates"
    flat = [[state for track in event for state in track] for event in states]
    leaves |= {
        f"{stem}.{member}": ([[0.0] * len(event) for event in flat], np.float32)
        for member in MEMBERS
    }
    for number, (member, dtype) in enumerate(
        (("location", np.int32), ("omega", np.float32), ("referencePoint.x", np.float32))
    ):
        leaves[f"{stem}.{member}"] = ([[state[number] for state in event] for event in flat], dtype)
    ends = [np.cumsum([len(track) for track in event]).tolist() for event in states]
    leaves[f"{name}.trackStates_end"] = (ends, np.uint32)
    leaves[f"{name}.trackStates_begin"] = ([[0, *event[:-1]] for event in ends], np.uint32)
    return leaves


IP, FIRST, LAST, CALORIMETER, OTHER = 1, 2, 3, 4, 0


@pytest.mark.parametrize(
    "order",
    [(IP, FIRST, LAST, CALORIMETER), (CALORIMETER, LAST, FIRST, IP), (FIRST, IP, CALORIMETER)],
    ids=["in order", "reversed", "mixed"],
)
def test_states_of_a_track_in_any_order(tmp_path, order):
    of = {
        IP: (IP, 1e-3, 0.0),
        FIRST: (FIRST, 2e-3, 31.0),
        LAST: (LAST, 3e-3, 1480.0),
        CALORIMETER: (CALORIMETER, 4e-3, -1500.0),
    }
    leaves = leaves_of(sound_events())
    states = [[[of[place] for place in order]] * 3, [[of[place] for place in order]] * 6]
    write_leaves(tmp_path / "events.root", with_states(leaves, states), modern=True)
    (raw,) = read_chunks(tmp_path / "events.root", NAMES, 10)
    tracks = valid_events(raw, 4.0, CLIC.calorimeter, CLIC.cluster_shape).tracks
    assert tracks.n_rows == 9
    np.testing.assert_allclose(tracks["omega"], 1e-3)
    np.testing.assert_allclose(tracks["radius_innermost_hit"], 31.0)
    np.testing.assert_allclose(np.abs(tracks["phi_calo"]), np.pi)


def test_states_at_another_location(tmp_path):
    """Of the locations that the map names, the first that a track has counts.

    Without any, the track has no momentum.
    """
    states = [
        [[(OTHER, 1e-3, 0)], [(OTHER, 2e-3, 0), (IP, 3e-3, 0)], [(LAST, 4e-3, 0)]],
        [[(OTHER, 5e-3, 0), (OTHER, 6e-3, 0)]] * 6,
    ]
    write_leaves(
        tmp_path / "events.root", with_states(leaves_of(sound_events()), states), modern=True
    )

    def omegas(**given):
        (raw,) = read_chunks(tmp_path / "events.root", NAMES.model_copy(update=given), 10)
        return (
            valid_events(raw, 4.0, CLIC.calorimeter, CLIC.cluster_shape)
            .tracks["omega"]
            .round(6)
            .tolist()
        )

    assert omegas() == [0.003]
    assert omegas(track_state_at_ip=(1, 0))[:2] == [0.001, 0.003]
    assert len(omegas(track_state_at_ip=(1, 0))) == 8
    assert omegas(track_state_at_ip=(0, 1))[:2] == [0.001, 0.002]
    told = inspect_file(tmp_path / "events.root", CLIC).missing
    assert (
        "8 tracks have no state at the interaction point: they are left out"
        " (collections.track_state_at_ip)" in told
    )


def test_references_that_were_never_set(tmp_path):
    """podio writes index -1 or -2 with collection ID 0, 0xffffffff or -2 for them."""
    leaves = leaves_of(sound_events())
    expected = pairs(read_leaves(tmp_path, leaves), "cluster_hits")
    index, ids = (leaves[f"_PandoraClusters_hits.{leaf}"] for leaf in ("index", "collectionID"))
    leaves["_PandoraClusters_hits.index"] = ([[-1, -2, *index[0][0][2:]], index[0][1]], np.int32)
    leaves["_PandoraClusters_hits.collectionID"] = (
        [[0, 0xFFFFFFFE, *ids[0][0][2:]], ids[0][1]],
        np.uint32,
    )
    raw = read_leaves(tmp_path, leaves)
    assert pairs(raw, "cluster_hits") == expected[2:]
    assert raw["counts"]["references_dropped"] == 2
    told = inspect_file(tmp_path / "events.root", CLIC).missing
    assert any(
        line.startswith("2 references point nowhere or at what is not read") for line in told
    )


def read_leaves(tmp_path, leaves, names=NAMES):
    write_leaves(tmp_path / "events.root", leaves, modern=True)
    return read(tmp_path / "events.root", names)


def test_charges_that_are_none(tmp_path):
    leaves = leaves_of(sound_events())
    rows, dtype = leaves["MCParticles.charge"]
    leaves["MCParticles.charge"] = ([[-999.0, np.nan, -1.0, *row[3:]] for row in rows], dtype)
    charge = read_leaves(tmp_path, leaves)["particles.charge"]
    assert charge[:3].tolist() == [0, 0, -1]


def test_particles_under_the_name_of_lcio(tmp_path, events):
    write_leaves(tmp_path / "reference.root", leaves_of(events), modern=True)
    leaves = renamed(
        renamed(leaves_of(events), "MCParticles.", "MCParticle."), "_MCParticles_", "_MCParticle_"
    )
    ids = {
        ("MCParticle" if name == "MCParticles" else name): number for name, number in IDS.items()
    }
    write(tmp_path / "events.root", leaves, ntuple=False, table="0.99", ids=ids)
    assert_same(read(tmp_path / "events.root"), read(tmp_path / "reference.root"))


def test_what_else_a_file_holds_does_not_matter(tmp_path, events):
    """Other trees, user data, vectors, covariances, and collections whose names look like what
    podio makes of others.
    """
    write_leaves(tmp_path / "reference.root", leaves_of(events), modern=True)
    leaves, n = leaves_of(events), len(events)
    more = {
        "magFieldBz": ([[3.5]] * n, np.float32),
        "_PandoraClusters_shapeParameters": ([[1.0, 2.0]] * n, np.float32),
    }
    more |= {
        "My_Tracks_2.chi2": ([[1.0]] * n, np.float32),
        "PandoraClusters_1": ([[1.0]] * n, np.float32),
    }
    more |= {
        "MCParticlesSkimmed_objIdx.index": ([[0]] * n, np.int32),
        "MCParticlesSkimmed_objIdx.collectionID": ([[11]] * n, np.uint32),
    }
    more |= {"MCParticles.helicity": ([[9] * len(event.particles) for event in events], np.int32)}
    more |= {
        "MCParticles.colorFlow.a": ([[0] * len(event.particles) for event in events], np.int32)
    }
    write_leaves(tmp_path / "events.root", leaves | more, modern=True)
    with uproot.update(tmp_path / "events.root") as file:
        file.mkrntuple("runs", {"RunHeader": ak.Array([[1.0]])})
        file.mkrntuple("metadata", {"GPStringKeys": ak.Array([["made by"]])})
    assert_same(read(tmp_path / "events.root"), read(tmp_path / "reference.root"))
    listed = {
        one.name: one.type for one in inspect_file(tmp_path / "events.root", CLIC).collections
    }
    assert listed["MCParticlesSkimmed"] == "subset of MCParticles"
    assert "My_Tracks_2" in listed


@pytest.mark.parametrize("modern", [True, False], ids=["RNTuple", "TTree"])
@pytest.mark.fault("file without events")
def test_a_file_without_events(tmp_path, modern):
    leaves = {leaf: ([], dtype) for leaf, (_, dtype) in leaves_of(sound_events(), modern).items()}
    write_leaves(tmp_path / "events.root", leaves, modern)
    assert list(read_chunks(tmp_path / "events.root", NAMES, 10)) == []
    found = inspect_file(tmp_path / "events.root", CLIC)
    assert (found.n_events, found.refused) == (0, None)
    build_dataset(dataset_settings("clic"), [tmp_path / "events.root"], tmp_path / "out.parquet")
    assert len(read_table(tmp_path / "out.parquet")) == 0
    assert read_metadata(tmp_path / "out.parquet")["energy_balance_gev"]["visible"] == 0


def test_one_weight_that_holds_two(tmp_path):
    """RecoMCTruthLinker: permil of the track's hits, plus 10000 times permil of the cluster's
    energy.
    """
    leaves = {
        leaf: values
        for leaf, values in leaves_of(sound_events()).items()
        if not any(link in leaf for link in LINKS)
    }
    linked(
        leaves,
        "Reco",
        [[(0, 2, 10001000.0), (0, 3, 250.0), (0, 4, 7500000.0)], [(3, 1, 0.0), (3, 2, 4090909.0)]],
    )
    raw = read_leaves(tmp_path, leaves, NAMES.model_copy(update={"candidate_links": ("Reco",)}))
    # candidate i has track i and clusters i, i + 1; the second event's tracks start at 3, its
    # clusters at 4, its particles at 6
    assert pairs(raw, "track_links") == [(0, 2, 1.0), (0, 3, 0.25), (6, 8, 0.909)]
    assert pairs(raw, "cluster_links") == [
        (0, 2, 1.0),
        (0, 4, 0.75),
        (1, 2, 1.0),
        (1, 4, 0.75),
        (7, 8, 0.409),
        (8, 8, 0.409),
    ]


def test_clusters_without_position_and_hits_lie_where_their_candidate_points(tmp_path):
    """Delphes files in EDM4hep of 2021.

    A charged candidate points elsewhere, and what no candidate holds has no place.
    """
    event = sound_events()[0]
    for cluster in event.clusters:
        cluster |= {"position": [0.0, 0.0, 0.0], "hits": []}
    event.candidates = [
        {
            "pdg": 211,
            "charge": 1.0,
            "energy": 9.0,
            "p": [0.0, 9.0, 0.0],
            "tracks": [0],
            "clusters": [0, 1],
        },
        {
            "pdg": 22,
            "charge": 0.0,
            "energy": 2.0,
            "p": [2.0, 0.0, 0.5],
            "tracks": [],
            "clusters": [1],
        },
        {
            "pdg": 22,
            "charge": 0.0,
            "energy": 3.0,
            "p": [0.0, 0.1, -3.0],
            "tracks": [],
            "clusters": [2, 1],
        },
    ]
    write_leaves(tmp_path / "events.root", leaves_of([event], hits=False), modern=True)
    (raw,) = read_chunks(tmp_path / "events.root", NAMES, 10)
    told = inspect_file(tmp_path / "events.root", CLIC)
    assert (
        "4 clusters have no position: they take the direction of a neutral candidate made of them,"
        " or are left out" in told.missing
    )
    assert "relations by name" in told.text().splitlines()[0]
    ecal = CLIC.calorimeter.ecal
    found = valid_events(raw, 4.0, CLIC.calorimeter, CLIC.cluster_shape)
    assert found.counts["clusters_dropped"] == 2
    face = ecal.barrel_inner_radius_mm
    place = np.stack([found.clusters[axis] for axis in "xyz"], axis=1)
    np.testing.assert_allclose(
        place,
        [[face, 0, face / 4], [0, ecal.endcap_z_min_mm / 30, -ecal.endcap_z_min_mm]],
        rtol=1e-6,
        atol=1e-6,
    )


def test_inspect_names_collections_that_would_fit(tmp_path, events):
    """Where the map finds nothing, collections of the right type are named.

    Types are those of podio's own table.
    """
    write_leaves(
        tmp_path / "events.root",
        renamed(leaves_of(events), "PandoraClusters.", "TopoClusters."),
        modern=True,
    )
    with uproot.update(tmp_path / "events.root") as file:
        info = {
            "name": ["TopoClusters", "SiTracks_Refitted"],
            "dataType": ["edm4hep::ClusterCollection", "edm4hep::TrackCollection"],
        }
        records = ak.zip(
            {"collectionID": ak.Array([[1, 2]])}
            | {key: ak.Array([values]) for key, values in info.items()}
        )
        table = ak.zip(
            {"m_names": ak.Array([list(IDS)]), "m_collectionIDs": ak.Array([list(IDS.values())])},
            depth_limit=1,
        )
        file.mkrntuple(
            "podio_metadata", {"events___CollectionTypeInfo": records, "events___idTable": table}
        )
    found = inspect_file(tmp_path / "events.root", CLIC)
    assert found.fitting == {"clusters": ["TopoClusters"]}
    assert "  clusters  TopoClusters" in found.text().splitlines()
    assert {one.name: one.type for one in found.collections}["SiTracks_Refitted"] == "Track"


def test_every_shipped_map_reads_the_layout_of_its_time(tmp_path, events):
    """Maps of detectors that extend another one do not lose what theirs reads."""
    write_events(tmp_path / "events.root", events)
    for detector in ("clic", "cld"):
        (raw,) = read_chunks(
            tmp_path / "events.root", load_detector(CONFIG, detector).collections, 100
        )
        assert raw.hits.n_rows == 3 * sum(len(event.hits["MUON"]) for event in events)
