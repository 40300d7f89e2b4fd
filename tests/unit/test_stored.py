"""What the package itself wrote is read as if a stranger had: kinds, forms, seals."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper

from particleforge.checks.statistics import shard_statistics
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import (
    ExportSettings,
    ReconstructSettings,
    SelectSettings,
    ShardSettings,
)
from particleforge.dataset.accounting import read_accounts
from particleforge.errors import UserError
from particleforge.export.onnx_model import export_onnx
from particleforge.model.inputs import ModelInputs
from particleforge.model.saved import deserialise, load_model, serialise
from particleforge.preprocessing.shards import write_shards
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.selection.select import select_events
from particleforge.stored import NO_SEAL, Stored, read_stored, sealed
from particleforge.tables import parquet
from particleforge.training.init_from import read_source
from particleforge.validation.validate import validate_model

from .synthetic import synthetic_events, write_dataset
from .synthetic_shards import write_model as write_trained
from .tiny_onnx import CLASSES, ELEMENTS, write_model
from .validation_inputs import CONFIG, validate_settings, visible, write_pair

RUN = load_run(CONFIG, {"preset": "smoke"})
CLIC = load_detector(CONFIG, "clic")


class Note(Stored):
    KIND = "note"
    REMEDY = "write it again"
    value: float


@pytest.mark.fault("damaged record")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "note", "value": 1', r"note.json: not readable as JSON \(.*\); write it again"),
        ('{"kind": "note", "value": NaN}', "note.json: not readable as JSON .*NaN is no number"),
        ("[" * 100_000, "note.json: not readable as JSON"),
        ('{"kind": "note", "value": "x"}', "note.json: value: .*number.*; write it again"),
        ('{"kind": "note"}', "note.json: value: Field required; write it again"),
        ("[1]", "note.json: holds no object with keys; write it again"),
        ('{"value": 1}', "note.json: kind: missing.*'note' is expected; write it again"),
        ('{"kind": "shard"}', "note.json: kind: is 'shard' where 'note' is expected; write"),
    ],
)
def test_json_is_held_to_its_model(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "note.json"
    path.write_text('{"kind": "note", "value": 1.5, "more": true}')
    assert read_stored(path, Note).value == 1.5
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_stored(path, Note)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One table of each kind."""
    folder = tmp_path_factory.mktemp("tables")
    events = synthetic_events(30, 3, mean_particles=5)
    selected, reconstructed = write_pair(folder, events, visible(events))
    shard = folder / "shard.parquet"
    parquet.write_shard(shard, parquet.SHARD_SCHEMA.empty_table(), {})
    dataset = write_dataset(folder / "dataset.parquet", events)
    return {
        "dataset": dataset,
        "selected": selected,
        "reconstructed": reconstructed,
        "shard": shard,
    }


def without_kind(path: Path, copy: Path) -> Path:
    """Return a copy of a table as an older version wrote it."""
    told = parquet.read_metadata(path)
    del told["kind"]
    return retold(pq.read_table(path), told, copy)


def retold(table: pa.Table, told: dict[str, Any], path: Path) -> Path:
    """Write a table with metadata of its own, past the writer."""
    pq.write_table(table.replace_schema_metadata({parquet.METADATA_KEY: json.dumps(told)}), path)
    return path


def reconstruct(tmp_path: Path, table: Path) -> None:
    reconstruct_events(
        ReconstructSettings(reconstruction=RUN.reconstruction),
        events=table,
        model=write_model(tmp_path / "model.onnx"),
        output=tmp_path / "out.parquet",
        edm4hep=tmp_path / "out.root",
    )


def select(tmp_path: Path, table: Path) -> None:
    settings = SelectSettings.of(RUN, CLIC, sample_name="qq")
    select_events(
        settings, dataset=table, output=tmp_path / "o.parquet", cutflow=tmp_path / "c.json"
    )


def shards(tmp_path: Path, table: Path) -> None:
    write_shards(ShardSettings.of(RUN, CLIC), [table], tmp_path / "shards")


