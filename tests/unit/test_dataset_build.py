"""Building a dataset from files: real ones (PARTICLEFORGE_REAL_DATA), broken ones, empty ones, the
same ones twice.
"""

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

from particleforge.config.dataset import DatasetConfig
from particleforge.dataset.build import build_dataset
from particleforge.dataset.classes import class_by_host, class_of
from particleforge.dataset.elements import distance_to_face
from particleforge.dataset.identity import event_ids
from particleforge.errors import UserError
from particleforge.tables.parquet import DATASET_SCHEMA, read_metadata, read_table

from .dataset_settings import NO_LIMITS, dataset_settings
from .edm4hep_events import leaves_of, random_event, write_events, write_leaves
from .odd_events import ODDITIES
from .real_files import real_file

CLD, CLIC_2021 = "cld_hbb_full_rec_1ev.edm4hep.root", "clic_photons_2021_layout_3ev.edm4hep.root"
TOLERANT = DatasetConfig(
    **NO_LIMITS,
)


@pytest.fixture
def events():
    rng = np.random.default_rng(3)
    return [random_event(rng, 10, 3, 4, 4) for _ in range(7)]


def build(settings, inputs, output):
    build_dataset(settings, inputs, output)
    return read_table(output), read_metadata(output)


def test_full_simulation_file(tmp_path):
    table, metadata = build(dataset_settings("cld"), [real_file(CLD)], tmp_path / "out.parquet")
    n_tracks = ak.num(table["tracks"])[0]
    assert (n_tracks, ak.num(table["clusters"])[0], ak.num(table["candidates"])[0]) == (24, 48, 52)
    particles = table["particles"][0]
    targets = table["targets"][0]
    candidates = table["candidates"][0]
    balance = metadata["energy_balance_gev"]
    assert balance["visible"] == pytest.approx(116.8, abs=0.05)
    assert balance["visible"] == pytest.approx(balance["target"] + balance["dropped"], rel=1e-6)
    on_tracks = ak.sum(targets["energy"][:n_tracks])
    on_clusters = ak.sum(targets["energy"][n_tracks:])
    # 84.10 GeV on tracks where conversion electrons' tracks get the photons' momenta; 0.10 GeV of
    # it are the untracked electrons'.
    assert on_tracks == pytest.approx(84.10 - 0.10, abs=0.01)
    assert on_clusters == pytest.approx(32.44, abs=0.01)
    charged = candidates["charge"] != 0
    assert ak.sum(candidates["energy"][charged]) == pytest.approx(55.33, abs=0.01)
    # Pandora's neutral hadrons have p = E; with the neutron's mass on top of that momentum their
    # sum is 62.40 GeV.
    momentum = np.sqrt(candidates["px"] ** 2 + candidates["py"] ** 2 + candidates["pz"] ** 2)[
        ~charged
    ]
    mass = np.where(candidates["pdg"][~charged] == 2112, 0.93957, 0.0)
    assert ak.sum(candidates["energy"][~charged]) == pytest.approx(58.81, abs=0.01)
    assert ak.sum(np.sqrt(momentum**2 + mass**2)) == pytest.approx(62.40, abs=0.01)
    assert ak.all((candidates["element"] >= 0) & ((candidates["element"] < n_tracks) == charged))
    # one from the decay of a D, two from conversions
    assert ak.sum(np.abs(particles["pdg"]) == 11) == 3
    hosted = particles["element"][
        (particles["pdg"] == 211) & (particles["element"] < n_tracks) & (particles["element"] >= 0)
    ]
    assert ak.all(targets["charge"][hosted] == 1)


def test_hits_of_a_full_simulation_file(tmp_path):
    by_elements = {}
    for kind in ("clusters", "hits"):
        settings = dataset_settings("cld", dataset=DatasetConfig(calorimeter_elements=kind))
        by_elements[kind] = build(settings, [real_file(CLD)], tmp_path / f"{kind}.parquet")
    (clusters, _), (hits, metadata) = by_elements["clusters"], by_elements["hits"]
    assert (ak.num(hits["tracks"])[0], ak.num(hits["clusters"])[0]) == (24, 3767)
    balance = metadata["energy_balance_gev"]
    # each of the 43 visible particles has an element
    assert balance["visible"] == pytest.approx(balance["target"], rel=1e-9)
    assert (metadata["counts"]["n_hosted"], balance["merged"], balance["dropped"]) == (43, 0, 0)
    for name in ("pdg", "energy", "deposited_energy"):
        assert hits["particles", name].to_list() == clusters["particles", name].to_list()
    time = ak.to_numpy(ak.flatten(hits["clusters", "time"]))
    assert 0.1 < time.min() < time.mean() < 1 < time.max() < 10.1
    elements = hits["candidates", "element"][0].to_list()
    assert len(set(elements)) == len(elements) == 52
    assert min(elements) >= 0


