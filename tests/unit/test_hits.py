"""Hits as elements through selection and preprocessing, which settings depend on the choice, and
what is refused.
"""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest

from particleforge.config.cuts import (
    ClusterCutConfig,
    CutConfig,
    DetectorCutsConfig,
    ObjectCutsConfig,
    TrackCutConfig,
)
from particleforge.config.dataset import DatasetConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings, SelectSettings, ShardSettings
from particleforge.dataset.build import build_dataset
from particleforge.errors import UserError
from particleforge.preprocessing.shards import write_shards
from particleforge.selection.select import select_events
from particleforge.tables import schema
from particleforge.tables.parquet import HITS_DATASET_SCHEMA, arrow_schema, read_table
from particleforge.tables.schema import Fate

from .dataset_settings import NO_LIMITS
from .edm4hep_events import leaves_of, random_event, write_events, write_leaves

CONFIG = Path(__file__).parents[2] / "config"
DETECTOR = load_detector(CONFIG, "clic")
THIRDS = {"train_fraction": 0.4, "valid_fraction": 0.3, "test_fraction": 0.3}
CLUSTERS = load_run(CONFIG, {"selection": THIRDS})
HITS = load_run(
    CONFIG,
    {
        "selection": THIRDS,
        "dataset": {"calorimeter_elements": "hits", **NO_LIMITS},
    },
)
CUTS = DetectorCutsConfig(
    objects=ObjectCutsConfig(
        tracks=(TrackCutConfig(name="pt", expression="tracks.pt >= 2"),),
        clusters=(ClusterCutConfig(name="energy", expression="clusters.energy > 1e6"),),
    )
)


