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
    "status",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    assert "--detector" in particleforge(command, "--help", cwd=ROOT).stdout


def test_the_chain_by_hand_gives_the_same_bytes(chain, tmp_path):
    results = chain.results
    config = ("--detector", "clic", "--preset", "tiny", "--config-dir", chain.folder / "config")
    out = tmp_path / "ttbar"
    shard = "ttbar/00001"
    manifest = results / "shards/manifest.json"

    def stage(command, *arguments):
        particleforge(command, *config, *arguments, cwd=tmp_path)

    stage("simulate-events", "--sample", "ttbar", "--shard", 1, "--output", out / "00001.root")
    assert sha256(out / "00001.root") == sha256(results / f"sim/{shard}.root")

    simulated = results / f"sim/{shard}.root"
    stage(
        "build-dataset",
        "--sample",
        "ttbar",
        "--input",
        simulated,
        "--output",
        out / "00001.parquet",
    )
    assert sha256(out / "00001.parquet") == sha256(results / f"dataset/{shard}.parquet")

    dataset = results / f"dataset/{shard}.parquet"
    cut = ("--output", out / "selected.parquet", "--cutflow", out / "cutflow.json")
    stage("select-events", "--sample", "ttbar", "--input", dataset, *cut)
    assert sha256(out / "selected.parquet") == sha256(results / f"select/{shard}.parquet")

    samples = ("ttbar", "qq", "ww")
    selected = [
        path
        for sample in samples
        for path in sorted((results / "select" / sample).glob("*.parquet"))
    ]
    stage(
        "write-shards",
        *(word for path in selected for word in ("--input", path)),
        "--output-dir",
        tmp_path / "shards",
    )
    assert sha256(tmp_path / "shards/manifest.json") == sha256(manifest)

    of_sample = [
        word
        for path in sorted((results / "dataset/ttbar").glob("*.parquet"))
        for word in ("--input", path)
    ]
    stage("check-dataset", "--sample", "ttbar", *of_sample, "--output", tmp_path / "ttbar.json")
    assert checks(tmp_path / "ttbar.json") == checks(results / "checks/dataset/ttbar.json")
    of_samples = [
        word
        for sample in samples
        for word in ("--input", results / f"checks/dataset/{sample}.json")
    ]
    stage("compare-samples", *of_samples, "--output", tmp_path / "dataset.json")
    assert checks(tmp_path / "dataset.json") == checks(results / "checks/dataset.json")
    stage("check-shards", "--manifest", manifest, "--output", tmp_path / "shards.json")
    assert checks(tmp_path / "shards.json") == checks(results / "checks/shards.json")

    best = ("--settings", results / "hpo/best.yaml")
    stage("train-model", "--manifest", manifest, "--output-dir", tmp_path / "train", *best)
    checkpoint = tmp_path / "train/best.pt"
    stage(
        "export-onnx",
        "--checkpoint",
        checkpoint,
        "--manifest",
        manifest,
        "--output-dir",
        tmp_path / "export",
    )

    reconstructed = ("--output", out / "reco.parquet", "--edm4hep", out / "reco.root")
    stage(
        "reconstruct-events",
        "--input",
        simulated,
        "--model",
        tmp_path / "export/model.onnx",
        *reconstructed,
    )
    assert len(read_table(out / "reco.parquet")) == 12  # a ROOT file has no splits: every event

    chain_of_records = particleforge("provenance", out / "reco.parquet", cwd=tmp_path).stdout
    assert f"sim/{shard}.root  OK" in chain_of_records

    pair = (
        "--selected",
        results / f"select/{shard}.parquet",
        "--reconstructed",
        results / f"reco/{shard}.parquet",
    )
    stage("validate-model", *pair, "--output-dir", tmp_path / "validate")
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
        "training.max_steps=5",
        "--config-dir",
        ROOT / "config",
        cwd=tmp_path,
    ).stdout
    assert "max_steps: 5" in text
