"""Files without truth, as real data are: what is read of them, where it lies in the file, and who
refuses what was built from them.
"""

import awkward as ak
import numpy as np
import pytest
import uproot

from particleforge.checks.dataset import check_dataset
from particleforge.config import settings as stage
from particleforge.config.dataset import DatasetConfig
from particleforge.config.load import load_detector, load_run
from particleforge.dataset.accounting import read_accounts
from particleforge.dataset.build import build_dataset
from particleforge.errors import UserError
from particleforge.preprocessing.shards import write_shards
from particleforge.selection.select import select_events
from particleforge.tables.parquet import read_metadata, read_table
from particleforge.tables.schema import Fate
from particleforge.training.train import train_model
from particleforge.validation.validate import validate_model

from . import edm4hep_events
from .dataset_settings import CONFIG, NO_LIMITS, dataset_settings
from .delphes_events import write_delphes
from .edm4hep_events import leaves_of, random_event, write_leaves
from .test_delphes import EVENT, without

NO_TRUTH = DatasetConfig(truth="none", dropped_objects_fraction_max=1.0)
TRUTH = ("MCParticles", "_MCParticles", "MCTruthLink")


@pytest.fixture
def events():
    rng = np.random.default_rng(5)
    return [random_event(rng, 10, 5, 6, 4) for _ in range(7)]


def data_leaves(events, modern=True, **changes):
    """Return the leaves of events less particles and links."""
    leaves = leaves_of(events, modern, **changes)
    return {leaf: of for leaf, of in leaves.items() if not any(name in leaf for name in TRUTH)}


def built(tmp_path, path, detector="clic", dataset=NO_TRUTH):
    build_dataset(dataset_settings(detector, dataset=dataset), [path], tmp_path / "data.parquet")
    return read_table(tmp_path / "data.parquet"), read_metadata(tmp_path / "data.parquet")


def followed(path, table, metadata, tree="events"):
    """Follow the origins with uproot alone: the leaf's value for each element, by its meaning."""
    names = {one["id"]: name for name, one in metadata["collections"].items()}
    with uproot.open(path) as file:
        branches = {key.split("/")[-1]: branch for key, branch in file[tree].items()}

        def value(event, origin, member):
            return branches[f"{names[origin['collection']]}.{member}"].array()[event][
                origin["index"]
            ]

        return [
            [
                (names[origin["collection"]], value(event, origin, "energy"))
                if names[origin["collection"]] != "SiTracks_Refitted"
                else ("SiTracks_Refitted", origin["index"])
                for origin in origins
            ]
            for event, origins in enumerate(table.origins.to_list())
        ]


@pytest.mark.parametrize("modern", [True, False])
def test_elements_lie_where_the_origins_say(tmp_path, events, modern):
    write_leaves(tmp_path / "data.root", data_leaves(events, modern), modern)
    table, metadata = built(tmp_path, tmp_path / "data.root")
    n_tracks, n_clusters = ak.num(table.tracks), ak.num(table.clusters)
    assert ak.num(table.origins).to_list() == (n_tracks + n_clusters).to_list()
    left_out = metadata["counts"]["tracks_dropped"], metadata["counts"]["clusters_dropped"]
    assert min(left_out) > 0  # so that rows and elements differ
    found = followed(tmp_path / "data.root", table, metadata)
    for event in range(len(events)):
        of_tracks = found[event][: n_tracks[event]]
        omega = [np.float32(events[event].tracks[index]["omega"]) for _, index in of_tracks]
        assert omega == table.tracks.omega[event].to_list()
        of_clusters = found[event][n_tracks[event] :]
        assert of_clusters == [("PandoraClusters", e) for e in table.clusters.energy[event]]


def test_tables_hold_no_truth_and_say_so(tmp_path, events):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    table, metadata = built(tmp_path, tmp_path / "data.root")
    assert metadata["truth"] == "none"
    assert "energy_balance_gev" not in metadata
    for name in ("particles", "targets", "track_links", "cluster_links"):
        assert ak.num(table[name]).to_list() == [0] * len(events)
    assert ak.sum(ak.num(table.candidates)) > 0  # the file's own are no truth


def test_what_is_read_does_not_depend_on_truth_that_is_there(tmp_path, events):
    for name, leaves in (("with", leaves_of(events)), ("without", data_leaves(events))):
        write_leaves(tmp_path / f"{name}.root", leaves)
        build_dataset(
            dataset_settings(dataset=NO_TRUTH),
            [tmp_path / f"{name}.root"],
            tmp_path / f"{name}.parquet",
        )
    tables = [read_table(tmp_path / f"{name}.parquet") for name in ("with", "without")]
    assert tables[0].to_list() == tables[1].to_list()
    tolerant = DatasetConfig(**NO_LIMITS)
    build_dataset(
        dataset_settings(dataset=tolerant), [tmp_path / "with.root"], tmp_path / "truth.parquet"
    )
    truth = read_table(tmp_path / "truth.parquet")
    assert ak.sum(truth.particles.fate == int(Fate.HOSTED)) > 0
    for name in ("event_id", "tracks", "clusters", "candidates"):
        assert truth[name].to_list() == tables[0][name].to_list()