@pytest.mark.fault("file of another kind")
@pytest.mark.parametrize(
    ("stage", "expected"),
    [(reconstruct, ("dataset", "selected")), (select, ("dataset",)), (shards, ("selected",))],
)
def test_a_stage_takes_tables_of_its_kinds_only(
    tmp_path: Path,
    tables: dict[str, Path],
    stage: Callable[[Path, Path], None],
    expected: tuple[str, ...],
) -> None:
    for kind, table in tables.items():
        if kind not in expected:
            told = f"{table.name}: kind: is '{kind}' where '{expected[0]}'.* is expected; give"
            with pytest.raises(UserError, match=told):
                stage(tmp_path, table)
    older = without_kind(tables[expected[0]], tmp_path / "older.parquet")
    with pytest.raises(UserError, match=r"older.parquet: kind: missing, as an older version"):
        stage(tmp_path, older)


def validate(tmp_path: Path, *pairs: tuple[Path, Path]) -> None:
    validate_model(
        validate_settings(),
        selected=[pair[0] for pair in pairs],
        reconstructed=[pair[1] for pair in pairs],
        metrics=tmp_path / "metrics.json",
        histograms=tmp_path / "histograms.json",
        plots=tmp_path / "plots",
    )


@pytest.mark.fault("file of another kind")
def test_validation_takes_no_baseline_for_the_model(
    tmp_path: Path, tables: dict[str, Path]
) -> None:
    selected, reconstructed = tables["selected"], tables["reconstructed"]
    with pytest.raises(UserError, match=r"kind: is 'selected' where 'reconstructed' is expected"):
        validate(tmp_path, (selected, selected))
    with pytest.raises(UserError, match=r"kind: is 'reconstructed' where 'selected' is expected"):
        validate(tmp_path, (reconstructed, selected))


@pytest.mark.fault("input given twice")
def test_validation_counts_no_event_twice(tmp_path: Path, tables: dict[str, Path]) -> None:
    pair = tables["selected"], tables["reconstructed"]
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(pair[1].read_bytes())
    for again in (pair[1], copy):
        with pytest.raises(UserError, match=r"events are in .*, too, and would be counted twice"):
            validate(tmp_path, pair, (pair[0], again))


@pytest.mark.fault("input given twice")
def test_shards_hold_no_file_twice(tmp_path: Path, tables: dict[str, Path]) -> None:
    table = tables["selected"]
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(table.read_bytes())
    for again in (table, copy):
        with pytest.raises(UserError, match=r"parquet: given twice, or a copy of"):
            write_shards(ShardSettings.of(RUN, CLIC), [table, again], tmp_path / "shards")


@pytest.mark.fault("file of another kind")
@pytest.mark.parametrize("change", ["renamed", "retyped"])
def test_a_table_whose_columns_were_changed_is_refused(
    tmp_path: Path, tables: dict[str, Path], change: str
) -> None:
    table = pq.read_table(tables["dataset"])
    position = table.schema.get_field_index("weight")
    column = table["weight"]
    table = (
        table.rename_columns([f"x{n}" if n == "tracks" else n for n in table.column_names])
        if change == "renamed"
        else table.set_column(position, "weight", column.cast(pa.float32()))
    )
    retold(table, parquet.read_metadata(tables["dataset"]), tmp_path / "changed.parquet")
    told = "column tracks is missing" if change == "renamed" else "column weight has another type"
    with pytest.raises(UserError, match=f"changed.parquet: {told}"):
        select(tmp_path, tmp_path / "changed.parquet")


def described(**changes: Any) -> dict[str, Any]:
    told = {"elements": ELEMENTS, "classes": CLASSES, "presence_threshold": 0.4}
    return {**told, **changes}


@pytest.mark.fault("exchanged or edited model")
@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (described(classes=CLASSES[:3]), "class_scores is .*, its metadata tell .* 3 columns"),
        (described(classes=CLASSES[::-1]), "classes: are muon, .*, not none and then others"),
        (described(classes=[*CLASSES[:3], {"name": "muon"}]), "muon lacks pdg, charged or mass"),
        (
            described(elements={**ELEMENTS, "track": [*ELEMENTS["track"], {"name": "d0"}]}),
            "metadata do not tell elements",
        ),
        (
            described(elements={**ELEMENTS, "track": ELEMENTS["track"][::-1][:5]}),
            "metadata do not tell elements",
        ),
        (described(presence_threshold=1.5), "presence_threshold"),
        (described(kind="shard"), "kind"),
        (described(normalisation={"track": {"mean": [0.0]}}), "track.mean does not match"),
    ],
)
def test_a_network_must_be_what_its_metadata_say(
    tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    OnnxModel(write_model(tmp_path / "older.onnx"), 1)  # has neither kind nor seal
    with pytest.raises(UserError, match=rf"model.onnx: .*{message}"):
        OnnxModel(write_model(tmp_path / "model.onnx", metadata=metadata), 1)


@pytest.mark.fault("exchanged or edited model")
def test_a_sealed_model_is_read_as_it_was_written_only(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", metadata=described(sha256=NO_SEAL))
    path.write_bytes(sealed(path.read_bytes()))
    seal = json.loads(OnnxModel(path, 1)._session.get_modelmeta().custom_metadata_map["sha256"])
    model = onnx.load(path)
    permuted = [CLASSES[0], CLASSES[2], CLASSES[1], *CLASSES[3:]]
    told = described(sha256=seal, classes=permuted)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in told.items()})
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"model.onnx: was changed since export_onnx wrote it"):
        OnnxModel(path, 1)


