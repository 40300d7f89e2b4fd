"""Every output says what made it, from the report back to the seeds.

Data stages give the same bytes however they are run.
"""

import csv
import io
import json

import pytest
from chain import BIN, Chain, data_hashes
from test_cli import particleforge

from particleforge.orchestration.job_resources import RULES
from particleforge.provenance.record import checksum, read_record, record_of


@pytest.fixture(scope="module")
def declared(chain):
    """What the rules of the finished chain declare, as Snakemake tells it: rule and inputs by
    output.
    """
    text = chain.run("--detailed-summary")
    table = text[text.index("output_file\t") :]
    # not what Snakemake says besides
    rows = [row for row in csv.DictReader(io.StringIO(table), delimiter="\t") if row["rule"]]
    return {
        row["output_file"]: (row["rule"], set(filter(None, row["input-file(s)"].split(","))))
        for row in rows
    }


def test_every_output_of_every_rule_has_a_record(chain, declared):
    asked_for = {"run_scan_training", "gather_scan", "confirm_trial", "fetch_file", "apply_model"}
    assert {rule for rule, _ in declared.values()} == set(RULES) - asked_for
    verdicts = {"results/clic/checks/dataset.json", "results/clic/checks/shards.json"}
    for name, (rule, inputs) in declared.items():
        output = chain.folder / name
        if rule != "build_report":
            inputs = set(inputs) - verdicts  # waited for, not read
        record = read_record(record_of(output))
        assert record["stage"] == rule
        assert record["output"]["sha256"] == checksum(output), name
        found = {
            (output.parent / entry["file"]).resolve(): entry["sha256"] for entry in record["inputs"]
        }
        assert found == {
            (chain.folder / path).resolve(): checksum(chain.folder / path) for path in inputs
        }, name
        assert len(record["settings_hash"]) == 16
        assert record["settings"]["version"] >= 1
        assert record["seed"] == record["settings"].get("seed")
        assert {"python", "particleforge", "numpy"} <= record["packages"].keys()
        told = record["circumstances"]
        assert {"git_commit", "git_dirty", "host", "slurm", "started_unix_s"} <= told.keys()
        assert told["wall_time_s"] > 0


def test_the_report_leads_back_to_the_seeds(chain):
    done = particleforge("provenance", "report.html", "--json", cwd=chain.results)
    found = json.loads(done.stdout)
    items = found["items"]
    assert found["file"] == "report.html"
    assert {item["state"] for item in items.values()} == {"OK"}
    assert {item["stage"] for item in items.values()} >= {
        "simulate_events",
        "build_dataset",
        "check_dataset",
        "compare_samples",
        "check_shards",
        "select_events",
        "write_shards",
        "run_hpo_slot",
        "train_model",
    }
    origins = {name: item for name, item in items.items() if not item["inputs"]}
    assert set(origins) == {
        str(path.relative_to(chain.results)) for path in (chain.results / "sim").rglob("*.root")
    }
    for name, item in origins.items():
        assert (item["settings"]["sample_name"], item["part"]["shard"]) == tuple(
            name.removesuffix(".root").split("/")[1:]
        )
        assert isinstance(item["seed"], int)


def test_what_has_changed_since_is_said(chain, tmp_path):
    moved = chain.copy(tmp_path / "moved").results
    changed, missing = moved / "select/qq/00001.parquet", moved / "sim/ww/00000.root"
    changed.write_bytes(changed.read_bytes() + b" ")
    missing.unlink()
    done = particleforge("provenance", moved / "report.html", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "6 files of select_events, e.g. select/qq/00001.parquet  5 OK, 1 CHANGED" in done.stdout
    *_, summary, first, second = done.stdout.splitlines()
    assert "1 CHANGED, 1 MISSING" in summary.replace("1 MISSING, 1 CHANGED", "1 CHANGED, 1 MISSING")
    assert first.startswith("CHANGED select/qq/00001.parquet: not what its stage wrote, nor what ")
    assert second.startswith("MISSING sim/ww/00000.root: ")
    trusting = particleforge("provenance", moved / "report.html", "--no-verify", cwd=tmp_path)
    assert "CHANGED" not in trusting.stdout


def test_files_made_by_hand_have_a_chain_too(chain, tmp_path):
    config = ("--detector", "clic", "--preset", "tiny", "--config-dir", chain.folder / "config")
    source = chain.results / "sim/ttbar/00000.root"
    particleforge(
        "build-dataset",
        *config,
        "--sample",
        "ttbar",
        "--input",
        source,
        "--output",
        "own.parquet",
        cwd=tmp_path,
    )
    text = particleforge("provenance", "own.parquet", cwd=tmp_path).stdout
    assert "own.parquet  OK" in text
    assert "sim/ttbar/00000.root  OK" in text
    assert "seed" in text


def test_a_file_that_no_stage_wrote_is_one_line(chain):
    done = particleforge("provenance", chain.folder / "config/config.yaml", cwd=BIN, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "config.yaml: no provenance" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_data_stages_give_the_same_bytes_in_any_order_on_any_number_of_cores(chain, tmp_path):
    other = Chain.new(tmp_path / "other")
    last = "results/clic/select/ww/00001.parquet"
    other.run(last, "--cores", "1", threads=2)
    other.run("preprocess", "select", "--cores", "1", threads=2)
    assert _order(other) != _order(chain)
    assert _order(other)[:3] == [f"{stage}/ww/00001" for stage in ("sim", "dataset", "select")]
    expected = data_hashes(chain.results)
    assert len(expected) > 20
    assert data_hashes(other.results) == expected


def _order(run):
    """Return the files of the stages that work shard by shard, by the time at which their jobs
    began.
    """
    files = [
        path
        for stage in ("sim", "dataset", "select")
        for path in (run.results / stage).glob("*/0000?.*")
        if len(path.suffixes) == 1
    ]
    begun = {
        path: read_record(record_of(path))["circumstances"]["started_unix_s"] for path in files
    }
    return [
        str(path.relative_to(run.results).with_suffix(""))
        for path in sorted(files, key=begun.__getitem__)
    ]