def test_file_of_2021_without_tracks(tmp_path):
    table, _ = build(dataset_settings(), [real_file(CLIC_2021)], tmp_path / "out.parquet")
    assert ak.num(table["tracks"]).to_list() == [0, 0, 0]
    assert ak.num(table["clusters"]).to_list() == [1, 1, 1]
    assert table["targets", "class_id"].to_list() == [[3], [3], [3]]
    assert ak.flatten(table["candidates", "pdg"]).to_list() == [22, 22, 22]
    assert np.all(
        np.abs(
            ak.to_numpy(ak.flatten(table["clusters", "energy"] / table["targets", "energy"])) - 1
        )
        < 0.1
    )
    assert np.all(ak.to_numpy(ak.flatten(table["clusters", "depth"])) > 0)
    assert len(set(table["event_id"].to_list())) == 3  # the file numbers all of its events 0


@pytest.mark.fault("truncated ROOT file")
@pytest.mark.parametrize("keep", [10, 200, 2000, -3000, -300])
def test_truncated_file_is_one_line(tmp_path, events, keep):
    whole = tmp_path / "whole.root"
    write_events(whole, events)
    broken = tmp_path / "broken.root"
    broken.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"broken\.root: a truncated ROOT file") as raised:
        build_dataset(dataset_settings(dataset=TOLERANT), [broken], tmp_path / "out.parquet")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.fault("file that is not EDM4hep")
def test_root_file_of_something_else(tmp_path):
    with uproot.recreate(tmp_path / "other.root") as file:
        file.mktree("ntuple", {"x": "float64"}).extend({"x": np.ones(3)})
    with pytest.raises(UserError, match=r"other\.root: holds no 'events' tree \(found: ntuple\)"):
        build_dataset(dataset_settings(), [tmp_path / "other.root"], tmp_path / "out.parquet")


@pytest.mark.fault("missing branch")
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("MCParticles.PDG", "branch MCParticles.PDG is missing"),
        ("MCParticles.momentum.x", "branch MCParticles.momentum.x is missing"),
        ("_MCParticles_parents.", "branch _MCParticles_parents.index is missing"),
        ("_SiTracks_Refitted_trackStates.", "branch _SiTracks_Refitted_trackStates is missing"),
        ("_ClusterMCTruthLink_to.", "link ClusterMCTruthLink lacks its ends"),
        (
            ("SiTracks_Refitted.", "PandoraClusters."),
            "neither SiTracks_Refitted nor PandoraClusters is there",
        ),
        (("CalohitMCTruthLink.", "ClusterMCTruthLink.", "SiTracksMCTruthLink."), "no truth link"),
    ],
)
def test_missing_branches_are_named(tmp_path, events, missing, message):
    leaves = {
        leaf: values for leaf, values in leaves_of(events).items() if not leaf.startswith(missing)
    }
    write_leaves(tmp_path / "events.root", leaves)
    with pytest.raises(UserError, match=message) as raised:
        build_dataset(
            dataset_settings(dataset=TOLERANT), [tmp_path / "events.root"], tmp_path / "out.parquet"
        )
    assert str(raised.value).startswith(str(tmp_path / "events.root"))


@pytest.mark.fault("missing optional collection")
@pytest.mark.parametrize(
    "optional",
    ["PandoraPFOs.", "EventHeader.", "SiTracks_Refitted.", ("PandoraClusters.", "ClusterMC")],
)
def test_optional_collections_may_be_missing(tmp_path, events, optional):
    leaves = {
        leaf: values for leaf, values in leaves_of(events).items() if not leaf.startswith(optional)
    }
    write_leaves(tmp_path / "events.root", leaves)
    table, _ = build(
        dataset_settings(dataset=TOLERANT), [tmp_path / "events.root"], tmp_path / "out.parquet"
    )
    assert len(table) == len(events)


@pytest.mark.parametrize(("edge", "added"), [("end", 100), ("begin", -100)])
def test_ranges_beyond_their_list_are_refused(tmp_path, events, edge, added):
    leaves = leaves_of(events)
    edges, _ = leaves[f"MCParticles.parents_{edge}"]
    edges[2] = [value + added for value in edges[2]]
    leaves[f"MCParticles.parents_{edge}"] = edges, "int32"  # some write them signed
    write_leaves(tmp_path / "events.root", leaves)
    with pytest.raises(UserError, match=r"parents_end points beyond its list"):
        build_dataset(
            dataset_settings(dataset=TOLERANT), [tmp_path / "events.root"], tmp_path / "out.parquet"
        )


