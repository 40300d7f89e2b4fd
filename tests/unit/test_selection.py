"""Object and event cuts, overlaps and renumbering against slow references, splits, cutflows."""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.cuts import (
    CandidateCutConfig,
    ClusterCutConfig,
    CutConfig,
    DetectorCutsConfig,
    ObjectCutsConfig,
    OverlapConfig,
    TrackCutConfig,
)
from particleforge.config.detector import SampleConfig
from particleforge.config.selection import SelectionConfig
from particleforge.config.settings import CutflowSettings, SelectSettings
from particleforge.errors import UserError
from particleforge.paths import SPLITS
from particleforge.selection.cutflow import efficiency, gather_cutflows
from particleforge.selection.objects import cut_objects, hand_over, remove_objects, renumber
from particleforge.selection.select import select_events
from particleforge.selection.split import split_of
from particleforge.tables import parquet
from particleforge.tables.schema import Fate

from .synthetic import synthetic_events, write_dataset

CUTS = DetectorCutsConfig(
    events=(
        CutConfig(name="elements", expression="num(tracks.pt) + num(clusters.energy) >= 8"),
        CutConfig(name="energy", expression="sum(targets.energy) > 40"),
    ),
    objects=ObjectCutsConfig(
        tracks=(
            TrackCutConfig(name="pt", expression="tracks.pt >= 1.5 and abs(tracks.eta) <= 1.8"),
        ),
        clusters=(ClusterCutConfig(name="energy", expression="clusters.energy >= 1"),),
        candidates=(CandidateCutConfig(name="energy", expression="candidates.energy > 0.8"),),
    ),
    overlaps=(
        OverlapConfig(
            name="duplicates", collection="tracks", delta_r_max=0.3, prefer="tracks.n_hits"
        ),
    ),
)


def stage_settings(
    cuts: DetectorCutsConfig = CUTS, seed: int = 7, sample: str = "ttbar"
) -> SelectSettings:
    return SelectSettings(seed=seed, sample_name=sample, selection=SelectionConfig(), cuts=cuts)


def final_masks(events: ak.Array, cuts: DetectorCutsConfig = CUTS) -> list[ak.Array]:
    return [left.masks[-1] for left in cut_objects(events, cuts).values()]


def with_targets_handed_over(events: ak.Array, cuts: DetectorCutsConfig = CUTS) -> ak.Array:
    tracks, clusters, _ = (left.stand_in for left in cut_objects(events, cuts).values())
    return hand_over(events, tracks, clusters)


def slow_removal(
    event: dict[str, Any],
    keep_tracks: list[bool],
    keep_clusters: list[bool],
    keep_candidates: list[bool],
) -> dict[str, Any]:
    """What remove_objects does, for one event, object by object."""
    keep = [*keep_tracks, *keep_clusters]

    def renumbered(index: int, flags: list[bool]) -> int:
        return sum(flags[:index]) if index >= 0 and flags[index] else -1

    kept = dict(event)
    for name, flags in (("tracks", keep_tracks), ("clusters", keep_clusters), ("targets", keep)):
        kept[name] = [x for x, flag in zip(event[name], flags, strict=True) if flag]
    for name, member, flags in (
        ("track_links", "track", keep_tracks),
        ("cluster_links", "cluster", keep_clusters),
    ):
        kept[name] = [
            {**link, member: renumbered(link[member], flags)}
            for link in event[name]
            if flags[link[member]]
        ]
    candidates = [c for c, flag in zip(event["candidates"], keep_candidates, strict=True) if flag]
    kept["candidates"] = [{**c, "element": renumbered(c["element"], keep)} for c in candidates]
    kept["particles"] = []
    for particle in event["particles"]:
        element = renumbered(particle["element"], keep)
        lost = particle["element"] >= 0 and element < 0
        kept["particles"].append(
            {
                **particle,
                "element": element,
                "fate": int(Fate.DROPPED) if lost else particle["fate"],
            }
        )
    return kept


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 12),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    mean=st.sampled_from([0.0, 1.0, 8.0]),
)
def test_renumbering_equals_a_loop(n: int, seed: int, share: float, mean: float) -> None:
    events = synthetic_events(n, seed, mean_particles=mean)
    rng = np.random.default_rng(seed)
    masks = [
        ak.unflatten(rng.random(int(ak.sum(ak.num(objects)))) < share, ak.num(objects))
        for objects in (events.tracks, events.clusters, events.candidates)
    ]
    found = remove_objects(events, *masks).to_list()
    assert found == [
        slow_removal(*event)
        for event in zip(events.to_list(), *(mask.to_list() for mask in masks), strict=True)
    ]