@pytest.mark.fault("exchanged or edited model")
def test_classes_in_another_order_than_the_detectors_are_refused(
    tmp_path: Path, tables: dict[str, Path]
) -> None:
    permuted = described(classes=[CLASSES[0], CLASSES[2], CLASSES[1], *CLASSES[3:]])
    with pytest.raises(UserError, match=r"model.onnx: classes: are .*, in this order; train with"):
        reconstruct_events(
            ReconstructSettings.of(RUN, CLIC),
            events=tables["dataset"],
            model=write_model(tmp_path / "model.onnx", metadata=permuted),
            output=tmp_path / "out.parquet",
            edm4hep=tmp_path / "out.root",
        )


@pytest.mark.fault("pipe or device in the place of a file")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (lambda: read_stored(pipe, Note), lambda: parquet.read_metadata(pipe)):
        with pytest.raises(UserError, match="pipe: no regular file, but a pipe or device"):
            read()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest, and a model as a training of its shards writes it."""
    return write_trained(tmp_path_factory.mktemp("trained"))


def changed_model(path: Path, copy: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = deserialise(path.read_bytes(), path)
    change(content)
    copy.write_bytes(serialise(content))
    return copy


@pytest.mark.fault("exchanged or edited model")
def test_weights_must_be_numbers(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    older = changed_model(trained[1], tmp_path / "old.pt", lambda content: content.pop("kind"))
    load_model(older)  # one of a training that began with an older version

    def poison(content: dict[str, Any]) -> None:
        content["weights"]["encoder.project.weight"][0, :2] = float("nan")

    bad = changed_model(trained[1], tmp_path / "bad.pt", poison)
    for read in (load_model, read_source):
        with pytest.raises(
            UserError, match=r"bad.pt: weights.encoder.project.weight: 2 of \d+ values are not fin"
        ):
            read(bad)
    other = changed_model(
        trained[1], tmp_path / "bad.pt", lambda content: content.update(kind="checkpoint")
    )
    with pytest.raises(UserError, match=r"bad.pt: kind: is 'checkpoint' where 'model' is expected"):
        load_model(other)


def swap_features(described: dict[str, Any]) -> None:
    track = described["elements"]["track"]
    track[5], track[6] = track[6], track[5]


def permute_classes(described: dict[str, Any]) -> None:
    classes = described["classes"]
    classes[1], classes[2] = classes[2], classes[1]


@pytest.mark.fault("exchanged or edited model")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap_features, r"best.pt: elements.track: .*charge none, d0 asinh.*d0 asinh, charge none"),
        (permute_classes, r"best.pt: classes: none, charged_hadron 211.*; in .*; give the manif"),
    ],
)
def test_the_order_of_features_and_classes_is_the_shards(
    tmp_path: Path, trained: tuple[Path, Path], change: Callable[[Any], None], message: str
) -> None:
    manifest, model = trained
    described = json.loads(manifest.read_text())
    change(described)
    other = tmp_path / "manifest.json"
    other.write_text(json.dumps(described))
    with pytest.raises(UserError, match=message):
        export_onnx(
            ExportSettings(export={}, origin=""),
            detector="clic",
            checkpoint=model,
            manifest=other,
            onnx=tmp_path / "model.onnx",
            parity=tmp_path / "parity.json",
            model_card=tmp_path / "card.md",
        )


def name_twice(described: dict[str, Any]) -> None:
    train = described["splits"]["train"]["shards"]
    train.append(train[0])


@pytest.mark.fault("damaged record")
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("manifest.json", lambda d: d.pop("classes"), "manifest.json: classes: Field required; re"),
        ("manifest.json", name_twice, r"splits.train: .*names train/00000.parquet twice"),
        ("manifest.json", lambda d: d.update(n_features=3), "n_features is 3, elements have up to"),
        ("manifest.json", lambda d: d.update(kind="cutflow"), "kind: is 'cutflow' where 'manif"),
        ("normalisation.json", lambda d: d["track"]["std"].__setitem__(0, 0.0), "track.std.0: "),
        ("normalisation.json", lambda d: d.pop("cluster"), "normalisation.json: cluster: missing"),
    ],
)
def test_what_describes_shards_is_held_to_its_form(
    tmp_path: Path,
    trained: tuple[Path, Path],
    file: str,
    change: Callable[[Any], None],
    message: str,
) -> None:
    for name in ("manifest.json", "normalisation.json"):
        described = json.loads(trained[0].with_name(name).read_text())
        if name == file:
            change(described)
        (tmp_path / name).write_text(json.dumps(described))
    with pytest.raises(UserError, match=message):
        ModelInputs.from_manifest(tmp_path / "manifest.json")


@pytest.mark.fault("damaged Parquet file")
def test_a_byte_that_changed_in_a_table_is_noticed(tmp_path: Path, tables: dict[str, Path]) -> None:
    """Compressed numbers decode to others without complaint; the checksum of their page tells."""
    sound = tables["reconstructed"].read_bytes()
    group = pq.read_metadata(tables["reconstructed"]).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    (chunk,) = [one for one in columns if one.path_in_schema.endswith("candidates.list.element.px")]
    last = chunk.data_page_offset + chunk.total_compressed_size - 1
    path = tmp_path / "flipped.parquet"
    path.write_bytes(sound[:last] + bytes([sound[last] ^ 1]) + sound[last + 1 :])
    for read in (parquet.read_table, lambda path: list(parquet.iter_tables(path))):
        with pytest.raises(UserError, match=r"flipped.parquet: damaged Parquet file"):
            read(path)


@pytest.mark.fault("exchanged or edited model")
def test_a_byte_that_changed_in_a_model_is_noticed(
    tmp_path: Path, trained: tuple[Path, Path]
) -> None:
    """A byte of a weight, of the length of a part's name, of what a part says to be."""
    sound = trained[1].read_bytes()
    weights = deserialise(sound, trained[1])["weights"]
    value = weights["encoder.project.weight"].numpy().tobytes()
    flipped = tmp_path / "flipped.pt"
    for place in (sound.index(value), 26, sound.index(b"PK\x01\x02") + 38):
        content = bytearray(sound)
        content[place] ^= 16
        flipped.write_bytes(content)
        for read in (load_model, read_source):
            with pytest.raises(UserError, match=r"flipped.pt: .* does not match its checksum"):
                read(flipped)


