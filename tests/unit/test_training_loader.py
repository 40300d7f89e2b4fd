"""Batches: every event once, within the budget, little padding, the same for any ranks."""

import itertools
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import Batch
from particleforge.tables.parquet import SHARD_SCHEMA, write_shard
from particleforge.training.loader import ShardLoader
from particleforge.training.plan import (
    choose_events,
    padded_elements,
    plan_epoch,
    shards_per_window,
)

from .synthetic_shards import write_synthetic

lengths_of_shards = st.lists(
    st.lists(st.integers(0, 300), max_size=40).map(lambda n: np.array(n, np.int64)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths_of_shards,
    budget=st.integers(64, 2000),
    window=st.integers(1, 8),
    seed=st.none() | st.integers(0, 99),
)
def test_every_event_once_and_within_budget(
    lengths: list[np.ndarray], budget: int, window: int, seed: int | None
) -> None:
    generator = None if seed is None else np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum([len(n) for n in lengths])))
    seen = []
    for batch in plan_epoch(lengths, budget, window, generator):
        assert len(batch.window) <= window
        batch_lengths = np.concatenate([lengths[shard] for shard in batch.window])[batch.events]
        assert padded_elements(batch_lengths) <= budget or len(batch.events) == 1
        ids = np.concatenate(
            [np.arange(offsets[shard], offsets[shard + 1]) for shard in batch.window]
        )
        seen += ids[batch.events].tolist()
    assert sorted(seen) == list(range(offsets[-1]))


@pytest.mark.parametrize("budget", [2048, 8192, 32768, 131072])
@pytest.mark.parametrize("at_least", [2, 8])
def test_padding_is_below_a_tenth_at_realistic_lengths(at_least: int, budget: int) -> None:
    rng = np.random.default_rng(1)
    # mean 132, RMS 54
    lengths = [np.clip(rng.gamma(6, 22, 1000), 5, 600).astype(np.int64) for _ in range(16)]
    window = shards_per_window(
        len(lengths), sum(int(shard.sum()) for shard in lengths), budget, at_least
    )
    planned = list(plan_epoch(lengths, budget, window, rng))
    batches = [
        np.concatenate([lengths[shard] for shard in batch.window])[batch.events]
        for batch in planned
    ]
    assert {n for batch in planned for n in batch.window} == set(range(16))
    for ranks, parts in ((1, 1), (4, 1), (4, 2)):
        dealt = [
            part
            for batch in batches
            for rank in range(ranks)
            for part in np.array_split(batch[rank::ranks], parts)
        ]
        waste = 1 - sum(int(part.sum()) for part in dealt) / sum(
            padded_elements(part) for part in dealt
        )
        assert waste < 0.1


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


def loader(
    manifest: Path,
    split: str = "train",
    *,
    seed: int = 1,
    shards: int = 2,
    budget: int = 128,
    **options: int,
) -> ShardLoader:
    inputs = ModelInputs.from_manifest(manifest)
    return ShardLoader(
        manifest, split, inputs, budget=budget, shards_in_memory=shards, seed=seed, **options
    )


def signature(batch: Batch) -> list[tuple[float, ...]]:
    """Return what tells events apart, exactly: their numbers of elements and the first element's
    features, sorted.
    """
    lengths = (batch.element_type > 0).sum(1).tolist()
    return sorted(
        (n, *features) for n, features in zip(lengths, batch.features[:, 0].tolist(), strict=True)
    )