def test_hits_of_several_collections(tmp_path, events):
    leaves = {
        leaf: of
        for leaf, of in data_leaves(events).items()
        if not leaf.lstrip("_").startswith(("PandoraClusters", "SiTracks", "PandoraPFOs"))
    }
    write_leaves(tmp_path / "data.root", leaves)
    hits = NO_TRUTH.model_copy(update={"calorimeter_elements": "hits"})
    table, metadata = built(tmp_path, tmp_path / "data.root", dataset=hits)
    names = {"ECALBarrel", "HCALBarrel", "MUON"}
    assert {n for n, one in metadata["collections"].items() if one["is"] == "hit"} == names
    found = followed(tmp_path / "data.root", table, metadata)
    assert {name for event in found for name, _ in event} == names
    assert [[e for _, e in event] for event in found] == table.clusters.energy.to_list()


def test_the_headers_numbers_are_kept(tmp_path, events):
    leaves = data_leaves(events)
    leaves["EventHeader.eventNumber"] = ([[4]] * 7, np.uint64)
    leaves["EventHeader.timeStamp"] = ([[10**18 + i] for i in range(7)], np.uint64)
    write_leaves(tmp_path / "data.root", leaves)
    table, _ = built(tmp_path, tmp_path / "data.root")
    assert table.file_event_number.to_list() == [4] * 7
    assert table.event_number.to_list() == list(range(7))  # which tell events apart
    assert table.time_stamp.to_list() == [10**18 + i for i in range(7)]
    write_leaves(
        tmp_path / "data.root", {k: v for k, v in leaves.items() if "EventHeader" not in k}
    )
    table, _ = built(tmp_path, tmp_path / "data.root")
    assert table.file_event_number.to_list() == list(range(7))
    assert table.time_stamp.to_list() == [0] * 7


@pytest.mark.parametrize("references", [True, False])
def test_delphes_without_particles(tmp_path, references):
    event = {name: objects for name, objects in EVENT.items() if name != "Particle"}
    if not references:
        event = {
            name: without(without(objects, "Particle"), "Particles")
            for name, objects in event.items()
        }
    write_delphes(tmp_path / "data.root", [event, event])
    table, metadata = built(tmp_path, tmp_path / "data.root", "cms_delphes")
    names = {one["id"]: name for name, one in metadata["collections"].items()}
    assert set(names.values()) == {"Track", "Tower"}
    assert ak.num(table.particles).to_list() == [0, 0]
    for origins, clusters in zip(table.origins.to_list(), table.clusters.to_list(), strict=True):
        of_towers = [one["index"] for one in origins if names[one["collection"]] == "Tower"]
        assert [np.float32(EVENT["Tower"][i]["E"]) for i in of_towers] == [
            cluster["energy"] for cluster in clusters
        ]
        assert len(of_towers) > 0


@pytest.mark.fault("a file without truth where truth is needed")
def test_what_needs_truth_refuses_in_one_line(tmp_path, events):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    data = tmp_path / "data.parquet"
    built(tmp_path, tmp_path / "data.root")
    run, clic = load_run(CONFIG), load_detector(CONFIG, "clic")
    stages = {
        "select": lambda: select_events(
            stage.SelectSettings.of(run, clic, sample_name="qq"),
            dataset=data,
            output=tmp_path / "out",
            cutflow=tmp_path / "cutflow",
        ),
        "check": lambda: check_dataset(
            stage.CheckDatasetSettings.of(run, clic, sample_name="qq"),
            shards=[data],
            work_dir=tmp_path / "work",
            output=tmp_path / "out",
        ),
        "shards": lambda: write_shards(stage.ShardSettings.of(run, clic), [data], tmp_path / "out"),
        "accounting": lambda: read_accounts([data]),
        "validate": lambda: validate_model(
            stage.ValidateSettings.of(run, clic),
            selected=[data],
            reconstructed=[data],
            metrics=tmp_path / "out",
            histograms=tmp_path / "out",
            plots=tmp_path / "out",
        ),
    }
    with pytest.raises(UserError, match=r"data\.parquet: not readable as JSON"):
        train_model(
            stage.TrainSettings.of(run, clic),
            manifest=data,
            best_settings=None,
            work_dir=tmp_path / "out",
            **dict.fromkeys(("model", "last", "metrics", "tensorboard"), tmp_path / "out"),
        )
    for refuse in stages.values():
        with pytest.raises(UserError, match=r"data\.parquet: has no truth") as raised:
            refuse()
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_files_of_other_ids_or_of_the_same_numbers_make_no_one_table(tmp_path, events, monkeypatch):
    paths = [tmp_path / "a.root", tmp_path / "b.root"]
    for path in paths:
        write_leaves(path, data_leaves(events))
    with pytest.raises(UserError, match="run and event numbers repeat between files; build one"):
        build_dataset(dataset_settings(dataset=NO_TRUTH), paths, tmp_path / "out.parquet")
    others = {name: number + 100 for name, number in edm4hep_events.IDS.items()}
    monkeypatch.setattr(edm4hep_events, "IDS", others)
    write_leaves(paths[1], data_leaves(events))
    with pytest.raises(UserError, match=r"b.root: collection \w+ has ID \d+, in another file"):
        build_dataset(dataset_settings(dataset=NO_TRUTH), paths, tmp_path / "out.parquet")
