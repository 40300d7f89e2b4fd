"""Reconstruction of files without truth: what the EDM4hep output refers to, followed with uproot
alone, as podio's readers do it.
"""

import math
import subprocess
import sys
import threading
from unittest import mock

import awkward as ak
import numpy as np
import pytest
import uproot

from particleforge.config.dataset import DatasetConfig
from particleforge.config.reconstruction import ReconstructionConfig
from particleforge.config.settings import ReconstructSettings
from particleforge.edm4hep.identities import collection_id
from particleforge.edm4hep.rootfile import EventFile
from particleforge.errors import UserError
from particleforge.provenance import record
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.reconstruction.reconstruct import reconstruct_events, reconstruct_file
from particleforge.tables.parquet import read_metadata, read_table

from .dataset_settings import CONFIG, dataset_settings
from .delphes_events import write_delphes
from .edm4hep_events import random_event, write_leaves
from .real_files import real_file
from .synthetic import synthetic_events, write_dataset
from .test_delphes import EVENT
from .test_edm4hep_layouts import write as write_layout
from .test_no_truth import data_leaves
from .tiny_onnx import CLASSES, ELEMENTS, PRESENCE_THRESHOLD, write_model

SETTINGS = ReconstructSettings(reconstruction=ReconstructionConfig())
TOLERANT = DatasetConfig(dropped_objects_fraction_max=1.0)
C, T = "PandoraClusters", "SiTracks_Refitted"
B_TESLA = {"clic": 4.0, "cld": 2.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def events():
    rng = np.random.default_rng(8)
    return [random_event(rng, 4, 6, 7, 4) for _ in range(9)]


def reconstructed(tmp_path, model, path, detector="clic", settings=SETTINGS):
    outputs = tmp_path / "reco.parquet", tmp_path / "reco.root"
    dataset = dataset_settings(detector, dataset=TOLERANT)
    reconstruct_file(settings, dataset, path, model=model, output=outputs[0], edm4hep=outputs[1])
    return outputs


class Frames:
    """The events of a file, read as podio reads them."""

    def __init__(self, path):
        with uproot.open(path) as file:
            tree = file["events"]
            self.leaves = {
                key.split("/")[-1]: tree[key].array() for key in tree.keys(recursive=True)
            }
            tables = {"podio_metadata": "events___idTable", "metadata": "CollectionIDs"}
            tree, table = next(item for item in tables.items() if item[0] in file)
            found = {key.replace("/", "."): leaf for key, leaf in file[tree].items(recursive=True)}
            names, ids = (
                found[f"{table}.{leaf}"].array()[0].to_list()
                for leaf in ("m_names", "m_collectionIDs")
            )
        self.ids = dict(zip(ids, names, strict=True))

    def related(self, collection, relation, event, row):
        """Return (collection, index) of what a row refers to."""
        begin, end = (
            self.leaves[f"{collection}.{relation}_{edge}"][event][row] for edge in ("begin", "end")
        )
        stem = f"_{collection}_{relation}"
        return [
            (self.ids[self.leaves[f"{stem}.collectionID"][event][i]], index)
            for i, index in enumerate(self.leaves[f"{stem}.index"][event])
            if begin <= i < end
        ]


def energy_of(given, name, event, index, b_tesla, states):
    """Return the energy that a track or cluster of the input has by itself."""
    if name == C:
        return given.leaves[f"{C}.energy"][event][index]
    state = given.leaves[f"{T}.trackStates_begin"][event][index]
    omega, slope = (given.leaves[f"{states}.{m}"][event][state] for m in ("omega", "tanLambda"))
    return 0.299792458e-3 * b_tesla / abs(omega) * math.hypot(1, slope)


@pytest.mark.parametrize("modern", [True, False])
def test_candidates_lead_back_to_rows_of_the_input(tmp_path, model, events, modern):
    write_leaves(tmp_path / "data.root", data_leaves(events, modern), modern)
    output, edm4hep = reconstructed(tmp_path, model, tmp_path / "data.root")
    given, found = Frames(tmp_path / "data.root"), Frames(edm4hep)
    assert given.ids.items() >= {i: n for i, n in found.ids.items() if n in (T, C)}.items()
    states = f"_{T}_trackStates" if modern else f"{T}_1"
    referred = {T: 0, C: 0}
    for event, energies in enumerate(found.leaves["MLPFCandidates.energy"].to_list()):
        added = []  # the model adds the same to each candidate of an event
        for row, energy in enumerate(energies):
            of_tracks, of_clusters = (
                found.related("MLPFCandidates", relation, event, row)
                for relation in ("tracks", "clusters")
            )
            ((name, index),) = of_tracks + of_clusters
            assert name == (T if of_tracks else C)
            neutral = found.leaves["MLPFCandidates.charge"][event][row] == 0
            assert neutral == bool(of_clusters)
            own = energy_of(given, name, event, index, B_TESLA["clic"], states)
            added.append(energy - own)
            referred[name] += 1
        np.testing.assert_allclose(added, np.full(len(added), added[:1]), atol=1e-3)
    assert min(referred.values()) > 5
    parquet = read_table(output)
    assert ak.num(parquet.candidates).to_list() == ak.num(parquet.origins).to_list()


def test_a_network_that_fails_leaves_no_thread_that_reads_on(tmp_path, model, events, monkeypatch):
    write_leaves(tmp_path / "data.root", data_leaves(events, True), True)
    run = OnnxModel._run

    def fail(network, batch):
        assert reading_ahead()
        run(network, batch)
        raise UserError("no more")

    def reading_ahead():
        return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]

    monkeypatch.setattr(OnnxModel, "_run", fail)
    settings = ReconstructSettings(reconstruction=ReconstructionConfig(threads=2))
    with pytest.raises(UserError, match="no more") as caught:
        reconstructed(tmp_path, model, tmp_path / "data.root", settings=settings)
    assert caught.tb and not reading_ahead()


