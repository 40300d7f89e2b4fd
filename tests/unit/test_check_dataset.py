"""Checks of the dataset: good samples pass, and each kind of damage is refused with one line that
names shard, column and value.
"""

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest

from particleforge.errors import UserError
from particleforge.tables import parquet, schema
from particleforge.tables.schema import Fate

from .checked_data import (
    change_member,
    change_shard,
    judge_sample,
    rewrite,
    write_dataset_shard,
    write_sample,
)
from .synthetic import synthetic_events


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write_sample(folder)
    return folder


@pytest.fixture
def sample(good: Path, tmp_path: Path) -> list[Path]:
    shutil.copytree(good / "dataset", tmp_path / "dataset")
    return sorted((tmp_path / "dataset/qq").iterdir())


def refusal(folder: Path, shards: list[Path], **checks: Any) -> str:
    with pytest.raises(UserError) as caught:
        judge_sample(folder, shards, **checks)
    line = str(caught.value)
    assert "\n" not in line
    assert not (folder / "checks/dataset/qq.json").exists()
    return line


def put(value: float, place: int = 3) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[place] = value

    return change


def test_a_good_sample_passes(good: Path, tmp_path: Path) -> None:
    verdict = judge_sample(tmp_path, sorted((good / "dataset/qq").iterdir()))
    assert verdict["passed"] is True
    assert verdict["failures"] == []
    assert (verdict["events"], verdict["shards"]) == (270, 3)
    assert all(check["failed"] == 0 and check["compared"] for check in verdict["checks"].values())
    energy = verdict["energy_gev"]
    assert energy["visible"] == pytest.approx(energy["target"] + energy["dropped"])
    events = [parquet.read_table(path) for path in sorted((good / "dataset/qq").iterdir())]
    pt = np.concatenate([ak.to_numpy(ak.flatten(found.tracks.pt)) for found in events])
    assert verdict["columns"]["tracks.pt"] == {
        "n": len(pt),
        "not_finite": 0,
        "min": float(pt.min()),
        "max": float(pt.max()),
    }
    visible = sum(
        float(ak.sum(found.particles.energy[found.particles.fate != int(Fate.INVISIBLE)]))
        for found in events
    )
    assert energy["visible"] == pytest.approx(visible)
    assert (tmp_path / "checks/dataset/qq.json.provenance.json").is_file()
    assert not list(tmp_path.rglob("failed.json"))


VALUES = [
    (
        "tracks.pt",
        put(3e7),
        "tracks.pt: value beyond energy_max_gev: 3e+07, allowed 0 to 100000;",
        "raise checks.energy_max_gev",
    ),
    (
        "tracks.pt",
        put(-1.5),
        "tracks.pt: value beyond energy_max_gev: -1.5, allowed 0 to 100000;",
        "",
    ),
    (
        "clusters.energy",
        put(np.nan),
        "clusters.energy: values not finite: 1, allowed at most 0;",
        "exclude the file",
    ),
    ("clusters.z", put(-np.inf), "clusters.z: values not finite: 1,", ""),
    (
        "clusters.x",
        put(-2e6),
        "clusters.x: value beyond length_max_mm: -2e+06, allowed -100000 to 100000;",
        "checks.length_max_mm",
    ),
    (
        "tracks.eta",
        put(40),
        "tracks.eta: value beyond abs_eta_max: 40, allowed -15 to 15;",
        "raise checks.abs_eta_max",
    ),
    (
        "tracks.phi",
        put(4.0),
        "tracks.phi: value out of range: 4, allowed -3.14159 to 3.14159;",
        "delete it, then run again",
    ),
    ("tracks.n_hits", put(-2), "tracks.n_hits: value out of range: -2, allowed 0 to inf;", ""),
    (
        "clusters.width_transverse",
        put(-1),
        "clusters.width_transverse: value out of range: -1,",
        "",
    ),
    ("clusters.width_minor", put(-1), "clusters.width_minor: value out of range: -1,", ""),
    (
        "clusters.fraction_core_2",
        put(1.5),
        "clusters.fraction_core_2: value out of range: 1.5, allowed 0 to 1;",
        "",
    ),
    (
        "particles.px",
        put(-1e9),
        "particles.px: value beyond energy_max_gev: -1e+09, allowed -100000 to 100000;",
        "",
    ),
    (
        "particles.class_id",
        put(9),
        "particles.class_id: value out of range: 9, allowed 0 to 5;",
        "",
    ),
    ("particles.fate", put(7), "particles.fate: value out of range: 7, allowed 0 to 3;", ""),
    ("targets.n_merged", put(-3), "targets.n_merged: value out of range: -3,", ""),
    (
        "track_links.weight",
        put(1.5),
        "track_links.weight: value out of range: 1.5, allowed 0 to 1;",
        "",
    ),
    (
        "targets.particle",
        put(5000),
        "targets.particle: references to what is not there: 1, allowed at most 0;",
        "",
    ),
    ("targets.particle", put(-2), "targets.particle: references to what is not there: 1,", ""),
    ("particles.element", put(5000), "particles.element: references to what is not there: 1,", ""),
    ("track_links.track", put(-1), "track_links.track: references to what is not there: 1,", ""),
    (
        "track_links.particle",
        put(5000),
        "track_links.particle: references to what is not there: 1,",
        "",
    ),
    (
        "cluster_links.cluster",
        put(5000),
        "cluster_links.cluster: references to what is not there: 1,",
        "",
    ),
    (
        "cluster_links.particle",
        put(5000),
        "cluster_links.particle: references to what is not there: 1,",
        "",
    ),
    (
        "candidates.element",
        put(5000),
        "candidates.element: references to what is not there: 1,",
        "",
    ),
    (
        "targets.energy",
        lambda energy: energy * np.float32(1.01),
        "targets.energy: share of an event's visible energy neither in targets nor dropped: 0.0",
        "",
    ),
]


