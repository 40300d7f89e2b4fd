"""Checks of the training shards: good ones pass, and each kind of damage is refused with one line
that names shard, column and value.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from particleforge.artefacts import write_json
from particleforge.errors import UserError
from particleforge.tables import parquet

from .checked_data import (
    change_training_shard,
    enter_checksum,
    judge_shards,
    rewrite,
    write_training_shards,
)

N_EVENTS = 300


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write_training_shards(folder, N_EVENTS)
    return folder


@pytest.fixture
def manifest(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good / "shards", tmp_path / "shards")
    return tmp_path / "shards/manifest.json"


def refusal(manifest: Path, **checks: Any) -> str:
    with pytest.raises(UserError) as caught:
        judge_shards(manifest, **checks)
    line = str(caught.value)
    assert "\n" not in line
    assert not (manifest.parents[1] / "checks/shards.json").exists()
    return line


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


def columns_of(manifest: Path, kind: str) -> list[str]:
    return [column["name"] for column in json.loads(manifest.read_text())["elements"][kind]]


def test_good_shards_pass(manifest: Path) -> None:
    verdict = json.loads(judge_shards(manifest).read_text())
    assert verdict["passed"] is True
    assert verdict["failures"] == []
    assert sum(split["events"] for split in verdict["splits"].values()) == N_EVENTS
    assert verdict["splits"]["train"]["shards"] > 1
    assert all(check["failed"] == 0 and check["compared"] for check in verdict["checks"].values())
    assert (manifest.parents[1] / "checks/shards.json.provenance.json").is_file()


def set_at(place: int, value: float) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[place] = value

    return change


VALUES = [
    ({"features": set_at(0, np.nan)}, "track.pt: values not finite: 1, allowed at most 0;"),
    ({"target_p4": set_at(3, np.inf)}, "target_p4: values not finite: 1, allowed at most 0;"),
    ({"element_type": set_at(0, 3)}, "element_type: values out of range: 1, allowed at most 0;"),
    ({"element_type": set_at(0, 0)}, "element_type: values out of range: 1,"),
    ({"target_class": set_at(2, 99)}, "target_class: values out of range: 1,"),
    ({"target_charge": set_at(2, -2)}, "target_charge: values out of range: 1,"),
    ({"share": set_at(0, np.nan)}, "share: values not finite: 1, allowed at most 0;"),
    ({"share": set_at(0, 0.5)}, "share: values out of range: 1, allowed at most 0;"),
    ({"share_host": set_at(0, -2)}, "share_host: values out of range: 1,"),
    ({"share_host": set_at(0, 9999)}, "share_host: values out of range: 1,"),
    (
        {"n_elements": lambda n: n + (np.arange(len(n)) == 4)},
        "element_type: lists not as long as n_elements says: 1, allowed at most 0;",
    ),
]


@pytest.mark.parametrize(
    ("columns", "says"), VALUES, ids=[says.split(",")[0] for _, says in VALUES]
)
def test_a_wrong_value_is_one_line(manifest: Path, columns: Any, says: str) -> None:
    change_training_shard(manifest, "train/00001.parquet", columns)
    line = refusal(manifest)
    assert line.startswith(f"train/00001.parquet: {says}"), line
    assert "write the shards again" in line


def test_momentum_without_a_class_is_refused(manifest: Path) -> None:
    classes = parquet.read_table(manifest.parent / "valid/00000.parquet").target_class
    element = int(np.flatnonzero(np.concatenate(classes.to_list()) == 0)[0])
    change_training_shard(manifest, "valid/00000.parquet", {"target_p4": set_at(4 * element, 1.0)})
    line = refusal(manifest)
    assert line.startswith(
        "valid/00000.parquet: target_p4: momenta of elements without a class: 1, allowed at most 0;"
    ), line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda table: table.drop_columns(["target_p4"]),
            "target_p4 (missing): columns unlike the schema: 1,",
        ),
        (
            lambda table: table.set_column(
                table.schema.get_field_index("n_elements"),
                pa.field("n_elements", pa.int64(), nullable=False),
                table["n_elements"].cast(pa.int64()),
            ),
            "n_elements (int64 instead of int32): columns unlike the schema: 1,",
        ),
    ],
    ids=["missing", "type"],
)
def test_other_columns_are_refused(manifest: Path, change: Any, says: str) -> None:
    rewrite(manifest.parent / "test/00000.parquet", change)
    enter_checksum(manifest, "test/00000.parquet")
    assert refusal(manifest).startswith(f"test/00000.parquet: {says}")


@pytest.mark.fault("training shards that changed")
def test_a_shard_that_is_missing_is_refused(manifest: Path) -> None:
    (manifest.parent / "train/00001.parquet").unlink()
    line = refusal(manifest)
    assert line.startswith(
        "train/00001.parquet: manifest: files that are missing, or that the manifest does not name:"
        " 1, allowed at most 0;"
    )


def test_a_shard_too_many_is_refused(manifest: Path) -> None:
    shutil.copy(manifest.parent / "train/00001.parquet", manifest.parent / "train/00077.parquet")
    line = refusal(manifest)
    assert line.startswith(
        "train/00077.parquet: manifest: files that are missing, or that the manifest does not name:"
        " 1, allowed at most 0;"
    )


@pytest.mark.fault("training shards that changed")
def test_another_content_than_the_manifest_says_is_refused(manifest: Path) -> None:
    first, second = (manifest.parent / f"train/0000{number}.parquet" for number in (0, 1))
    content = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(content)
    line = refusal(manifest)
    assert line.startswith(
        "train/00000.parquet: sha256: bytes other than the manifest's checksum: 1, allowed at"
        " most 0;"
    )
    assert "(and 3 more, all in" in line  # of two shards the checksum and the number of elements


@pytest.mark.parametrize("keep", [0, 4, 0.3, 0.9])
def test_a_truncated_shard_is_one_line(manifest: Path, keep: float) -> None:
    path = manifest.parent / "train/00001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep >= 1 else int(keep * len(content))])
    line = refusal(manifest)
    assert line.startswith(f"{path}: not a readable Parquet file"), line


def test_events_that_the_manifest_does_not_count_are_refused(manifest: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["splits"]["train"]["shards"][1]["n_events"] += 2
        content["splits"]["train"]["n_events"] += 2

    change_json(manifest, change)
    assert refusal(manifest).startswith(
        "train/00001.parquet: n_events: difference from the manifest: 2, allowed at most 0;"
    )


def test_a_sum_that_does_not_close_is_refused(manifest: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["splits"]["valid"]["n_elements"] -= 3

    change_json(manifest, change)
    line = refusal(manifest)
    assert line.startswith(
        "valid: n_elements: difference of the split's number in the manifest from the sum of its"
        " shards: 3, allowed"
    )


def test_events_in_two_splits_are_refused(manifest: Path) -> None:
    train = parquet.read_table(manifest.parent / "train/00000.parquet").event_id.to_numpy()
    change_training_shard(
        manifest, "test/00000.parquet", {"event_id": lambda ids: np.r_[train[:2], ids[2:]]}
    )
    line = refusal(manifest)
    assert line.startswith(
        "test/00000.parquet: event_id: events that occur more than once, or in two splits: 2,"
        " allowed at most 0;"
    ), line
    failed = json.loads((manifest.parents[1] / "checks/work/shards/failed.json").read_text())
    assert [failure["shard"] for failure in failed["failures"]] == [
        "test/00000.parquet",
        "train/00000.parquet",
    ]


@pytest.mark.parametrize(("key", "says"), [("mean", "0.5"), ("std", "0.5")])
def test_another_normalisation_is_refused(manifest: Path, key: str, says: str) -> None:
    place = columns_of(manifest, "cluster").index("energy")

    def change(content: dict[str, Any]) -> None:
        content["cluster"][key][place] += 0.5 * content["cluster"]["std"][place]

    change_json(manifest.parent / "normalisation.json", change)
    line = refusal(manifest)
    assert line.startswith(
        f"normalisation.json: cluster.energy: difference of the {key} in standard deviations"
        f" {says}, allowed at most 0.001;"
    )
    assert "normalisation_difference_max" in line


def test_a_text_is_no_number_of_the_normalisation(manifest: Path) -> None:
    change_json(
        manifest.parent / "normalisation.json",
        lambda content: content["cluster"]["mean"].__setitem__(0, "0.0"),
    )
    assert "normalisation.json: cluster.mean.0: Input should be a valid number" in refusal(manifest)


def test_the_normalisation_of_other_events_is_refused(manifest: Path) -> None:
    change_json(
        manifest.parent / "normalisation.json",
        lambda content: content.update(n_events=content["n_events"] - 7),
    )
    assert refusal(manifest).startswith(
        "normalisation.json: n_events: difference of n_events from the train split's: 7, allowed at"
        " most 0;"
    )


@pytest.mark.parametrize("name", ["manifest.json", "normalisation.json"])
@pytest.mark.parametrize("content", ["", '{"splits": ', "{}", "[]"])
def test_a_manifest_that_cannot_be_used_is_one_line(
    manifest: Path, name: str, content: str
) -> None:
    (manifest.parent / name).write_text(content)
    line = refusal(manifest)
    assert line.startswith(f"{manifest.parent / name}: "), line
    assert "write the shards again" in line


def test_a_shard_unlike_the_others_is_refused(tmp_path: Path) -> None:
    manifest = write_training_shards(tmp_path, 2000, events_per_shard=300)
    width = json.loads(manifest.read_text())["n_features"]
    energy = columns_of(manifest, "cluster").index("energy")

    def change(features: np.ndarray) -> None:
        of_clusters = parquet.read_table(
            manifest.parent / "train/00001.parquet"
        ).element_type.to_list()
        features.reshape(-1, width)[np.concatenate(of_clusters) == 2, energy] *= 1.3

    change_training_shard(manifest, "train/00001.parquet", {"features": change})
    line = refusal(manifest, normalisation_difference_max=1e9)
    assert line.startswith(
        "train/00001.parquet: mean cluster.energy: KS distance from the other shards 0."
    ), line


def test_small_shards_differ_by_chance_and_pass(tmp_path: Path) -> None:
    manifest = write_training_shards(tmp_path, 60, events_per_shard=3)
    assert json.loads(judge_shards(manifest).read_text())["splits"]["train"]["shards"] > 8