def equal(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same, bit for bit."""
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_batches_hold_what_the_shards_hold(manifest: Path) -> None:
    found = loader(manifest, split="valid")
    table = pq.read_table(found.paths[0])
    batches = list(found.once())
    assert sum(len(batch.features) for batch in batches) == table.num_rows == 30
    features = {
        round(float(np.sum(row, dtype=np.float64)), 6) for row in table["features"].to_pylist()
    }
    assert features == {
        round(value, 6)
        for batch in batches
        for value in batch.features.double().sum((1, 2)).tolist()
    }
    momenta = sum(np.sum(row, dtype=np.float64) for row in table["target_p4"].to_pylist())
    assert sum(batch.target_p4.double().sum().item() for batch in batches) == pytest.approx(momenta)
    n_particles = sum((np.array(row) > 0).sum() for row in table["target_class"].to_pylist())
    assert sum(int((batch.target_class > 0).sum()) for batch in batches) == n_particles
    for batch in batches:
        padding = batch.element_type == 0
        assert not any(column[padding].any() for column in batch)


def test_order_is_the_seeds(manifest: Path) -> None:
    def first(n: int, **changes: int) -> list[list[tuple[float, ...]]]:
        return [
            signature(batch)
            for _, _, (batch,), _ in itertools.islice(loader(manifest, **changes).stream(0, 0), n)
        ]

    assert first(8) == first(8)
    assert first(8) != first(8, seed=2)


def test_epochs_differ_but_hold_the_same_events(manifest: Path) -> None:
    found = loader(manifest)
    epochs: dict[int, list[list[tuple[float, ...]]]] = {0: [], 1: []}
    for epoch, _, (batch,), _ in found.stream(0, 0):
        if epoch > 1:
            break
        epochs[epoch].append(signature(batch))
    assert epochs[0] != epochs[1]
    assert sorted(itertools.chain(*epochs[0])) == sorted(itertools.chain(*epochs[1]))


def test_stream_goes_on_from_any_position(manifest: Path) -> None:
    whole = list(itertools.islice(loader(manifest).stream(0, 0), 60))
    assert {epoch for epoch, *_ in whole} >= {0, 1}
    for stopped, read_ahead in itertools.product((0, 7, 30, 44), (0, 1, 3)):
        stream = loader(manifest, read_ahead=read_ahead).stream(*whole[stopped][:2])
        for expected, found in zip(whole[stopped + 1 :], stream, strict=False):
            assert found[:2] + found[3:] == expected[:2] + expected[3:]
            assert equal(found[2][0], expected[2][0])


def events_of_epoch(
    manifest: Path, start: int, **options: int
) -> tuple[list[tuple[float, ...]], int]:
    """Return all events with elements that a rank gets in epoch 3 from a batch on, and its number
    of events.
    """
    events, total = [], 0
    for epoch, _, micro_batches, n_events in loader(manifest, **options).stream(3, start):
        if epoch > 3:
            break
        events += [event for batch in micro_batches for event in signature(batch) if event[0]]
        total += n_events
    return events, total


@settings(max_examples=15, deadline=None)
@given(
    world=st.integers(1, 5),
    again=st.integers(1, 5),
    parts=st.integers(1, 3),
    shards=st.integers(1, 3),
    data=st.data(),
)
def test_each_event_once_per_epoch_on_any_ranks(
    manifest: Path, world: int, again: int, parts: int, shards: int, data: st.DataObject
) -> None:
    """Also when an epoch begins on ``world`` ranks and ends on ``again``."""
    options = {
        "shards": shards,
        "budget": data.draw(st.sampled_from([64, 200, 1000])),
        "read_ahead": data.draw(st.integers(0, 2)),
    }
    n_batches = len(list(loader(manifest, **options).plan(3)))
    stop = data.draw(st.integers(0, n_batches - 1))
    events, total = [], 0
    for rank in range(world):
        for epoch, position, micro_batches, n_events in loader(
            manifest, rank=rank, world_size=world, parts=parts, **options
        ).stream(3, 0):
            if epoch > 3 or position > stop:
                break
            events += [event for batch in micro_batches for event in signature(batch) if event[0]]
            total += n_events
    for rank in range(again):
        found, n_events = events_of_epoch(manifest, stop, rank=rank, world_size=again, **options)
        events, total = events + found, total + n_events
    assert total == 120
    assert sorted(events) == sorted(
        event for batch in loader(manifest).once() for event in signature(batch) if event[0]
    )


def test_reading_ahead_ends_with_the_stream(manifest: Path) -> None:
    stream = loader(manifest, read_ahead=2).stream(0, 0)
    next(stream)
    assert len(reading_threads()) == 1
    stream.close()
    assert not reading_threads()
    assert len(list(loader(manifest, read_ahead=2).once())) == len(list(loader(manifest).once()))
    assert not reading_threads()


@pytest.mark.parametrize("read_ahead", [0, 1, 2])
def test_an_error_while_reading_ahead_comes_in_its_turn(tmp_path: Path, read_ahead: int) -> None:
    found = loader(write_synthetic(tmp_path), shards=1, budget=24, read_ahead=read_ahead)
    before = list(itertools.takewhile(lambda planned: planned.window != (1,), found.plan(0)))
    (tmp_path / "train" / "00001.parquet").write_bytes(b"PAR1 cut off")
    stream = found.stream(0, 0)
    assert len(list(itertools.islice(stream, len(before)))) == len(before)
    with pytest.raises(
        UserError, match=r"train.00001\.parquet: .* delete it and rerun the stage that writes it"
    ):
        next(stream)
    assert not reading_threads()


def test_a_process_ends_although_its_loader_reads_ahead(manifest: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from particleforge.model.inputs import"
        " ModelInputs\nfrom particleforge.training.loader import ShardLoader; path ="
        " Path(sys.argv[1])\nfound = ShardLoader(path, 'train', ModelInputs.from_manifest(path),"
        " budget=99, shards_in_memory=1, seed=1, read_ahead=3)\nstream = found.stream(0, 0);"
        " next(stream); raise SystemExit(7)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code, str(manifest)], timeout=60, check=False
        ).returncode
        == 7
    )


def test_a_rank_holds_its_own_events_only(manifest: Path) -> None:
    def held(world_size: int) -> list[int]:
        ranks = (
            loader(manifest, rank=rank, world_size=world_size, shards=3, budget=250)
            for rank in range(world_size)
        )
        windows = [next(found._windows([0], 0, []))[2] for found in ranks]
        return [sum(column.nbytes for column in one._columns.values()) for one in windows]

    (whole,) = held(1)
    table = pq.read_table(
        manifest.parent / "train" / "00000.parquet", columns=["features", "target_p4"]
    )
    assert whole > 2 * table.nbytes  # the window has three such shards
    assert max(held(3)) < whole / 2


@pytest.mark.parametrize("world_size", [2, 3, 40])
def test_ranks_share_each_batch_of_one_rank(manifest: Path, world_size: int) -> None:
    streams = [
        loader(manifest, rank=rank, world_size=world_size).stream(0, 0)
        for rank in range(world_size)
    ]
    for _, _, (batch,), n_events in itertools.islice(loader(manifest).stream(0, 0), 6):
        parts = [next(stream) for stream in streams]
        assert sum(part[3] for part in parts) == n_events
        total = sum(part[2][0].features.double().sum().item() for part in parts)
        assert total == pytest.approx(batch.features.double().sum().item())
        # a rank without events still takes part
        assert all(part[2][0].element_type.numel() for part in parts)


@pytest.mark.parametrize(("world_size", "parts"), [(1, 4), (2, 3), (3, 20)])
def test_micro_batches_share_out_a_rank_s_events_by_length(
    manifest: Path, world_size: int, parts: int
) -> None:
    for rank in range(world_size):
        whole = loader(manifest, rank=rank, world_size=world_size).stream(0, 0)
        shared = loader(manifest, rank=rank, world_size=world_size, parts=parts).stream(0, 0)
        for _ in range(8):
            epoch, position, (expected,), n_events = next(whole)
            *place, found, n_found = next(shared)
            assert (*place, n_found) == (epoch, position, n_events)
            assert len(found) == parts
            sizes = [len(batch.element_type) for batch in found]
            assert max(sizes) - min(sizes) <= 1
            # no event, one padding element
            assert all(batch.element_type.numel() for batch in found)
            lengths = [(batch.element_type > 0).sum(1).tolist() for batch in found]
            assert all(max(after) <= min(before) for before, after in itertools.pairwise(lengths))
            events = sorted(event for batch in found for event in signature(batch) if event[0])
            assert events == [event for event in signature(expected) if event[0]]


def test_bad_shards_are_named(manifest: Path, tmp_path: Path) -> None:
    original = pq.read_table(manifest.parent / "valid" / "00000.parquet")

    def with_features(features: list[list[float]]) -> Path:
        copied = write_synthetic(tmp_path, train=(1,), valid=1, test=1)
        table = original.set_column(
            original.schema.get_field_index("features"),
            "features",
            pa.array(features, pa.list_(pa.float32())),
        )
        write_shard(tmp_path / "valid" / "00000.parquet", table.cast(SHARD_SCHEMA), {})
        return copied

    features = original["features"].to_pylist()
    features[2] = [float("nan"), *features[2][1:]] if features[2] else features[2]
    features[3] = [float("nan"), *features[3][1:]] if features[3] else features[3]
    with pytest.raises(UserError, match=r"valid.00000\.parquet: column features holds NaN"):
        list(loader(with_features(features), split="valid").once())
    with pytest.raises(UserError, match=r"00000\.parquet: features has .* values"):
        list(loader(with_features([row[:-1] for row in features]), split="valid").once())
    (tmp_path / "valid" / "00000.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"00000\.parquet: not a readable Parquet"):
        loader(tmp_path / "manifest.json", split="valid")
    with pytest.raises(UserError, match="the valid split has no events"):
        loader(write_synthetic(tmp_path, valid=0), split="valid")


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=7),
    n_events=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_chosen_events_are_nested_and_read_few_shards(
    sizes: list[int], n_events: int, seed: int
) -> None:
    fewer, more = (
        choose_events(sizes, n, np.random.default_rng(seed)) for n in (n_events, n_events + 7)
    )
    assert sum(map(len, fewer.values())) == min(n_events, sum(sizes))
    assert all(
        set(events) <= set(more[shard]) and set(events) <= set(range(sizes[shard]))
        for shard, events in fewer.items()
    )
    assert sum(len(events) < sizes[shard] for shard, events in fewer.items()) <= 1


def test_a_training_on_fewer_events_sees_these_in_every_epoch(manifest: Path) -> None:
    every = [event for batch in loader(manifest).once() for event in signature(batch)]
    for n_events, n_shards in ((7, 1), (50, 2), (10_000, 3)):
        found = loader(manifest, max_events=n_events)
        assert len(found.paths) == n_shards
        epochs: dict[int, list[tuple[float, ...]]] = {0: [], 1: []}
        for epoch, _, (batch,), _ in found.stream(0, 0):
            if epoch > 1:
                break
            epochs[epoch] += signature(batch)
        assert sorted(epochs[0]) == sorted(epochs[1])
        assert len(epochs[0]) == min(n_events, 120)
        assert set(epochs[0]) <= set(every)
    assert signature(next(loader(manifest, max_events=7).once())) != signature(
        next(loader(manifest, max_events=7, seed=2).once())
    )