@pytest.mark.parametrize(
    ("column", "change", "says", "remedy"),
    VALUES,
    ids=[says.split(",")[0] for *_, says, _ in VALUES],
)
def test_a_wrong_value_is_one_line(
    sample: list[Path], tmp_path: Path, column: str, change: Any, says: str, remedy: str
) -> None:
    change_shard(sample[1], change_member(column, change))
    line = refusal(tmp_path, sample)
    assert line.startswith(f"qq/00001.parquet: {says}"), line
    assert remedy in line


@pytest.mark.fault("data that are not allowed")
def test_a_wrong_value_of_an_event_is_one_line(sample: list[Path], tmp_path: Path) -> None:
    def change(events: ak.Array) -> ak.Array:
        return ak.with_field(
            events, np.where(np.arange(len(events)) < 2, np.nan, events.weight), "weight"
        )

    change_shard(sample[2], change)
    assert refusal(tmp_path, sample).startswith(
        "qq/00002.parquet: weight: values not finite: 2, allowed at most 0; rebuild this shard"
    )


def test_a_particle_that_owns_no_element_is_refused(sample: list[Path], tmp_path: Path) -> None:
    def steal(fates: np.ndarray) -> None:
        merged = np.flatnonzero(fates == Fate.MERGED)
        fates[merged[0]] = Fate.HOSTED

    change_shard(sample[0], change_member("particles.fate", steal))
    line = refusal(tmp_path, sample)
    assert line.startswith(
        "qq/00000.parquet: particles.fate: references to what is not there: 1, allowed at most 0;"
    ), line


def test_a_target_too_few_is_refused(sample: list[Path], tmp_path: Path) -> None:
    change_shard(sample[0], lambda events: ak.with_field(events, events.targets[:, :-1], "targets"))
    # 87 events have elements
    assert "qq/00000.parquet: targets: references to what is not there: 8" in refusal(
        tmp_path, sample
    )


def retype(table: pa.Table) -> pa.Table:
    """Give the tracks' transverse momentum double precision."""
    column = table["tracks"].combine_chunks()
    members = [
        pa.field(m.name, pa.float64() if m.name == "pt" else m.type, nullable=False)
        for m in column.type.value_type
    ]
    kind = pa.list_(pa.field("element", pa.struct(members), nullable=False))
    return table.set_column(
        table.schema.names.index("tracks"),
        pa.field("tracks", kind, nullable=False),
        column.cast(kind),
    )


COLUMNS = [
    (
        lambda table: table.drop_columns(["weight"]),
        "weight (missing): columns unlike the schema: 1, allowed at most 0;",
    ),
    (retype, "tracks.pt (double instead of float): columns unlike the schema: 1,"),
    (
        lambda table: table.set_column(
            0,
            pa.field("event_id", pa.int64(), nullable=False),
            table["event_id"].cast(pa.int64(), safe=False),
        ),
        "event_id (int64 instead of uint64): columns unlike the schema: 1,",
    ),
    (
        lambda table: table.set_column(3, "weight", pa.array([None] * len(table), pa.float64())),
        "weight (double or null instead of double): columns unlike the schema: 1,",
    ),
    (
        lambda table: table.append_column("more", table["weight"]),
        "more (not expected): columns unlike the schema: 1,",
    ),
]


