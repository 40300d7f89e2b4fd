"""Shards and samples compared with one another: what differs from the rest is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from particleforge.checks import dataset as dataset_module
from particleforge.checks import drift as drift_module
from particleforge.errors import UserError

from .checked_data import (
    change_member,
    change_shard,
    judge_sample,
    judge_samples,
    write_dataset_shard,
    write_sample,
)
from .synthetic import synthetic_events
from .test_check_dataset import refusal


def test_samples_with_shards_without_events_pass(tmp_path: Path) -> None:
    assert judge_sample(tmp_path, write_sample(tmp_path, sizes=(0, 40, 1)))["events"] == 41
    assert (
        judge_sample(tmp_path, write_sample(tmp_path, "none", sizes=(0, 0)), events_min=0)["events"]
        == 0
    )


@pytest.mark.fault("data that are not allowed")
def test_a_shard_unlike_the_others_is_refused(tmp_path: Path) -> None:
    shards = write_sample(tmp_path, sizes=(300, 300, 300))
    assert judge_sample(tmp_path, shards)["passed"]
    (tmp_path / "checks/dataset/qq.json").unlink()
    for member in ("energy", "et", "energy_ecal", "energy_hcal"):
        change_shard(
            shards[2], change_member(f"clusters.{member}", lambda values: values * np.float32(1.3))
        )
    line = refusal(tmp_path, shards)
    said = re.match(
        r"qq/00002\.parquet: (.*): KS distance from the rest of the sample (\S+), allowed at most"
        r" (\S+);",
        line,
    )
    assert said, line
    assert said[1] == "response of the calorimeter"  # what differs most is named first
    assert float(said[2]) > 2 * float(said[3])
    assert "drift_ks_distance_max" in line
    assert judge_sample(tmp_path, shards, drift_ks_distance_max=1)["passed"]


def test_shards_of_a_grown_sample_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_sample(tmp_path, sizes=(30, 30))
    before = judge_sample(tmp_path, shards)
    read: list[str] = []
    original = dataset_module.shard_statistics
    monkeypatch.setattr(
        dataset_module,
        "shard_statistics",
        lambda path, schema: (read.append(path.name), original(path, schema))[1],
    )
    assert judge_sample(tmp_path, shards) == before
    assert read == []
    shards.append(
        write_dataset_shard(shards[0].with_name("00002.parquet"), synthetic_events(30, 5, run=2))
    )
    grown = judge_sample(tmp_path, shards)
    assert read == ["00002.parquet"]
    write_dataset_shard(shards[1], synthetic_events(30, 6, run=1))
    judge_sample(tmp_path, shards)
    assert read == ["00002.parquet", "00001.parquet"]
    shutil.rmtree(tmp_path / "checks")
    write_dataset_shard(shards[1], synthetic_events(30, 5, run=1))
    assert judge_sample(tmp_path, shards) == grown  # kept statistics and new ones are the same
    monkeypatch.setattr(dataset_module, "VERSION", 99)
    read.clear()
    judge_sample(tmp_path, shards)
    assert len(read) == 3


def test_samples_of_another_calibration_are_refused(tmp_path: Path) -> None:
    verdicts = []
    for number, name in enumerate(("qq", "ttbar", "ww")):
        shards = write_sample(tmp_path, name, sizes=(200,), seed=20 + number)
        if name == "ww":  # energies in MeV
            change_shard(
                shards[0], change_member("clusters.energy", lambda values: values * np.float32(50))
            )
        judge_sample(tmp_path, shards)
        verdicts.append(tmp_path / f"checks/dataset/{name}.json")
    found = json.loads(judge_samples(tmp_path, verdicts[:2]).read_text())
    assert found["passed"]
    assert list(found["samples"]) == ["qq", "ttbar"]
    assert found["samples"]["qq"]["events"] == 200
    assert "quantities" not in found["samples"]["qq"]
    with pytest.raises(UserError) as caught:
        judge_samples(tmp_path, verdicts)
    line = str(caught.value)
    assert line.startswith(
        "sample ww: response of the calorimeter: KS distance from the other samples 1, allowed at"
        " most 0.9;"
    ), line
    assert json.loads(
        judge_samples(tmp_path, verdicts, sample_drift_ks_distance_max=1).read_text()
    )["passed"]


def test_a_sample_alone_passes(tmp_path: Path) -> None:
    judge_sample(tmp_path, write_sample(tmp_path, sizes=(10,)))
    assert json.loads(judge_samples(tmp_path, [tmp_path / "checks/dataset/qq.json"]).read_text())[
        "passed"
    ]


def test_drift_alone_would_have_seen_nothing_in_small_shards() -> None:
    """Where one shard has three events, no distance is significant."""
    assert drift_module.critical_distance(3, 10_000, 1e-3 / 100) > 1