def test_candidates_of_a_full_simulation_file_lead_back_to_it(tmp_path, model):
    path = real_file("cld_hbb_full_rec_1ev.edm4hep.root")
    _, edm4hep = reconstructed(tmp_path, model, path, "cld")
    given, found = Frames(path), Frames(edm4hep)
    energies = found.leaves["MLPFCandidates.energy"][0].to_list()
    added = []
    for row, energy in enumerate(energies):
        ((name, index),) = [
            one
            for relation in ("tracks", "clusters")
            for one in found.related("MLPFCandidates", relation, 0, row)
        ]
        own = energy_of(given, name, 0, index, B_TESLA["cld"], f"_{T}_trackStates")
        added.append(energy - own)
    assert len(added) > 30
    np.testing.assert_allclose(added, np.full(len(added), added[0]), atol=1e-3)


def test_the_header_is_that_of_the_input(tmp_path, model, events):
    leaves = data_leaves(events)
    header = {"eventNumber": 40, "runNumber": 7, "timeStamp": 2**60, "weight": 0.25}
    for (member, value), dtype in zip(header.items(), ("u8", "u4", "u8", "f8"), strict=True):
        leaves[f"EventHeader.{member}"] = ([[value]] * 9, dtype)
    write_leaves(tmp_path / "data.root", leaves)
    _, edm4hep = reconstructed(tmp_path, model, tmp_path / "data.root")
    found = Frames(edm4hep).leaves
    for member, value in header.items():
        assert found[f"EventHeader.{member}"].to_list() == [[value]] * 9


def test_what_the_model_does_not_give_is_not_there(tmp_path, model, events):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    _, edm4hep = reconstructed(tmp_path, model, tmp_path / "data.root")
    assert not any("cov" in leaf for leaf in Frames(edm4hep).leaves)