@pytest.mark.parametrize(
    ("change", "says"), COLUMNS, ids=[says.split(": columns")[0] for _, says in COLUMNS]
)
def test_other_columns_are_refused(
    sample: list[Path], tmp_path: Path, change: Any, says: str
) -> None:
    rewrite(sample[1], change)
    assert refusal(tmp_path, sample).startswith(f"qq/00001.parquet: {says}")


def test_a_collection_that_is_missing_is_named_with_its_members(
    sample: list[Path], tmp_path: Path
) -> None:
    rewrite(sample[1], lambda table: table.drop_columns(["clusters"]))
    line = refusal(tmp_path, sample)
    assert line.startswith("qq/00001.parquet: clusters (missing), clusters.energy (missing),")
    unlike = 1 + len(schema.CLUSTERS.fields)
    assert f"columns unlike the schema: {unlike}, allowed at most 0;" in line


@pytest.mark.parametrize("keep", [0, 3, 0.2, 0.5, 0.99])
def test_a_truncated_file_is_one_line(sample: list[Path], tmp_path: Path, keep: float) -> None:
    content = sample[1].read_bytes()
    sample[1].write_bytes(content[: keep if keep >= 1 else int(keep * len(content))])
    line = refusal(tmp_path, sample)
    assert re.match(
        rf"{re.escape(str(sample[1]))}: (not a readable|damaged) Parquet file .*; delete it and"
        r" rerun",
        line,
    ), line


def test_flipped_bytes_do_not_pass_unseen(sample: list[Path], tmp_path: Path) -> None:
    content = bytearray(sample[1].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    sample[1].write_bytes(content)
    assert "00001.parquet" in refusal(tmp_path, sample)


def test_events_of_another_sample_are_refused(sample: list[Path], tmp_path: Path) -> None:
    events = synthetic_events(20, 77)
    write_dataset_shard(sample[1], events, provenance={"settings": {"sample_name": "ttbar"}})
    assert refusal(tmp_path, sample).startswith(
        "qq/00001.parquet: sample_name ttbar: events of another sample: 20, allowed at most 0;"
    )


def test_events_that_the_metadata_do_not_count_are_refused(
    sample: list[Path], tmp_path: Path
) -> None:
    write_dataset_shard(sample[1], synthetic_events(20, 77), counts={"events": 23})
    assert refusal(tmp_path, sample).startswith(
        "qq/00001.parquet: events: events more or less than its metadata count: 3, allowed at"
        " most 0;"
    )


@pytest.mark.fault("data that are not allowed")
def test_events_that_occur_twice_are_refused(sample: list[Path], tmp_path: Path) -> None:
    shutil.copy(sample[0], sample[2])
    line = refusal(tmp_path, sample)
    assert line.startswith(
        "qq/00000.parquet: event_id: events that occur more than once in the sample: 90, allowed at"
        " most 0;"
    ), line
    page = tmp_path / "checks/work/dataset/qq/failed.html"
    assert line.endswith(f"(and 1 more, all in {page})"), line
    failed = json.loads(page.with_suffix(".json").read_text())
    assert failed["passed"] is False
    assert [failure["shard"] for failure in failed["failures"]] == [
        "qq/00000.parquet",
        "qq/00002.parquet",
    ]
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", html.unescape(page.read_text()))
    ]
    assert [row[0] for row in rows[1:3]] == ["qq/00000.parquet", "qq/00002.parquet"]
    assert {row[0] for row in rows[4:]} == {name.removesuffix(":") for name in failed["checks"]}


def test_too_few_events_are_refused(sample: list[Path], tmp_path: Path) -> None:
    assert refusal(tmp_path, sample, events_min=300).startswith(
        "qq: events: events missing from the sample: 30, allowed at most 0;"
    )


def test_a_verdict_that_failed_is_removed_when_the_sample_passes(
    sample: list[Path], tmp_path: Path
) -> None:
    refusal(tmp_path, sample, events_min=300)
    failed = sorted((tmp_path / "checks/work/dataset/qq").glob("failed.*"))
    assert [path.name for path in failed] == ["failed.html", "failed.json"]
    assert judge_sample(tmp_path, sample)["passed"]
    assert not any(path.exists() for path in failed)
