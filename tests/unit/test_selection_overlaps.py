"""Overlaps of objects: which of them stays, and who takes over the target of the other."""

import math
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.cuts import DetectorCutsConfig, OverlapConfig
from particleforge.selection.objects import hand_over
from particleforge.selection.overlaps import without_overlaps
from particleforge.selection.select import select_events
from particleforge.tables import parquet, schema

from .synthetic import synthetic_events, write_dataset
from .test_selection import CUTS, stage_settings


def slow_overlaps(
    objects: list[dict[str, Any]],
    overlap: OverlapConfig,
    keep: list[bool],
    stand_in: list[int],
    momentum: str,
) -> tuple[list[bool], list[int]]:
    """What without_overlaps does, for one event, pair by pair.

    The preference is the member n_hits.
    """
    left: list[int] = []
    instead: dict[int, int] = {}
    for i in sorted(
        (i for i in range(len(objects)) if keep[i]), key=lambda i: (-objects[i]["n_hits"], i)
    ):
        a = objects[i]
        for j in left:
            b = objects[j]
            turn = math.remainder(a["phi"] - b["phi"], 2 * math.pi)
            near = math.hypot(a["eta"] - b["eta"], turn) <= overlap.delta_r_max
            larger = max(a[momentum], b[momentum])
            alike = (
                overlap.relative_difference_max is None
                or abs(a[momentum] - b[momentum]) <= overlap.relative_difference_max * larger
            )
            if near and alike and all(a[member] == b[member] for member in overlap.same):
                instead[i] = j
                break
        else:
            left.append(i)
    stands_in = [instead.get(i, instead.get(before, before)) for i, before in enumerate(stand_in)]
    return [i in left for i in range(len(objects))], stands_in


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 8),
    seed=st.integers(0, 1000),
    mean=st.sampled_from([0.0, 2.0, 25.0]),
    delta_r_max=st.sampled_from([0.05, 0.4, 3.0, 50.0]),
    difference=st.sampled_from([None, 0.05, 0.6]),
    collection=st.sampled_from(["tracks", "clusters"]),
    same=st.sampled_from([(), ("n_hits",)]),
)
def test_overlaps_equal_a_loop(
    n: int,
    seed: int,
    mean: float,
    delta_r_max: float,
    difference: float | None,
    collection: str,
    same: tuple[str, ...],
) -> None:
    events = synthetic_events(n, seed, mean_particles=mean)
    objects = events[collection]
    rng = np.random.default_rng(seed)
    # many equals
    preference = ak.unflatten(
        rng.integers(0, 4, int(ak.sum(ak.num(objects)))).astype(np.float32), ak.num(objects)
    )
    objects = ak.with_field(objects, preference, "n_hits")
    overlap = OverlapConfig(
        name="a",
        collection=collection,
        delta_r_max=delta_r_max,
        prefer=f"{collection}.n_hits",
        relative_difference_max=difference,
        same=same,
    )
    keep = ak.unflatten(rng.random(int(ak.sum(ak.num(objects)))) < 0.8, ak.num(objects))
    earlier = ak.Array(
        [
            [
                int(rng.choice(np.flatnonzero(flags))) if not flag and any(flags) else -1
                for flag in flags
            ]
            for flags in keep.to_list()
        ]
    )
    earlier = ak.values_astype(
        ak.unflatten(ak.flatten(earlier), ak.num(objects)) if n else keep, np.int64
    )
    left, stand_in = without_overlaps(objects, overlap, preference, keep, earlier)
    momentum = {"tracks": "pt", "clusters": "et"}[collection]
    lists = (objects.to_list(), [overlap] * n, keep.to_list(), earlier.to_list(), [momentum] * n)
    expected = [slow_overlaps(*event) for event in zip(*lists, strict=True)]
    assert left.to_list() == [flags for flags, _ in expected]
    assert stand_in.to_list() == [indices for _, indices in expected]


def test_of_overlapping_tracks_the_preferred_stays_across_the_turn_in_azimuth() -> None:
    eta, phi = [0.0, 0.0, 0.0, 5.0], [3.14, -3.14, 3.0, 3.0]
    tracks = ak.Array([[{"eta": e, "phi": p, "pt": 1.0} for e, p in zip(eta, phi, strict=True)]])
    overlap = OverlapConfig(name="a", collection="tracks", delta_r_max=0.1, prefer="tracks.n_hits")
    nothing = ak.Array([[-1] * 4])
    for preference, keep, expected in (
        ([5.0, 7.0, 1.0, 1.0], [True] * 4, [1, -1, -1, -1]),
        ([5.0, 5.0, 1.0, 1.0], [True] * 4, [-1, 0, -1, -1]),
        ([math.nan, 5.0, math.nan, 1.0], [True] * 4, [1, -1, -1, -1]),
        ([5.0, 7.0, 1.0, 1.0], [True, False, True, True], [-1, -1, -1, -1]),
    ):
        left, stand_in = without_overlaps(
            tracks, overlap, ak.Array([preference]), ak.Array([keep]), nothing
        )
        assert stand_in.to_list() == [expected]
        assert left.to_list() == [
            [was and other < 0 for was, other in zip(keep, expected, strict=True)]
        ]