def some_events(n=40):
    rng = np.random.default_rng(11)
    return [random_event(rng, 10, 4, 4, 6) for _ in range(n)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of hits and what the selection makes of it."""
    folder = tmp_path_factory.mktemp("hits")
    write_events(folder / "events.root", some_events())
    build_dataset(
        DatasetSettings.of(HITS, DETECTOR, sample_name="qq"),
        [folder / "events.root"],
        folder / "dataset.parquet",
    )
    select(folder, CUTS)
    return folder


def select(folder, cuts, name="selected"):
    settings = SelectSettings.of(HITS, DETECTOR, sample_name="qq", cuts=cuts)
    select_events(
        settings,
        dataset=folder / "dataset.parquet",
        output=folder / f"{name}.parquet",
        cutflow=folder / f"{name}.json",
    )


def test_cuts_on_clusters_leave_hits_alone(folder):
    before, after = read_table(folder / "dataset.parquet"), read_table(folder / "selected.parquet")
    assert pq.read_schema(folder / "dataset.parquet").equals(
        HITS_DATASET_SCHEMA, check_metadata=False
    )
    selected = arrow_schema((*schema.EVENT, schema.SPLIT), schema.DATASET_OF_HITS)
    assert pq.read_schema(folder / "selected.parquet").equals(selected, check_metadata=False)
    assert (
        pq.read_schema(folder / "selected.parquet")
        .field("clusters")
        .type.value_type.field("time")
        .metadata[b"unit"]
        == b"ns"
    )
    assert ak.sum(ak.num(before.clusters)) > 300
    assert after.clusters.to_list() == before.clusters.to_list()
    assert after.cluster_links.to_list() == before.cluster_links.to_list()
    assert ak.sum(ak.num(after.tracks)) < ak.sum(ak.num(before.tracks))
    energy, fate = after.particles.energy, after.particles.fate
    dropped = ak.sum(energy[fate == int(Fate.DROPPED)])
    assert ak.sum(after.targets.energy) + dropped == pytest.approx(
        ak.sum(energy[fate != int(Fate.INVISIBLE)]), rel=1e-6
    )
    on_hits = after.particles[
        (fate == int(Fate.HOSTED)) & (after.particles.element >= ak.num(after.tracks))
    ]
    assert ak.sum(ak.num(on_hits)) > 20
    assert ak.all(after.targets.energy[on_hits.element] > 0)
    hit, owner = on_hits.element - ak.num(after.tracks), after.targets.particle[on_hits.element]
    links = zip(
        after.cluster_links.cluster.to_list(), after.cluster_links.particle.to_list(), strict=True
    )
    left = [set(zip(*of_event, strict=True)) for of_event in links]
    owned = [
        set(zip(*of_event, strict=True))
        for of_event in zip(hit.to_list(), owner.to_list(), strict=True)
    ]
    assert all(mine <= all_pairs for mine, all_pairs in zip(owned, left, strict=True)), (
        "an owner left something in its hit"
    )


def test_shards_hold_the_features_of_hits(folder):
    write_shards(ShardSettings.of(HITS, DETECTOR), [folder / "selected.parquet"], folder / "shards")
    manifest = json.loads((folder / "shards/manifest.json").read_text())
    names = [feature.name for feature in DETECTOR.elements.hit]
    assert {
        kind: [f["name"] for f in features] for kind, features in manifest["elements"].items()
    } == {"track": [feature.name for feature in DETECTOR.elements.track], "hit": names}
    statistics = json.loads((folder / "shards/normalisation.json").read_text())
    assert len(statistics["hit"]["mean"]) == len(names)
    events = read_table(folder / "selected.parquet")
    number = {event_id: i for i, event_id in enumerate(events.event_id.to_list())}
    found = 0
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            for row in read_table(folder / "shards" / shard["file"]):
                event = events[number[row.event_id]]
                features = row.features.to_numpy().reshape(row.n_elements, manifest["n_features"])
                hits = features[row.element_type.to_numpy() == 2]
                assert len(hits) == len(event.clusters) == row.n_elements - len(event.tracks)
                for column in ("energy", "depth", "in_hcal"):
                    np.testing.assert_array_equal(
                        hits[:, names.index(column)], event.clusters[column].to_numpy()
                    )
                np.testing.assert_allclose(
                    hits[:, names.index("sin_phi")],
                    np.sin(event.clusters.phi.to_numpy()),
                    atol=1e-6,
                )
                assert not hits[:, len(names) :].any()
                found += 1
    assert found == len(events)


def test_the_time_of_hits_is_read_where_the_file_has_it(tmp_path):
    events = some_events(3)
    leaves = leaves_of(events)
    ecal = [event.hits["ECALBarrel"] for event in events]
    times = [[0.25 * i for i in range(len(hits))] for hits in ecal]
    leaves["ECALBarrel.time"] = (times, np.float32)
    write_leaves(tmp_path / "events.root", leaves)
    build_dataset(
        DatasetSettings.of(HITS, DETECTOR, sample_name="qq"),
        [tmp_path / "events.root"],
        tmp_path / "out.parquet",
    )
    found = read_table(tmp_path / "out.parquet").clusters
    good = [[0.25 * i for i, hit in enumerate(hits) if hit["energy"] > 0] for hits in ecal]
    assert found.time[found.in_ecal == 1].to_list() == good
    assert not ak.any(found.time[found.in_ecal == 0])


def test_settings_depend_on_the_choice_only_where_it_matters():
    def with_dataset(**changes):
        run = load_run(CONFIG, {"dataset": changes})
        return (
            DatasetSettings.of(run, DETECTOR, sample_name="qq").plain(),
            ShardSettings.of(run, DETECTOR).plain(),
        )

    clusters, hits = with_dataset(), with_dataset(calorimeter_elements="hits")
    assert with_dataset(hit_energy_min_mev=3.0) == clusters
    assert clusters[0] != hits[0]
    assert clusters[1]["elements"].keys() == {"track", "cluster"}
    assert hits[1]["elements"].keys() == {"track", "hit"}
    higher = with_dataset(calorimeter_elements="hits", hit_energy_min_mev=3.0)
    assert (higher[0] != hits[0], higher[1] == hits[1]) == (True, True)
    assert DatasetSettings(**hits[0]).plain() == hits[0]
    # hits have no shape
    assert ("cluster_shape" in clusters[0], "cluster_shape" in hits[0]) == (True, False)


@pytest.mark.fault("calorimeter elements that do not fit")
def test_features_of_other_elements_are_refused(folder):
    message = (
        r"selected\.parquet: its calorimeter elements are hits, the features are those of clusters;"
        r" build the dataset with"
    )
    with pytest.raises(UserError, match=message):
        write_shards(
            ShardSettings.of(CLUSTERS, DETECTOR), [folder / "selected.parquet"], folder / "refused"
        )


@pytest.mark.fault("calorimeter elements that do not fit")
def test_a_cut_on_what_hits_have_not_is_refused(folder):
    cuts = DetectorCutsConfig(
        events=(CutConfig(name="wide", expression="max(clusters.width_transverse) > 1"),)
    )
    with pytest.raises(
        UserError,
        match=r"dataset\.parquet: cuts\.events: wide: hits, .* have no 'width_transverse'",
    ):
        select(folder, cuts, "refused")
    assert not (folder / "refused.parquet").exists()


@pytest.mark.fault("calorimeter elements that do not fit")
def test_a_file_or_a_detector_without_hits_is_refused(tmp_path):
    write_events(tmp_path / "events.root", some_events(2), hits=False)
    with pytest.raises(
        UserError, match=r"events\.root: no calorimeter hits with links to particles"
    ):
        build_dataset(
            DatasetSettings.of(HITS, DETECTOR, sample_name="qq"),
            [tmp_path / "events.root"],
            tmp_path / "out.parquet",
        )
    elements = DETECTOR.elements.model_copy(update={"hit": ()})
    with pytest.raises(
        UserError,
        match=r"dataset\.calorimeter_elements: hits needs elements\.hit in the detector's file",
    ):
        ShardSettings.of(HITS, DETECTOR.model_copy(update={"elements": elements}))


@pytest.mark.fault("NaN in tracks or clusters")
def test_too_many_unusable_hits_make_a_bad_file(tmp_path):
    events = some_events(2)
    for event in events:
        for hit in event.hits["HCALBarrel"]:
            hit["energy"] = float("nan")
    write_events(tmp_path / "events.root", events)
    rules = DatasetConfig(
        **{**NO_LIMITS, "dropped_objects_fraction_max": 0.3}, calorimeter_elements="hits"
    )
    settings = DatasetSettings.of(HITS, DETECTOR, sample_name="qq", dataset=rules)
    with pytest.raises(UserError, match=r"events\.root: \d+ of 36 hits are unusable"):
        build_dataset(settings, [tmp_path / "events.root"], tmp_path / "out.parquet")


@pytest.mark.fault("calorimeter elements that do not fit")
def test_a_file_that_holds_hits_alone_is_read_with_hits_as_elements(tmp_path):
    gone = ("SiTracks", "PandoraClusters", "ClusterMC", "PandoraPFOs")
    leaves = {
        leaf: values
        for leaf, values in leaves_of(some_events(5)).items()
        if not leaf.lstrip("_").startswith(gone)
    }
    write_leaves(tmp_path / "events.root", leaves)
    output = tmp_path / "out.parquet"
    build_dataset(
        DatasetSettings.of(HITS, DETECTOR, sample_name="all"), [tmp_path / "events.root"], output
    )
    table = read_table(output)
    assert ak.sum(ak.num(table["clusters"])) > 50
    assert ak.sum(table["targets", "energy"]) > 0
    assert ak.sum(ak.num(table["tracks"])) == 0
    said = "neither SiTracks_Refitted nor PandoraClusters is there, only calorimeter hits; correct"
    with pytest.raises(UserError, match=said):
        build_dataset(
            DatasetSettings.of(CLUSTERS, DETECTOR, sample_name="all"),
            [tmp_path / "events.root"],
            output,
        )