def test_hits_are_referred_to_in_parquet_alone(tmp_path, events):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    described = {
        "elements": {"track": ELEMENTS["track"], "hit": ELEMENTS["cluster"]},
        "classes": CLASSES,
        "presence_threshold": PRESENCE_THRESHOLD,
    }
    model = write_model(tmp_path / "model.onnx", metadata=described)
    hits = TOLERANT.model_copy(update={"calorimeter_elements": "hits"})
    outputs = tmp_path / "reco.parquet", tmp_path / "reco.root"
    reconstruct_file(
        SETTINGS,
        dataset_settings(dataset=hits),
        tmp_path / "data.root",
        model=model,
        output=outputs[0],
        edm4hep=outputs[1],
    )
    names = {one["id"]: n for n, one in read_metadata(outputs[0])["collections"].items()}
    used = {names[i] for i in ak.flatten(read_table(outputs[0]).origins.collection).to_list()}
    assert used == {T, "ECALBarrel", "HCALBarrel", "MUON"}
    found = Frames(outputs[1]).leaves
    assert ak.sum(ak.num(found["_MLPFCandidates_clusters.index"])) == 0
    assert ak.sum(ak.num(found["_MLPFCandidates_tracks.index"])) > 0


def test_delphes_branches_are_named_as_collections(tmp_path, model):
    data = {name: objects for name, objects in EVENT.items() if name != "Particle"}
    write_delphes(tmp_path / "data.root", [data])
    _, edm4hep = reconstructed(tmp_path, model, tmp_path / "data.root", "cms_delphes")
    found = Frames(edm4hep)
    assert {found.ids[collection_id(name)] for name in ("Track", "Tower")} == {"Track", "Tower"}
    rows = range(len(found.leaves["MLPFCandidates.energy"][0]))
    related = [
        found.related("MLPFCandidates", relation, 0, row)
        for row in rows
        for relation in ("tracks", "clusters")
    ]
    assert sorted(one for found in related for one in found) == [
        ("Tower", 0),
        ("Tower", 1),
        ("Track", 0),
    ]


COPY = ReconstructSettings(reconstruction=ReconstructionConfig(copy_collections=True))


@pytest.mark.parametrize("ntuple", [True, False])
def test_what_is_referred_to_can_be_copied_as_it_is(tmp_path, model, events, ntuple):
    write_layout(tmp_path / "data.root", data_leaves(events), ntuple=ntuple, table="0.99")
    _, edm4hep = reconstructed(tmp_path, model, tmp_path / "data.root", settings=COPY)
    given, found = Frames(tmp_path / "data.root"), Frames(edm4hep)
    copied = [
        leaf
        for leaf in given.leaves
        if leaf.lstrip("_").startswith((f"{T}.", f"{C}.", f"{T}_", f"{C}_")) and "." in leaf
    ]
    assert {f"{C}.hits_end", f"_{C}_hits.collectionID", f"_{T}_trackStates.omega"} < set(copied)
    for leaf in copied:
        np.testing.assert_equal(found.leaves[leaf].to_list(), given.leaves[leaf].to_list())
    assert found.ids.items() >= {i: n for i, n in given.ids.items() if n != "EventHeader"}.items()
    table = uproot.open(edm4hep)["podio_metadata"]["events___CollectionTypeInfo"]
    kinds = dict(
        zip(*(table[leaf].array()[0].to_list() for leaf in ("name", "dataType")), strict=True)
    )
    assert (kinds[T], kinds[C]) == ("edm4hep::Track", "edm4hep::Cluster")
    assert not {"MCParticles", "ECALBarrel"} & set(kinds)


def test_what_cannot_be_copied_is_one_line(tmp_path, model, events):
    write_leaves(tmp_path / "old.root", data_leaves(events, False), False)
    with pytest.raises(
        UserError, match=r"old\.root: PandoraClusters has no _Pan\w+, as in files of"
    ):
        reconstructed(tmp_path, model, tmp_path / "old.root", settings=COPY)
    source = write_dataset(tmp_path / "events.parquet", synthetic_events(20, 3))
    outputs = {"output": tmp_path / "reco.parquet", "edm4hep": tmp_path / "reco.root"}
    with pytest.raises(UserError, match=r"events\.parquet: is no EDM4hep file, whose collections"):
        reconstruct_events(COPY, events=source, model=model, **outputs)
    assert not list(tmp_path.glob("reco*"))


