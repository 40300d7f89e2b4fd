"""The whole chain runs, an idle run does nothing, and event tables say what made them."""

import json

import pytest

from particleforge.tables.parquet import read_metadata, read_table


def test_the_chain_ends_in_a_report_and_leaves_no_temporary_file(chain):
    files = chain.visible_files()
    for name in (
        "report.html",
        "validate/metrics.json",
        "export/model.onnx",
        "train/best.pt",
        "hpo/best.yaml",
        "select/cutflow.csv",
    ):
        assert name in files
    assert not [name for name in files if name.endswith(".tmp")]


def test_a_second_run_does_nothing(chain):
    assert "Nothing to be done" in chain.run()


def test_every_rule_left_a_log_and_a_benchmark(chain):
    for folder in ("logs", "benchmarks"):
        rules = {path.name.split(".")[0] for path in (chain.results / folder).iterdir()}
        assert {
            "simulate_events",
            "run_hpo_slot",
            "train_model",
            "build_report",
            "validate_model",
        } <= rules


@pytest.mark.parametrize("folder", ["dataset", "select", "reco"])
def test_event_tables_say_what_made_them(chain, folder):
    files = sorted((chain.results / folder).rglob("*.parquet"))
    assert files
    for path in files:
        made = read_metadata(path)["provenance"]
        assert made["settings"]["version"] >= 1
        assert made["inputs"]
        beside = json.loads(path.with_name(f"{path.name}.provenance.json").read_text())
        assert beside["settings_hash"] == made["settings_hash"]
        assert beside["circumstances"]["git_commit"]


def test_splits_are_disjoint_and_complete(chain):
    manifest = json.loads((chain.results / "shards/manifest.json").read_text())
    ids = {
        split: [
            int(i)
            for shard in content["shards"]
            for i in read_table(chain.results / "shards" / shard["file"])["event_id"]
        ]
        for split, content in manifest["splits"].items()
    }
    everything = [i for members in ids.values() for i in members]
    assert len(set(everything)) == len(everything)
    selected = [
        int(i)
        for path in sorted((chain.results / "select").rglob("*.parquet"))
        for i in read_table(path, ["event_id"])["event_id"]
    ]
    assert sorted(everything) == sorted(selected)