@pytest.mark.fault("exchanged or edited model")
def test_metadata_of_a_network_must_be_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(b"charged_hadron", b"charged\xffhadron", 1))
    with pytest.raises(UserError, match=r"model.onnx: not a usable ONNX model"):
        OnnxModel(path, 1)
    assert capsys.readouterr().out == ""


@pytest.mark.fault("damaged record")
def test_the_metadata_of_a_dataset_are_held_to_their_form(
    tmp_path: Path, tables: dict[str, Path]
) -> None:
    told = parquet.read_metadata(tables["dataset"])
    account = {"file": "a", "events": 1, "counts": {}, "energy_balance_gev": {"no such": 1.0}}
    path, table = tmp_path / "odd.parquet", pq.read_table(tables["dataset"])
    told["provenance"] = {"settings": {"sample_name": "qq"}}
    retold(table, {**told, "counts": {"events": [30]}}, path)
    with pytest.raises(UserError, match=r"odd.parquet: counts.events: .*; rerun build_dataset"):
        shard_statistics(path, parquet.DATASET_SCHEMA)
    retold(table, {**told, "files": [account], "energy_balance_gev": {}}, path)
    with pytest.raises(UserError, match=r"odd.parquet: its energy accounting is damaged"):
        read_accounts([path])
    for bad in ("text", {"settings": 0.5}):
        retold(table, {**told, "provenance": bad}, path)
        with pytest.raises(UserError, match=r"odd.parquet: provenance.*; rerun build_dataset"):
            shard_statistics(path, parquet.DATASET_SCHEMA)
