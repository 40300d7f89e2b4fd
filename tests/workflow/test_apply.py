"""The target ``apply``: a model on given files that hold no truth, local and on a server."""

import numpy as np
import pytest
import uproot
from chain import Chain
from tests.unit.edm4hep_events import random_event, write_leaves
from tests.unit.http_server import serving
from tests.unit.test_no_truth import data_leaves
from tests.unit.tiny_onnx import write_model

from particleforge.tables.parquet import read_metadata, read_table

TOLERANT = "dataset={dropped_objects_fraction_max: 1.0}"


@pytest.fixture
def start(tmp_path):
    """A new folder with a model, a file here and one of the same name on a server."""
    new = Chain.new(tmp_path / "new")
    write_model(new.folder / "model.onnx")
    rng = np.random.default_rng(2)
    for name in ("data/run_1.root", "run_1.root"):
        (new.folder / name).parent.mkdir(exist_ok=True)
        events = [random_event(rng, 4, 5, 6, 4) for _ in range(4)]
        write_leaves(new.folder / name, data_leaves(events))
    with serving() as server:
        server.files["/far/run_1.root"] = (new.folder / "run_1.root").read_bytes()
        yield new, server


def config_of(*files, **more):
    settings = {"files": f"[{', '.join(files)}]", "model": "model.onnx", **more}
    return TOLERANT, f"apply={{{', '.join(f'{key}: {value}' for key, value in settings.items())}}}"


def test_each_file_is_reconstructed_without_truth_or_training(start):
    new, server = start
    both = config_of("data", f"{server.url}/far/run_1.root")
    assert new.planned("apply", config=both) == {"fetch_file": 1, "apply_model": 2, "apply": 1}
    new.run("apply", config=both)
    written = [name for name in new.visible_files() if name.startswith("apply/")]
    assert [name for name in written if not name.endswith(".json")] == [
        f"apply/0000{number}_run_1.{kind}" for number in (0, 1) for kind in ("parquet", "root")
    ]
    for number in (0, 1):
        output = new.results / f"apply/0000{number}_run_1.parquet"
        assert "collections" in read_metadata(output)
        numbers = read_table(output).event_number.to_list()
        with uproot.open(output.with_suffix(".root")) as file:
            header = file["events"]["EventHeader.eventNumber"].array().to_list()
        assert header == [[n] for n in numbers] == [[0], [1], [2], [3]]
    # a file keeps its number and its outputs when others come or go
    fewer = config_of(f"{server.url}/far/run_1.root")
    assert new.run("apply", "-n", config=fewer).count("Nothing to be done") == 1


def test_without_a_model_the_run_makes_its_own(start):
    new, _ = start
    planned = new.planned("apply", config=config_of("data", model="null"))
    assert planned["apply_model"] == planned["train_model"] == planned["export_onnx"] == 1


@pytest.mark.fault("files to apply a model to that cannot be")
def test_what_cannot_be_is_one_line(start):
    new, _ = start
    for config, said in (
        (config_of("nowhere.root"), "apply.files: nowhere.root: no such file"),
        (config_of("data", model="no.onnx"), "apply.model: no.onnx: no such file; give the model"),
        ((*config_of("data"), "detector=clic,cld"), "apply.files: are files of one detector"),
        (config_of("data", checksums="{run_2.root: 'md5:" + "0" * 32 + "'}"), "apply.checksums: "),
        ((), "apply.files: names no file; give those to reconstruct"),
    ):
        text = new.run("apply", config=config, check=False)
        assert sum(line.startswith(said) for line in text.splitlines()) == 1, text
        assert "Traceback" not in text
    assert not new.results.exists()
