"""The command line does what the workflow does, on files of the user's own."""

import json
import subprocess

import pytest
from chain import BIN, PATIENCE_S, ROOT, environment

from particleforge.artefacts import sha256
from particleforge.tables.parquet import read_table


def particleforge(*arguments, cwd, check=True):
    done = subprocess.run(
        [BIN / "particleforge", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done


def checks(verdict):
    """Return all of a verdict but what made it."""
    return {
        key: value for key, value in json.loads(verdict.read_text()).items() if key != "provenance"
    }


COMMANDS = [
    "simulate-events",
    "build-dataset",
    "check-dataset",
    "compare-samples",
    "select-events",
    "write-shards",
    "check-shards",
    "train-model",
    "export-onnx",
    "reconstruct-events",
    "validate-model",
    "show-config",
    "publish",
    "status",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    assert "--detector" in particleforge(command, "--help", cwd=ROOT).stdout


@pytest.fixture
def by_hand(chain, tmp_path):
    """Return a function that runs a command with the chain's settings in a folder of its own."""
    config = ("--detector", "clic", "--preset", "tiny", "--config-dir", chain.folder / "config")

    def run(command, *arguments):
        return particleforge(command, *config, *arguments, cwd=tmp_path)

    return run


SAMPLES = ("ttbar", "qq", "ww")
SHARD = "ttbar/00001"


def inputs(paths):
    return [word for path in paths for word in ("--input", path)]


def test_data_stages_by_hand_give_the_same_bytes(chain, by_hand, tmp_path):
    results, out = chain.results, tmp_path / "ttbar"
    sample = ("--sample", "ttbar")
    by_hand("simulate-events", *sample, "--shard", 1, "--output", out / "00001.root")
    simulated = results / f"sim/{SHARD}.root"
    assert sha256(out / "00001.root") == sha256(simulated)

    by_hand("build-dataset", *sample, "--input", simulated, "--output", out / "00001.parquet")
    dataset = results / f"dataset/{SHARD}.parquet"
    assert sha256(out / "00001.parquet") == sha256(dataset)

    cut = ("--output", out / "selected.parquet", "--cutflow", out / "cutflow.json")
    by_hand("select-events", *sample, "--input", dataset, *cut)
    assert sha256(out / "selected.parquet") == sha256(results / f"select/{SHARD}.parquet")

    selected = [
        path for name in SAMPLES for path in sorted((results / "select" / name).glob("*.parquet"))
    ]
    by_hand("write-shards", *inputs(selected), "--output-dir", tmp_path / "shards")
    assert sha256(tmp_path / "shards/manifest.json") == sha256(results / "shards/manifest.json")


def test_checks_by_hand_give_the_same_verdicts(chain, by_hand, tmp_path):
    results = chain.results
    of_sample = sorted((results / "dataset/ttbar").glob("*.parquet"))
    verdict = ("--output", tmp_path / "ttbar.json")
    by_hand("check-dataset", "--sample", "ttbar", *inputs(of_sample), *verdict)
    assert checks(tmp_path / "ttbar.json") == checks(results / "checks/dataset/ttbar.json")
    of_samples = [results / f"checks/dataset/{name}.json" for name in SAMPLES]
    by_hand("compare-samples", *inputs(of_samples), "--output", tmp_path / "dataset.json")
    assert checks(tmp_path / "dataset.json") == checks(results / "checks/dataset.json")
    manifest = ("--manifest", results / "shards/manifest.json")
    by_hand("check-shards", *manifest, "--output", tmp_path / "shards.json")
    assert checks(tmp_path / "shards.json") == checks(results / "checks/shards.json")


def test_the_model_is_made_and_used_by_hand(chain, by_hand, tmp_path):
    results, out = chain.results, tmp_path / "ttbar"
    manifest = ("--manifest", results / "shards/manifest.json")
    best = ("--settings", results / "hpo/best.yaml")
    by_hand("train-model", *manifest, "--output-dir", tmp_path / "train", *best)
    checkpoint = ("--checkpoint", tmp_path / "train/best.pt")
    by_hand("export-onnx", *checkpoint, *manifest, "--output-dir", tmp_path / "export")

    model = ("--model", tmp_path / "export/model.onnx")
    reconstructed = ("--output", out / "reco.parquet", "--edm4hep", out / "reco.root")
    simulated = results / f"sim/{SHARD}.root"
    by_hand("reconstruct-events", "--input", simulated, *model, *reconstructed)
    assert len(read_table(out / "reco.parquet")) == 12  # a ROOT file has no splits: every event
    chain_of_records = particleforge("provenance", out / "reco.parquet", cwd=tmp_path).stdout
    assert f"sim/{SHARD}.root  OK" in chain_of_records

    selected = ("--selected", results / f"select/{SHARD}.parquet")
    pair = (*selected, "--reconstructed", results / f"reco/{SHARD}.parquet")
    by_hand("validate-model", *pair, "--output-dir", tmp_path / "validate")
    assert (tmp_path / "validate/metrics.json").is_file()


def test_a_mistake_is_one_line(tmp_path):
    config = ("--config-dir", ROOT / "config")
    done = particleforge("show-config", "--detector", "nope", *config, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    done = particleforge(
        "show-config", "--detector", "clic", "--set", "broken", *config, cwd=tmp_path, check=False
    )
    assert "key=value" in done.stderr


def test_show_config_is_what_runs(tmp_path):
    text = particleforge(
        "show-config",
        "--detector",
        "clic",
        "--set",
        "training.events_seen=5",
        "--config-dir",
        ROOT / "config",
        cwd=tmp_path,
    ).stdout
    assert "events_seen: 5" in text
