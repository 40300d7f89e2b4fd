"""Scans are targets of their own: what each plans, and one of each kind of training run on a
finished chain.
"""

import csv
import json
import re
import shutil

import pytest
from chain import Chain

from particleforge.provenance.record import checksum, read_record, record_of

TINY = (
    "scans={scaling_batch: {events_seen: 12, n_validations: 2, elements_per_batch: 256, factors:"
    " [1, 2], learning_rates: {adamw: 0.001}, learning_rate_scalings: [linear]}, fine_tuning:"
    " {from_detector: clic, events_seen: 12, n_validations: 2, train_events: [6]}, scaling_law:"
    " {train_events: [4, 8], model_sizes: [{width: 8, n_layers: 1, n_heads: 2}]}}"
)


def test_a_scan_needs_training_data_and_nothing_that_follows(tmp_path):
    new = Chain.new(tmp_path / "new")
    jobs = new.planned("scaling_law", config=(TINY,))
    assert (jobs["run_scan_training"], jobs["gather_scan"]) == (3, 1)
    data = {"simulate_events", "build_dataset", "select_events", "write_shards"}
    data |= {"check_dataset", "compare_samples", "check_shards"}
    assert set(jobs) == {*data, "run_scan_training", "gather_scan", "scaling_law"}


def test_fine_tuning_makes_the_other_detectors_model_first(tmp_path):
    jobs = Chain.new(tmp_path / "new").planned("fine_tuning", config=(TINY, "detector=cld"))
    assert (jobs["train_model"], jobs["write_shards"], jobs["run_scan_training"]) == (1, 2, 2)


@pytest.mark.fault("unknown configuration key")
def test_fine_tuning_without_a_source_names_the_key(tmp_path):
    text = Chain.new(tmp_path / "new").run("fine_tuning", "-n", check=False)
    assert (
        "scans.fine_tuning.from_detector: is not set; name the detector whose trained model to"
        " start from" in text
    )


@pytest.fixture(scope="module")
def scanned(chain, tmp_path_factory):
    """The finished chain with a scan in its report, and fine-tuning of a second detector that has
    the data of the first.
    """
    copy = chain.copy(tmp_path_factory.mktemp("scans") / "run")
    copy.run("report", config=(TINY, "report={scans: [scaling_batch]}"))
    detectors = copy.folder / "config/detectors"
    (detectors / "twin.yaml").write_text((detectors / "clic.yaml").read_text())
    for stage in ("sim", "dataset", "select", "shards"):
        shutil.copytree(
            copy.results / stage, copy.folder / "results/twin" / stage, copy_function=shutil.copy2
        )
    # nothing is recorded of copied files
    copy.run("fine_tuning", "--rerun-triggers", "mtime", config=(TINY, "detector=twin"))
    return copy


def test_more_points_of_a_finished_scan_would_train_these_only(scanned):
    assert scanned.planned("scaling_batch", config=(TINY,)) == {}
    more = TINY.replace("factors: [1, 2]", "factors: [1, 2, 4]")
    assert scanned.planned("scaling_batch", config=(more,)) == {
        "run_scan_training": 1,
        "gather_scan": 1,
        "scaling_batch": 1,
    }


def test_large_batches_see_equally_many_events_and_are_shown(scanned):
    found = json.loads((scanned.results / "scans/scaling_batch.json").read_text())
    (series,) = found["series"]
    assert [point["factor"] for point in series["points"]] == [1, 2]
    small, large = (point["events_seen"] for point in series["points"])
    assert abs(small - large) <= 4
    page = (scanned.results / "report.html").read_text()
    assert re.findall(r'id="figure-(scaling_batch\w*)"', page) == [
        "scaling_batch",
        "scaling_batch_curves",
    ]
    for folder in ("logs", "benchmarks"):
        assert {"run_scan_training", "gather_scan"} <= {
            path.name for path in (scanned.results / folder).iterdir()
        }


def test_fine_tuned_trainings_start_from_the_other_detectors_model(scanned):
    results = scanned.folder / "results/twin/scans"
    rows = list(csv.DictReader((results / "fine_tuning.csv").read_text().splitlines()))
    assert {row["start"]: (row["status"], row["train_events"]) for row in rows} == {
        "scratch": ("complete", "6"),
        "fine_tuned": ("complete", "6"),
    }
    assert rows[0]["loss"] != rows[1]["loss"]
    record = read_record(record_of(results / "fine_tuning/points/fine_tuned_6_0.json"))
    assert checksum(scanned.results / "train/best.pt") in {
        entry["sha256"] for entry in record["inputs"]
    }