@pytest.mark.fault("unreadable file set aside")
def test_quarantine_leaves_a_bad_file_out_altogether(tmp_path, events, caplog):
    good, bad = tmp_path / "good.root", tmp_path / "bad.root"
    write_events(good, events)
    leaves = leaves_of(events)
    # found in the last chunk, when others were written
    leaves["MCParticles.mass"][0][-1][0] = np.nan
    write_leaves(bad, leaves)
    settings = dataset_settings(
        dataset=DatasetConfig(
            on_bad_file="quarantine",
            chunk_events=2,
            **NO_LIMITS,
        )
    )
    table, metadata = build(
        settings, [bad, good, tmp_path / "absent.root"], tmp_path / "out.parquet"
    )
    assert len(table) == len(events)
    assert [entry["file"] for entry in metadata["quarantined"]] == ["absent.root", "bad.root"]
    assert "momenta that are not finite" in caplog.text
    build_dataset(settings, [bad], tmp_path / "empty.parquet")
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0
    assert read_metadata(tmp_path / "empty.parquet")["counts"]["events"] == 0


def test_file_without_events(tmp_path, events):
    write_leaves(
        tmp_path / "events.root",
        {leaf: ([], dtype) for leaf, (_, dtype) in leaves_of(events).items()},
    )
    build_dataset(dataset_settings(), [tmp_path / "events.root"], tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.num_rows == 0
    assert found.schema.equals(DATASET_SCHEMA, check_metadata=False)


def test_same_bytes_twice_and_whatever_the_chunks(tmp_path, events):
    write_events(tmp_path / "events.root", events)
    settings = dataset_settings(dataset=TOLERANT)
    for name in ("a", "b"):
        build_dataset(settings, [tmp_path / "events.root"], tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.parquet.provenance.json").exists()
    other = dataset_settings(dataset=TOLERANT.model_copy(update={"chunk_events": 2}))
    build_dataset(other, [tmp_path / "events.root"], tmp_path / "c.parquet")
    assert pq.read_table(tmp_path / "c.parquet").equals(pq.read_table(tmp_path / "a.parquet"))


def test_too_much_dropped_energy_fails(tmp_path):
    dropped = ODDITIES["energy outside of clusters"](np.random.default_rng(1))
    write_events(tmp_path / "events.root", [dropped])
    settings = dataset_settings(
        dataset=TOLERANT.model_copy(update={"dropped_energy_fraction_max": 0.0})
    )
    with pytest.raises(
        UserError, match=r"events\.root: .* of the visible energy finds no element, allowed 0\.0%"
    ):
        build_dataset(settings, [tmp_path / "events.root"], tmp_path / "out.parquet")


def test_repeated_identity_is_refused(tmp_path, events):
    write_events(tmp_path / "events.root", events)
    with pytest.raises(UserError, match="numbers repeat between files"):
        build_dataset(
            dataset_settings(dataset=TOLERANT),
            [tmp_path / "events.root"] * 2,
            tmp_path / "out.parquet",
        )


def test_event_ids_depend_on_all_parts_and_do_not_collide():
    run, event = np.repeat(np.arange(100), 1000), np.tile(np.arange(1000), 100)
    first, second = event_ids("a", run, event), event_ids("b", run, event)
    assert len(np.unique(np.concatenate([first, second]))) == 200_000
    bits = (first[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 0.01)


def test_classes_follow_pdg_and_host():
    classes = dataset_settings().particle_classes
    pdg = np.array([211, -321, 130, 22, 11, -13, 12])
    charged = np.array([True, True, False, False, True, True, False])
    eta = np.zeros(7)
    assert class_of(classes, pdg, charged, eta).tolist() == [1, 1, 2, 3, 4, 5, 0]
    assert class_by_host(classes, pdg, charged, eta, np.ones(7, bool))[:6].tolist() == [
        1,
        1,
        1,
        1,
        4,
        5,
    ]
    assert class_by_host(classes, pdg, charged, eta, np.zeros(7, bool))[:6].tolist() == [
        2,
        2,
        2,
        3,
        3,
        2,
    ]


def test_inner_face_is_barrel_or_endcap():
    ecal = dataset_settings().calorimeter.ecal
    sin, cos = np.array([1.0, 0.0, np.sqrt(0.5)]), np.array([0.0, 1.0, np.sqrt(0.5)])
    expected = [
        ecal.barrel_inner_radius_mm,
        ecal.endcap_z_min_mm,
        ecal.barrel_inner_radius_mm * np.sqrt(2),
    ]
    np.testing.assert_allclose(distance_to_face(sin, cos, ecal), expected)