def test_elements_of_a_parquet_file_are_no_rows_of_a_collection(tmp_path, model):
    source = write_dataset(tmp_path / "events.parquet", synthetic_events(20, 3))
    outputs = {"output": tmp_path / "reco.parquet", "edm4hep": tmp_path / "reco.root"}
    reconstruct_events(SETTINGS, events=source, model=model, **outputs)
    found = Frames(outputs["edm4hep"])
    assert set(found.ids.values()) == {"EventHeader", "MLPFCandidates", "MLPFCandidates_weight"}
    for relation in ("tracks", "clusters"):
        assert ak.sum(ak.num(found.leaves[f"_MLPFCandidates_{relation}.index"])) == 0
    assert "origins" not in read_table(outputs["output"]).fields


def test_two_threads_find_the_same_as_one(tmp_path, model, events):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    made = []
    for threads in (1, 2):
        settings = ReconstructSettings(reconstruction=ReconstructionConfig(threads=threads))
        (tmp_path / str(threads)).mkdir()
        dataset = dataset_settings(dataset=TOLERANT.model_copy(update={"chunk_events": 2}))
        outputs = tmp_path / str(threads) / "reco.parquet", tmp_path / str(threads) / "reco.root"
        file = tmp_path / "data.root"
        reconstruct_file(
            settings, dataset, file, model=model, output=outputs[0], edm4hep=outputs[1]
        )
        made.append(read_table(outputs[0]).to_list())
    assert len(made[0]) == 9
    assert made[0] == made[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_that_breaks_is_quarantined_as_a_whole(tmp_path, model, events, threads):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    read, calls = EventFile.jagged, []

    def breaking(file, leaf, start, stop):
        calls.append(start)
        if start > 3:
            raise UserError(f"{file.path}: broken")
        return read(file, leaf, start, stop)

    dataset = TOLERANT.model_copy(update={"chunk_events": 2, "on_bad_file": "quarantine"})
    settings = ReconstructSettings(reconstruction=ReconstructionConfig(threads=threads))
    with mock.patch.object(EventFile, "jagged", breaking):
        reconstruct_file(
            settings,
            dataset_settings(dataset=dataset),
            tmp_path / "data.root",
            model=model,
            output=tmp_path / "reco.parquet",
            edm4hep=tmp_path / "reco.root",
        )
    assert max(calls) > 3
    assert len(read_table(tmp_path / "reco.parquet")) == 0
    (one,) = read_metadata(tmp_path / "reco.parquet")["quarantined"]
    assert one == {"file": "data.root", "reason": "data.root: broken"}


def test_the_input_is_hashed_once(tmp_path, model, events, monkeypatch):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    hashed = []
    original = record.sha256
    monkeypatch.setattr(record, "sha256", lambda path: hashed.append(path) or original(path))
    output, _ = reconstructed(tmp_path, model, tmp_path / "data.root")
    assert hashed.count(tmp_path / "data.root") == 1
    inputs = read_metadata(output)["provenance"]["inputs"]
    assert original(tmp_path / "data.root") in inputs.values()


def test_the_command_imports_no_torch(tmp_path, model, events):
    write_leaves(tmp_path / "data.root", data_leaves(events))
    arguments = ["reconstruct-events", "--detector", "clic", "--config-dir", str(CONFIG)]
    arguments += ["--set", "dataset.dropped_objects_fraction_max=1", "--model", str(model)]
    arguments += ["--input", str(tmp_path / "data.root"), "--output", str(tmp_path / "out.parquet")]
    arguments += ["--edm4hep", str(tmp_path / "out.root")]
    code = (
        "import sys; from particleforge.cli import app\n"
        f"app({arguments!r}, standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "out.root").exists()
