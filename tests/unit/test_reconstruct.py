"""Reconstruction with a small ONNX model: results, order, padding, no input, refusals, no torch."""

import subprocess
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.detector import ElementsConfig
from particleforge.config.reconstruction import ExportConfig, ReconstructionConfig
from particleforge.config.settings import ReconstructSettings
from particleforge.edm4hep.identities import collection_id
from particleforge.edm4hep.rootfile import TreeFile
from particleforge.errors import UserError
from particleforge.preprocessing.features import element_features
from particleforge.reconstruction.candidates import candidates_of
from particleforge.reconstruction.onnx_model import Predictions, padded_batches
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.tables import parquet

from .synthetic import synthetic_events, write_dataset
from .tiny_onnx import CLASSES, ELEMENTS, PRESENCE_THRESHOLD, expected, write_model

FEATURES = ElementsConfig.model_validate(
    {name: [{"name": f["name"]} for f in columns] for name, columns in ELEMENTS.items()}
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


def stage_settings(**changes: object) -> ReconstructSettings:
    return ReconstructSettings(reconstruction=ReconstructionConfig(**changes))


def run(folder: Path, events: Path, model: Path, **changes: object) -> tuple[Path, Path]:
    outputs = folder / "reco.parquet", folder / "reco.root"
    reconstruct_events(
        stage_settings(**changes), events=events, model=model, output=outputs[0], edm4hep=outputs[1]
    )
    return outputs


def reference(events: ak.Array) -> list[list[dict[str, float]]]:
    """Candidates of each event by itself, without padding."""
    found = []
    for i in range(len(events)):
        elements = element_features(events[i : i + 1], FEATURES)
        scores, charge, p4 = expected(elements.features, elements.element_type)
        mine = []
        for k in np.flatnonzero(scores[:, 0] < 0.5):
            class_id = 1 + int(np.argmax(scores[k, 1:]))
            code, q = CLASSES[class_id]["pdg"], int(charge[k])
            pdg = code if q == 0 else (q * code if code == 211 else -q * code)
            mine.append(
                {"pdg": pdg, "class_id": class_id, "charge": q, "element": int(k), "p4": p4[k]}
            )
        found.append(mine)
    return found


def assert_equal(reconstructed: ak.Array, wanted: list[list[dict[str, float]]]) -> None:
    candidates = reconstructed.candidates
    assert ak.num(candidates).to_list() == [len(event) for event in wanted]
    for name in ("pdg", "class_id", "charge", "element"):
        assert candidates[name].to_list() == [[c[name] for c in event] for event in wanted]
    flat = ak.flatten(candidates)
    got = np.stack([ak.to_numpy(flat[name]) for name in ("px", "py", "pz", "energy")], axis=1)
    np.testing.assert_allclose(
        got,
        np.array([c["p4"] for event in wanted for c in event]).reshape(-1, 4),
        rtol=2e-5,
        atol=2e-5,
    )


def test_candidates_equal_those_of_each_event_alone(tmp_path: Path, model: Path) -> None:
    events = synthetic_events(90, 11)
    source = write_dataset(tmp_path / "events.parquet", events, row_group_size=40)
    output, edm4hep = run(tmp_path, source, model, elements_per_batch=128)
    found = parquet.read_table(output)
    assert found.event_id.to_list() == events.event_id.to_list()
    assert {11, -11, 211, -211, 22} == set(ak.flatten(found.candidates.pdg).to_list())
    assert_equal(found, reference(events))
    with uproot.open(edm4hep) as file:
        particles = file["events"]
        assert particles["MLPFCandidates.PDG"].array().to_list() == found.candidates.pdg.to_list()
        assert particles["EventHeader.eventNumber"].array().to_list() == [
            [n] for n in events.event_number.to_list()
        ]
        for axis in "xyz":
            assert ak.all(
                particles[f"MLPFCandidates.momentum.{axis}"].array() == found.candidates[f"p{axis}"]
            )
        mass = np.array([0, *(c["mass_gev"] for c in CLASSES[1:])], np.float32)
        np.testing.assert_array_equal(
            ak.flatten(particles["MLPFCandidates.mass"].array()).to_numpy(),
            mass[ak.flatten(found.candidates.class_id).to_numpy()],
        )


def test_candidates_are_what_is_above_the_minimum_and_carry_their_weight() -> None:
    weight = np.array([0.0, 0.3, 0.02, 0.0201, 1.0, 0.6], np.float32)
    given_present = np.array([[0.2, 0.0, 0.5, 0.3, 0.0]] * 6, np.float32)
    found = Predictions(
        np.concatenate(((1 - weight)[:, None], weight[:, None] * given_present), 1),
        np.ones(6, np.int64),
        np.arange(24, dtype=np.float32).reshape(6, 4),
        weight,
    )
    candidates = candidates_of(found, np.array([3, 0, 3], np.int32), CLASSES, 0.02)
    assert candidates.element.to_list() == [[1], [], [0, 1, 2]]
    assert candidates.weight.to_list() == [[weight[1]], [], weight[3:].tolist()]
    assert candidates.px.to_list() == [[4], [], [12, 16, 20]]  # as predicted, unweighted
    # what is less probable than no particle has a particle's class, too
    assert set(ak.flatten(candidates.pdg).to_list()) == {22}


def test_weights_lie_beside_the_particles(tmp_path: Path, model: Path) -> None:
    source = write_dataset(tmp_path / "events.parquet", synthetic_events(90, 16), row_group_size=40)
    output, edm4hep = run(tmp_path, source, model, collection="Found")
    found = parquet.read_table(output)
    assert ak.all(found.candidates.weight == np.float32(0.9))
    assert parquet.read_metadata(output)["presence_threshold"] == PRESENCE_THRESHOLD
    with uproot.open(edm4hep) as file:
        weight = file["events"]["Found_weight"].array()
        assert weight.to_list() == found.candidates.weight.to_list()
        assert "float32" in str(weight.type)
        assert ak.num(weight).to_list() == ak.num(file["events"]["Found.PDG"].array()).to_list()
        table = file["podio_metadata"]["events___CollectionTypeInfo"]
        names, kinds, numbers = (
            table[leaf].array()[0].to_list() for leaf in ("name", "dataType", "collectionID")
        )
    assert (names[-1], kinds[-1]) == ("Found_weight", "podio::UserDataCollection<float>")
    assert numbers[-1] == collection_id("Found_weight")
    with TreeFile(edm4hep) as back:  # what reads EDM4hep here is not put off by it
        assert back.type_of("Found") == "ReconstructedParticle"
        counts, values = back.jagged("Found_weight", 0, back.n_events)
        assert counts.tolist() == ak.num(found.candidates).to_list()
        assert values.tolist() == ak.flatten(found.candidates.weight).to_list()


def test_latents_lie_beside_the_candidates_where_they_are_asked_for(tmp_path: Path) -> None:
    events = synthetic_events(90, 17)
    source = write_dataset(tmp_path / "events.parquet", events, row_group_size=40)
    model = write_model(tmp_path / "model.onnx", latents=3)
    output, edm4hep = run(tmp_path, source, model, latents=True, elements_per_batch=64)
    found = parquet.read_table(output)
    of_event = element_features(events, FEATURES)
    first = np.cumsum(of_event.n_elements) - of_event.n_elements
    places = ak.flatten(found.candidates.element + first).to_numpy()
    assert len(places) > 100
    assert ak.num(found.latents).to_list() == ak.num(found.candidates).to_list()
    assert str(found.latents.type) == "90 * var * 3 * float16"
    np.testing.assert_array_equal(
        ak.flatten(found.latents).to_numpy(), of_event.features[places, :3].astype(np.float16)
    )
    with uproot.open(edm4hep) as file:
        assert "latents" not in " ".join(file["events"].keys())
    plain = parquet.read_table(run(tmp_path / "plain", source, model, elements_per_batch=64)[0])
    assert plain.fields == [name for name in found.fields if name != "latents"]
    assert plain.candidates.to_list() == found.candidates.to_list()


def test_settings_without_latents_are_what_they_were() -> None:
    assert "latents" not in stage_settings().plain()["reconstruction"]
    assert "latents" not in ExportConfig().model_dump()


@pytest.mark.parametrize("n_events", [0, 1])
def test_events_without_elements_have_no_latents(tmp_path: Path, n_events: int) -> None:
    source = write_dataset(tmp_path / "events.parquet", synthetic_events(29, 14)[28:][:n_events])
    model = write_model(tmp_path / "model.onnx", latents=2)
    found = parquet.read_table(run(tmp_path, source, model, latents=True)[0])
    assert found.latents.to_list() == [[]] * n_events


def test_latents_that_a_model_lacks_are_refused(tmp_path: Path, model: Path) -> None:
    source = write_dataset(tmp_path / "events.parquet", synthetic_events(4, 7))
    with pytest.raises(
        UserError,
        match=r"model.onnx: has no output latents, which .*; export .* with export.latents: true$",
    ):
        run(tmp_path, source, model, latents=True)


def test_latents_beyond_what_the_column_holds_are_refused(tmp_path: Path) -> None:
    events = synthetic_events(4, 7)
    pt = events.tracks.pt * 0 + 1e5
    events = ak.with_field(events, ak.with_field(events.tracks, pt, "pt"), "tracks")
    source = write_dataset(tmp_path / "events.parquet", events)
    model = write_model(tmp_path / "model.onnx", latents=2)
    with pytest.raises(UserError, match=r"\d+ values of output latents are beyond float16; set"):
        run(tmp_path, source, model, latents=True)


def test_batches_do_not_matter_and_bytes_repeat(tmp_path: Path, model: Path) -> None:
    events = synthetic_events(60, 12)
    wanted = reference(events)
    source = write_dataset(tmp_path / "events.parquet", events, row_group_size=25)
    outputs = []
    for name, budget in (("a", 64), ("b", 100_000), ("c", 64)):
        files = run(tmp_path / name, source, model, elements_per_batch=budget)
        assert_equal(parquet.read_table(files[0]), wanted)
        outputs.append([file.read_bytes() for file in files])
    assert outputs[0] == outputs[2]
    shuffled = np.random.default_rng(1).permutation(len(events))
    write_dataset(source, events[shuffled])
    found = parquet.read_table(run(tmp_path / "d", source, model)[0])
    assert_equal(found[np.argsort(shuffled)], wanted)


def test_only_the_chosen_splits_of_a_selected_file(tmp_path: Path, model: Path) -> None:
    events = synthetic_events(50, 13)
    split = np.array(["train", "valid", "test"])[np.arange(50) % 3]
    selected = ak.with_field(events, ak.from_numpy(split), "split")
    source = tmp_path / "selected.parquet"
    types = parquet.SELECTED_SCHEMA
    parquet.write_table(
        source, [parquet.to_arrow(selected, types)], types, {"sample": "ttbar"}, row_group_size=7
    )
    found = parquet.read_table(run(tmp_path, source, model, splits=("valid", "test"))[0])
    assert found.event_id.to_list() == events.event_id[split != "train"].to_list()


@pytest.mark.parametrize("n_events", [0, 1])
def test_no_events_and_events_without_elements(tmp_path: Path, model: Path, n_events: int) -> None:
    events = synthetic_events(29, 14)[28 : 28 + n_events]  # the 29th is empty
    assert ak.sum(ak.num(events.targets)) == 0
    output, edm4hep = run(tmp_path, write_dataset(tmp_path / "events.parquet", events), model)
    assert ak.num(parquet.read_table(output).candidates, axis=1).to_list() == [0] * n_events
    with uproot.open(edm4hep) as file:
        assert file["events"]["MLPFCandidates.PDG"].array().to_list() == [[]] * n_events


@pytest.mark.fault("values that are not finite")
def test_refusals_name_the_file_and_the_remedy(tmp_path: Path, model: Path) -> None:
    events = synthetic_events(20, 15)
    source = write_dataset(tmp_path / "events.parquet", events)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:200])
    with pytest.raises(
        UserError, match=r"broken.onnx: not a usable ONNX model .*; rerun export_onnx"
    ):
        run(tmp_path, source, broken)
    with pytest.raises(UserError, match=r"foreign.onnx: metadata do not tell elements, .*again$"):
        run(tmp_path, source, write_model(tmp_path / "foreign.onnx", metadata={"classes": CLASSES}))
    with pytest.raises(UserError, match=r"old.onnx: lacks output weight.*export the model again$"):
        run(tmp_path, source, write_model(tmp_path / "old.onnx", older=True))
    with pytest.raises(
        UserError, match=r"presence_min: 0.4 is above the presence threshold of .*model.onnx, 0.37;"
    ):
        run(tmp_path, source, model, presence_min=0.4)
    poisoned = events.tracks.pt * np.where(np.arange(20) == 3, np.nan, 1)
    write_dataset(
        source, ak.with_field(events, ak.with_field(events.tracks, poisoned, "pt"), "tracks")
    )
    with pytest.raises(
        UserError,
        match=rf"events.parquet: tracks.pt: {ak.num(events.tracks)[3]} values are not finite",
    ):
        run(tmp_path, source, model)
    assert not list(tmp_path.glob("reco*"))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=40), budget=st.integers(1, 200))
def test_batches_hold_each_element_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(padded_batches(np.array(lengths, np.int64), budget))
    places = np.concatenate([batch[batch >= 0] for batch in batches]) if batches else np.zeros(0)
    assert sorted(places.tolist()) == list(range(sum(lengths)))
    assert all(batch.size <= budget or len(batch) == 1 for batch in batches)
    assert all((batch >= 0).any(axis=1).all() for batch in batches)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, particleforge.reconstruction.reconstruct; print([m for m in ('torch', 'onnx')"
        " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_provider_that_is_not_there_is_passed_over_with_one_line(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_dataset(tmp_path / "events.parquet", synthetic_events(4, 7))
    wanted = ("TensorrtExecutionProvider", "CPUExecutionProvider")
    there = run(tmp_path, source, model, execution_providers=wanted)
    table = parquet.read_table(there[0])
    told = [one for one in caplog.messages if "execution_providers" in one]
    assert len(told) == 1
    assert "TensorrtExecutionProvider cannot be used here" in told[0]
    assert "going on with CPUExecutionProvider" in told[0]
    again = parquet.read_table(run(tmp_path, source, model)[0])
    assert table["candidates"].to_list() == again["candidates"].to_list()
