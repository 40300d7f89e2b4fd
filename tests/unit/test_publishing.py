"""Folders laid out for others: what they hold, how they load, and what is refused."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.dataset as pd
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from particleforge.cli import app
from particleforge.errors import UserError
from particleforge.publishing.data import _size
from particleforge.tables.parquet import read_table
from particleforge.training.init_from import read_source

from .small_results import SAMPLES, make_results

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/models/clic"
CONFIG = ("--detector", "clic", "--config-dir", str(ROOT / "config"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("published"))


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def publish(target: Path, *arguments: object, licence: str = "apache-2.0") -> Path:
    call("publish", target, *CONFIG, "--license", licence, *arguments)
    return target


def front_matter(target: Path) -> tuple[dict[str, Any], str]:
    """Return what the hub reads at the head of the page, and the page."""
    _, head, page = (target / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), page


def check_sums(target: Path) -> None:
    """Have ``sha256sum`` read the checksums, which are those of every file."""
    command = ["sha256sum", "--strict", "--check", "SHA256SUMS"]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert {line.removesuffix(": OK") for line in done.stdout.splitlines()} == files - {
        "SHA256SUMS"
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("model") / "clic", "--source", MODEL)


def test_a_model_has_its_page_licence_and_checksums(model: Path) -> None:
    names = {"README.md", "LICENSE", "SHA256SUMS", "model.onnx", "best.pt", "metrics.json"}
    assert {path.name for path in model.iterdir()} == names
    check_sums(model)
    assert (model / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    head, page = front_matter(model)
    assert head["license"] == "apache-2.0"
    assert {"onnx", "clic", "particle-flow"} <= set(head["tags"])
    assert (MODEL / "model_card.md").read_text() in page
    found = json.loads((MODEL / "metrics.json").read_text())
    (result,) = head["model-index"][0]["results"]
    assert (
        result["metrics"][0]["value"]
        == (found["jets"]["inclusive"]["mlpf"]["response"]["resolution"]["value"])
    )
    assert f"{found['visible_energy']['mlpf']['resolution']['value']:.4f} ±" in page


def test_a_published_model_reconstructs_and_starts_a_training(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    events = folder / "results/clic/select/qq/00000.parquet"
    outputs = ("--output", tmp_path / "reco.parquet", "--edm4hep", tmp_path / "reco.root")
    call(
        "reconstruct-events", *CONFIG, "--input", events, "--model", model / "model.onnx", *outputs
    )
    assert len(read_table(tmp_path / "reco.parquet").candidates) > 0
    assert read_source(model / "best.pt").inputs.element_types == ("track", "cluster")


def test_a_run_is_found_by_its_detector(tmp_path: Path) -> None:
    for place in ("export/model.onnx", "train/best.pt", "export/model_card.md"):
        target = tmp_path / "results/clic" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODEL / target.name, target)
    results = ("--results", tmp_path / "results")
    with pytest.raises(
        UserError, match=r"metrics.json: no such file; run export_onnx and validate"
    ):
        publish(tmp_path / "shared", *results)
    assert not (tmp_path / "shared").exists()
    metrics = tmp_path / "results/clic/validate/metrics.json"
    metrics.parent.mkdir()
    shutil.copy(MODEL / "metrics.json", metrics)
    made = publish(tmp_path / "shared", *results)
    assert (made / "model.onnx").read_bytes() == (MODEL / "model.onnx").read_bytes()


def test_weights_of_another_export_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(MODEL, source)
    with (source / "best.pt").open("ab") as weights:
        weights.write(b"\0")
    with pytest.raises(UserError, match=r"best.pt: not the weights that .*model.onnx was exported"):
        publish(tmp_path / "shared", "--source", source)
    assert not (tmp_path / "shared").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is no empty folder; give the name of a new one"):
        publish(tmp_path, "--source", MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_licences(tmp_path: Path) -> None:
    made = publish(tmp_path / "cc", "--source", MODEL, licence="cc-by-4.0")
    assert "creativecommons.org/licenses/by/4.0" in (made / "LICENSE").read_text()
    (tmp_path / "text").write_text("As you like.\n")
    own = ("--source", MODEL, "--license-file", tmp_path / "text")
    made = publish(tmp_path / "own", *own, licence="wtfpl")
    assert (made / "LICENSE").read_text() == "As you like.\n"
    assert front_matter(made)[0]["license"] == "wtfpl"
    with pytest.raises(UserError, match=r"--license wtfpl: known are apache-2.0, cc-by-4.0, cc0-1"):
        publish(tmp_path / "unknown", "--source", MODEL, licence="wtfpl")


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shards") / "shards"
    return publish(target, "--what", "shards", "--results", folder / "results", licence="cc0-1.0")


def test_shards_have_a_configuration_by_split(shards: Path, folder: Path) -> None:
    check_sums(shards)
    head, page = front_matter(shards)
    (config,) = head["configs"]
    counts = {split["name"]: split["num_examples"] for split in head["dataset_info"][0]["splits"]}
    for entry in config["data_files"]:
        found = pd.dataset(sorted(shards.glob(entry["path"])))
        own = pd.dataset(
            folder / "results/clic/shards" / entry["split"], exclude_invalid_files=True
        )
        assert found.to_table() == own.to_table()
        assert found.count_rows() == counts.pop(entry["split"]) > 0
    assert counts == {}
    assert head["size_categories"] == ["n<1K"]
    assert "| `features` | `list<float32>` |" in page
    assert "| track | 0 | `pt` | GeV |" in page


def test_published_shards_can_be_trained_on(shards: Path, tmp_path: Path) -> None:
    manifest = ("--manifest", shards / "manifest.json")
    call("check-shards", *CONFIG, *manifest, "--output", tmp_path / "verdict.json", *work(tmp_path))
    assert json.loads((tmp_path / "verdict.json").read_text())["kind"]


def work(tmp_path: Path) -> tuple[str, Path]:
    return "--work-dir", tmp_path / "work"


def test_a_changed_shard_is_refused(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder / "results/clic/shards", source)
    shard = next((source / "train").glob("*.parquet"))
    pq.write_table(pq.read_table(shard).slice(1), shard)
    with pytest.raises(UserError, match=rf"{shard.name}: bytes other than those that its manifest"):
        publish(tmp_path / "shared", "--what", "shards", "--source", source)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.fixture(scope="module")
def events(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("events") / "events"
    return publish(target, "--what", "events", "--results", folder / "results", licence="cc0-1.0")


def test_events_have_a_configuration_by_sample(events: Path, folder: Path) -> None:
    check_sums(events)
    head, page = front_matter(events)
    assert [config["config_name"] for config in head["configs"]] == list(SAMPLES)
    for config, told in zip(head["configs"], head["dataset_info"], strict=True):
        (entry,) = config["data_files"]
        (path,) = events.glob(entry["path"])
        own = folder / f"results/clic/select/{config['config_name']}/00000.parquet"
        assert path.read_bytes() == own.read_bytes()
        assert pq.read_metadata(path).num_rows == told["splits"][0]["num_examples"]
    assert "| `tracks` | - | reconstructed charged-particle tracks" in page


def test_events_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no <sample>/<shard>.parquet; run select_events"):
        publish(tmp_path / "shared", "--what", "events", "--source", tmp_path)


@pytest.mark.filterwarnings("ignore")  # of the library's own imports
def test_hugging_face_datasets_loads_the_folders(
    shards: Path, events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(shards), cache_dir=str(tmp_path))
    for split in ("train", "valid", "test"):
        files = sorted((shards / split).glob("*.parquet"))
        assert found[split].to_list() == pd.dataset(files).to_table().to_pylist()
    found = datasets.load_dataset(str(events), "qq", split="events", cache_dir=str(tmp_path))
    assert found.to_list() == pq.read_table(events / "qq").to_pylist()


@pytest.mark.parametrize(
    ("events", "name"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (48_133, "10K<n<100K"), (2 * 10**9, "n>1B")],
)
def test_sizes_are_named_as_the_hub_names_them(events: int, name: str) -> None:
    assert _size(events) == name