def test_an_index_outside_its_event_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside its event"):
        renumber(ak.Array([[0], [1]]), ak.Array([[True, True], [True]]))
    events = synthetic_events(5, 1)
    broken = ak.with_field(
        events,
        ak.with_field(events.particles, events.particles.element + 100, "element"),
        "particles",
    )
    source = write_dataset(tmp_path / "broken.parquet", broken)
    with pytest.raises(UserError, match=r"broken.parquet: inconsistent dataset.*rebuild"):
        select_events(
            stage_settings(),
            dataset=source,
            output=tmp_path / "out.parquet",
            cutflow=tmp_path / "out.json",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["broken.parquet"]


def test_an_energy_balance_that_does_not_close_is_refused(tmp_path: Path) -> None:
    events = synthetic_events(50, 2)
    broken = ak.with_field(
        events, ak.with_field(events.targets, events.targets.energy * 1.00001, "energy"), "targets"
    )
    source = write_dataset(tmp_path / "broken.parquet", broken)
    with pytest.raises(UserError, match=r"broken.parquet: visible energy .* differs"):
        select_events(
            stage_settings(),
            dataset=source,
            output=tmp_path / "out.parquet",
            cutflow=tmp_path / "out.json",
        )


def test_selected_file_and_its_cutflow(tmp_path: Path) -> None:
    events = synthetic_events(400, 3)
    source = write_dataset(tmp_path / "00003.parquet", events, row_group_size=64)
    output, cutflow = tmp_path / "out.parquet", tmp_path / "out.json"
    select_events(stage_settings(), dataset=source, output=output, cutflow=cutflow)

    kept = remove_objects(with_targets_handed_over(events), *final_masks(events))
    assert 0 < ak.sum(ak.num(kept.tracks)) < ak.sum(ak.num(events.tracks))
    first = (ak.num(kept.tracks) + ak.num(kept.clusters)) >= 8
    both = first & (ak.sum(kept.targets.energy, axis=1) > 40)
    found = parquet.read_table(output)
    assert found.event_id.to_list() == events.event_id[both].to_list()
    assert found.particles.to_list() == kept.particles[both].to_list()
    assert (
        found.split.to_list() == split_of(found.event_id.to_numpy(), SelectionConfig(), 7).tolist()
    )

    counts = json.loads(cutflow.read_text())
    rows = counts["cutflow"]["events"]
    assert [(c["name"], c["number"]) for c in rows] == [
        ("all", 400),
        ("elements", ak.sum(first)),
        ("energy", ak.sum(both)),
    ]
    for cut, chosen in zip(rows, (np.ones(400, bool), first, both), strict=True):
        assert cut["sum_of_weights"] == pytest.approx(ak.sum(events.weight[chosen]))
        assert cut["sum_of_weights_squared"] == pytest.approx(ak.sum(events.weight[chosen] ** 2))
    assert sum(counts["splits"].values()) == len(found)
    energy = parquet.read_metadata(output)["energy_gev"]
    assert energy["visible"] == pytest.approx(energy["target"] + energy["dropped"], rel=1e-9)
    assert energy["dropped_by_object_cuts"] > 0
    assert energy["target"] == pytest.approx(ak.sum(found.targets.energy))

    again = tmp_path / "again.parquet"
    select_events(stage_settings(), dataset=source, output=again, cutflow=tmp_path / "again.json")
    assert again.read_bytes() == output.read_bytes()
    assert (tmp_path / "again.json").read_bytes() == cutflow.read_bytes()


def test_the_cutflow_counts_objects_after_each_of_their_cuts(tmp_path: Path) -> None:
    events = synthetic_events(300, 4, mean_particles=20)
    source = write_dataset(tmp_path / "in.parquet", events, row_group_size=70)
    select_events(
        stage_settings(),
        dataset=source,
        output=tmp_path / "out.parquet",
        cutflow=tmp_path / "out.json",
    )
    found = json.loads((tmp_path / "out.json").read_text())["cutflow"]
    expected = {
        kind: np.zeros((len(left.masks), 3)) for kind, left in cut_objects(events, CUTS).items()
    }
    for kind, left in cut_objects(events, CUTS).items():
        for number, mask in enumerate(left.masks):
            for weight, flags in zip(events.weight.to_list(), mask.to_list(), strict=True):
                expected[kind][number] += [sum(flags), sum(flags) * weight, sum(flags) * weight**2]
    assert [row["name"] for row in found["tracks"]] == ["all", "pt", "duplicates"]
    assert found["tracks"][2]["expression"] == "no other with larger tracks.n_hits and dR <= 0.3"
    assert [row["name"] for row in found["candidates"]] == ["all", "energy"]
    for kind, sums in expected.items():
        assert np.all(np.diff(sums[:, 0]) < 0), (
            f"a cut on {kind} removes nothing: the test shows nothing"
        )
        values = [
            [row["number"], row["sum_of_weights"], row["sum_of_weights_squared"]]
            for row in found[kind]
        ]
        np.testing.assert_allclose(values, sums, rtol=1e-12)
    kept = parquet.read_table(tmp_path / "out.parquet")
    assert ak.all(kept.candidates.energy > 0.8)


def test_cuts_that_the_file_has_no_columns_for_are_refused(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in.parquet", synthetic_events(5, 5))
    cuts = DetectorCutsConfig(events=(CutConfig(name="late", expression="max(hits.time) < 10"),))
    with pytest.raises(UserError, match=r"in.parquet: cuts.events: late: there are no hits"):
        select_events(
            stage_settings(cuts),
            dataset=source,
            output=tmp_path / "out.parquet",
            cutflow=tmp_path / "out.json",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_an_empty_file_stays_a_table(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "empty.parquet", synthetic_events(0, 1))
    select_events(
        stage_settings(),
        dataset=source,
        output=tmp_path / "out.parquet",
        cutflow=tmp_path / "out.json",
    )
    assert len(parquet.read_table(tmp_path / "out.parquet")) == 0
    assert json.loads((tmp_path / "out.json").read_text())["cutflow"]["events"][0]["number"] == 0


@pytest.mark.fault("damaged Parquet file")
@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_damaged_file_is_refused_and_nothing_is_written(tmp_path: Path, damage: str) -> None:
    source = write_dataset(tmp_path / "damaged.parquet", synthetic_events(50, 1))
    content = bytearray(source.read_bytes())
    content[4:2000] = b"x" * 1996
    source.write_bytes(content[:-100] if damage == "truncated" else content)
    with pytest.raises(
        UserError,
        match=(
            r"damaged.parquet: (not a readable Parquet file|damaged Parquet file) .*rerun the stage"
        ),
    ):
        select_events(
            stage_settings(),
            dataset=source,
            output=tmp_path / "out.parquet",
            cutflow=tmp_path / "out.json",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.parquet"]


def test_splits_have_the_configured_fractions() -> None:
    # neighbours must not correlate
    ids = synthetic_events(1, 1).event_id.to_numpy()[0] + np.arange(200_000, dtype=np.uint64)
    splits = split_of(
        ids, SelectionConfig(train_fraction=0.7, valid_fraction=0.2, test_fraction=0.1), 5
    )
    for name, fraction in (("train", 0.7), ("valid", 0.2), ("test", 0.1)):
        expected, error = 200_000 * fraction, np.sqrt(200_000 * fraction * (1 - fraction))
        assert abs(np.sum(splits == name) - expected) < 5 * error


def test_a_split_depends_on_identity_and_seed_only() -> None:
    ids = np.random.default_rng(1).integers(0, 2**64, 5000, dtype=np.uint64)
    splits = split_of(ids, SelectionConfig(), 5)
    order = np.random.default_rng(2).permutation(5000)
    assert np.array_equal(split_of(ids[order], SelectionConfig(), 5), splits[order])
    assert np.array_equal(
        np.concatenate([split_of(part, SelectionConfig(), 5) for part in np.split(ids, [7, 2000])]),
        splits,
    )
    # expected 1 - (0.8^2 + 2 * 0.1^2) = 0.34
    assert 0.2 < np.mean(split_of(ids, SelectionConfig(), 6) != splits) < 0.5


def test_a_split_does_not_depend_on_how_events_lie_in_files(tmp_path: Path) -> None:
    events = synthetic_events(60, 8)
    found = []
    for edges, row_group_size in (([0, 60], 500), ([0, 7, 7, 41, 60], 3)):
        splits: dict[int, str] = {}
        for number, (first, last) in enumerate(itertools.pairwise(edges)):
            source = write_dataset(
                tmp_path / "in.parquet", events[first:last], row_group_size=row_group_size
            )
            select_events(
                stage_settings(),
                dataset=source,
                output=tmp_path / f"{number}.parquet",
                cutflow=tmp_path / f"{number}.json",
            )
            part = parquet.read_table(tmp_path / f"{number}.parquet")
            splits |= dict(zip(part.event_id.to_list(), part.split.to_list(), strict=True))
        found.append(splits)
    assert found[0] == found[1]
    assert set(found[0].values()) == set(SPLITS)


CUTFLOW = CutflowSettings(samples={"ttbar": SampleConfig(label="$t\\bar{t}$", pythia=("x",))})


def cutflow_files(folder: Path, *samples: str) -> list[Path]:
    """Return the cutflows of one file of each of ``samples``."""
    files = []
    for number, sample in enumerate(samples):
        source = write_dataset(
            folder / f"{number}.parquet", synthetic_events(150, number, mean_particles=7)
        )
        files.append(folder / f"{number}.json")
        select_events(
            stage_settings(sample=sample),
            dataset=source,
            output=folder / f"out{number}.parquet",
            cutflow=files[-1],
        )
    return files


def test_gathered_cutflow(tmp_path: Path) -> None:
    files = cutflow_files(tmp_path, "ttbar", "qq", "ttbar")
    written = []
    for name in ("a", "b"):
        gather_cutflows(
            CUTFLOW,
            cutflows=files,
            table=tmp_path / name / "cutflow.csv",
            plot=tmp_path / name / "cutflow.png",
        )
        written.append(
            [
                (tmp_path / name / f"cutflow.{suffix}").read_bytes()
                for suffix in ("csv", "png", "pdf")
            ]
        )
    assert written[0] == written[1]
    with open(tmp_path / "a" / "cutflow.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    last = next(
        row
        for row in rows
        if row["sample"] == "ttbar" and (row["quantity"], row["cut"]) == ("events", "energy")
    )
    shards = [json.loads(files[i].read_text())["cutflow"]["events"] for i in (0, 2)]
    assert int(last["number"]) == sum(shard[-1]["number"] for shard in shards)
    total, passed = (sum(shard[i]["sum_of_weights"] for shard in shards) for i in (0, -1))
    assert float(last["efficiency"]) == pytest.approx(passed / total)
    assert float(last["efficiency_low"]) < passed / total < float(last["efficiency_high"])
    quantities = list(dict.fromkeys((row["quantity"], row["cut"]) for row in rows))
    events = [("events", name) for name in ("all", "elements", "energy")]
    tracks = [("tracks", name) for name in ("all", "pt", "duplicates")]
    assert quantities == [
        *events,
        *tracks,
        *((kind, name) for kind in ("clusters", "candidates") for name in ("all", "energy")),
    ]
    pt, duplicates = (
        next(row for row in rows if row["sample"] == "qq" and row["cut"] == name)
        for name in ("pt", "duplicates")
    )
    assert float(duplicates["efficiency"]) == pytest.approx(
        float(pt["efficiency"]) * float(duplicates["step_efficiency"])
    )
    assert 0 < float(duplicates["step_efficiency_low"]) < float(duplicates["step_efficiency"]) < 1


def test_a_cutflow_without_weights_counts_events(tmp_path: Path) -> None:
    (file,) = cutflow_files(tmp_path, "qq")
    unweighted = json.loads(file.read_text())
    for cut in itertools.chain(*unweighted["cutflow"].values()):
        # as full-simulation files leave it
        cut["sum_of_weights"] = cut["sum_of_weights_squared"] = 0.0
    (tmp_path / "unweighted.json").write_text(json.dumps(unweighted))
    gather_cutflows(
        CUTFLOW,
        cutflows=[tmp_path / "unweighted.json"],
        table=tmp_path / "u.csv",
        plot=tmp_path / "u.png",
    )
    with open(tmp_path / "u.csv", encoding="utf-8") as handle:
        last = [row for row in csv.DictReader(handle) if row["quantity"] == "events"][-1]
    assert float(last["efficiency"]) == pytest.approx(int(last["number"]) / 150)


def test_cutflows_of_other_cuts_are_refused(tmp_path: Path) -> None:
    files = cutflow_files(tmp_path, "ttbar", "ttbar")
    other = json.loads(files[0].read_text())
    other["cutflow"]["tracks"][1]["expression"] = "tracks.pt > 0"
    files[1].write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"1.json: made with other cuts"):
        gather_cutflows(CUTFLOW, cutflows=files, table=tmp_path / "c.csv", plot=tmp_path / "c.png")


def test_efficiency_intervals_cover() -> None:
    rng = np.random.default_rng(3)
    true, n, covered = 0.9, 60, 0
    for passed in rng.binomial(n, true, 2000):
        _, low, high = efficiency(float(passed), n, n)
        covered += low <= true <= high
    assert 0.68 <= covered / 2000 < 0.85  # Clopper-Pearson never undercovers
    assert efficiency(0, 10, 10)[:2] == (0.0, 0.0)
    assert efficiency(10, 10, 10)[0::2] == (1.0, 1.0)
    assert efficiency(0, 0, 0) == (0.0, 0.0, 1.0)
    weighted = efficiency(30.0, 60.0, 120.0)  # 60 of weight with n_eff = 30
    assert weighted == pytest.approx(efficiency(15.0, 30.0, 30.0))