def slow_hand_over(event: dict[str, Any], tracks: list[int], clusters: list[int]) -> dict[str, Any]:
    """What hand_over does, for one event, element by element."""
    stand_in = [*tracks, *(i if i < 0 else i + len(event["tracks"]) for i in clusters)]
    targets = list(event["targets"])
    moved: dict[int, int] = {}
    for i, other in enumerate(stand_in):
        if other >= 0 and event["targets"][i]["class_id"] and not targets[other]["class_id"]:
            targets[other], moved[i] = event["targets"][i], other
    particles = [
        {**p, "element": moved.get(p["element"], p["element"])} for p in event["particles"]
    ]
    candidates = [
        {
            **c,
            "element": (
                stand_in[c["element"]]
                if c["element"] >= 0 and stand_in[c["element"]] >= 0
                else c["element"]
            ),
        }
        for c in event["candidates"]
    ]
    return {**event, "targets": targets, "particles": particles, "candidates": candidates}


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 10),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.2, 0.7]),
    mean=st.sampled_from([0.0, 2.0, 20.0]),
)
def test_targets_are_handed_over_as_by_a_loop(n: int, seed: int, share: float, mean: float) -> None:
    events = synthetic_events(n, seed, mean_particles=mean)
    rng = np.random.default_rng(seed)
    stand_ins = []
    for objects in (events.tracks, events.clusters):
        counts = np.repeat(ak.to_numpy(ak.num(objects)), ak.to_numpy(ak.num(objects)))
        indices = np.where(
            rng.random(len(counts)) < share, (rng.random(len(counts)) * counts).astype(np.int64), -1
        )
        stand_ins.append(ak.unflatten(indices, ak.num(objects)))
    found = hand_over(events, *stand_ins).to_list()
    assert found == [
        slow_hand_over(*event)
        for event in zip(events.to_list(), *(s.to_list() for s in stand_ins), strict=True)
    ]


def test_a_duplicate_without_target_takes_over_that_of_the_removed_track(tmp_path: Path) -> None:
    """Each track is there twice, the first of the two with the target; the second has more hits."""
    events = synthetic_events(100, 5, mean_particles=8)
    cuts = DetectorCutsConfig(
        overlaps=(
            OverlapConfig(
                name="duplicates",
                collection="tracks",
                delta_r_max=1e-9,
                prefer="tracks.n_hits",
                same=("pt",),
            ),
        )
    )
    second = ak.with_field(events.tracks, events.tracks.n_hits + 1, "n_hits")
    n_tracks = ak.num(events.tracks)
    none = ak.zip(
        {
            field.name: ak.full_like(events.targets[field.name], -(field.name == "particle"))
            for field in schema.TARGETS.fields
        }
    )
    is_track = ak.local_index(events.targets) < n_tracks

    def behind_duplicates(element: ak.Array) -> ak.Array:
        return ak.where(element >= n_tracks, element + n_tracks, element)

    doubled = ak.with_field(events, ak.concatenate([events.tracks, second], axis=1), "tracks")
    doubled = ak.with_field(
        doubled,
        ak.concatenate(
            [events.targets[is_track], none[is_track], events.targets[~is_track]], axis=1
        ),
        "targets",
    )
    for name in ("particles", "candidates"):
        doubled = ak.with_field(
            doubled,
            ak.with_field(events[name], behind_duplicates(events[name].element), "element"),
            name,
        )
    source = write_dataset(tmp_path / "in.parquet", doubled)
    select_events(
        stage_settings(cuts),
        dataset=source,
        output=tmp_path / "out.parquet",
        cutflow=tmp_path / "out.json",
    )
    found = parquet.read_table(tmp_path / "out.parquet")
    assert (
        parquet.read_metadata(tmp_path / "out.parquet")["energy_gev"]["dropped_by_object_cuts"] == 0
    )
    for name in ("targets", "particles", "candidates"):
        assert found[name].to_list() == events[name].to_list()
    assert found.tracks.n_hits.to_list() == (events.tracks.n_hits + 1).to_list()


def test_the_targets_of_overlapping_objects_are_accounted_as_dropped(tmp_path: Path) -> None:
    cuts = DetectorCutsConfig(overlaps=CUTS.overlaps)
    source = write_dataset(tmp_path / "in.parquet", synthetic_events(100, 5, mean_particles=20))
    select_events(
        stage_settings(cuts),
        dataset=source,
        output=tmp_path / "out.parquet",
        cutflow=tmp_path / "out.json",
    )
    energy = parquet.read_metadata(tmp_path / "out.parquet")["energy_gev"]
    assert energy["dropped_by_object_cuts"] > 0
    assert energy["visible"] == pytest.approx(energy["target"] + energy["dropped"], rel=1e-9)
