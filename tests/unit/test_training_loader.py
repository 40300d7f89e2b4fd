"""Batches: every event once, within the budget, little padding, the same for any number of ranks."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.tables import SHARD_SCHEMA, write_table
from particleforge.training.loader import ShardLoader
from particleforge.training.plan import choose_events, padded_elements, plan_epoch

from .synthetic_shards import write_synthetic

lengths_of_shards = st.lists(st.lists(st.integers(0, 300), max_size=40).map(lambda n: np.array(n, np.int64)), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of_shards, budget=st.integers(64, 2000), window=st.integers(1, 8), seed=st.none() | st.integers(0, 99))
def test_every_event_once_and_within_budget(lengths: list[np.ndarray], budget: int, window: int, seed: int | None) -> None:
    generator = None if seed is None else np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum([len(n) for n in lengths])))
    seen = []
    for batch in plan_epoch(lengths, budget, window, generator):
        assert len(batch.window) <= window
        batch_lengths = np.concatenate([lengths[shard] for shard in batch.window])[batch.events]
        assert padded_elements(batch_lengths) <= budget or len(batch.events) == 1
        ids = np.concatenate([np.arange(offsets[shard], offsets[shard + 1]) for shard in batch.window])
        seen += ids[batch.events].tolist()
    assert sorted(seen) == list(range(offsets[-1]))


@pytest.mark.parametrize("window", [2, 8])
@pytest.mark.parametrize("budget", [4096, 8192])
def test_padding_is_below_a_tenth_at_realistic_lengths(window: int, budget: int) -> None:
    rng = np.random.default_rng(1)
    lengths = [np.clip(rng.gamma(6, 22, 1000), 5, 600).astype(np.int64) for _ in range(8)]  # mean 132, RMS 54
    planned = plan_epoch(lengths, budget, window, rng)
    batches = [np.concatenate([lengths[shard] for shard in batch.window])[batch.events] for batch in planned]
    waste = 1 - sum(b.sum() for b in batches) / sum(padded_elements(b) for b in batches)
    assert waste < 0.1


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


def loader(manifest: Path, split: str = "train", *, seed: int = 1, shards: int = 2, budget: int = 128, **options: int) -> ShardLoader:
    inputs = ModelInputs.from_manifest(manifest)
    return ShardLoader(manifest, split, inputs, budget=budget, shards_in_memory=shards, seed=seed, **options)


def signature(batch: object) -> list[float]:
    """Return the sorted sums of the events' features, which tell events apart."""
    return sorted(batch.features.double().sum((1, 2)).tolist())


def test_batches_hold_what_the_shards_hold(manifest: Path) -> None:
    found = loader(manifest, split="valid")
    table = pq.read_table(found.paths[0])
    batches = list(found.once())
    assert sum(len(batch.features) for batch in batches) == table.num_rows == 30
    features = {round(float(np.sum(row, dtype=np.float64)), 6) for row in table["features"].to_pylist()}
    assert features == {round(value, 6) for batch in batches for value in batch.features.double().sum((1, 2)).tolist()}
    momenta = sum(np.sum(row, dtype=np.float64) for row in table["target_p4"].to_pylist())
    assert sum(batch.target_p4.double().sum().item() for batch in batches) == pytest.approx(momenta)
    n_particles = sum((np.array(row) > 0).sum() for row in table["target_class"].to_pylist())
    assert sum(int((batch.target_class > 0).sum()) for batch in batches) == n_particles
    for batch in batches:
        padding = batch.element_type == 0
        assert not any(column[padding].any() for column in batch)


def test_order_is_the_seeds(manifest: Path) -> None:
    def first(n: int, **changes: int) -> list[list[float]]:
        return [signature(batch) for _, _, (batch,), _ in itertools.islice(loader(manifest, **changes).stream(0, 0), n)]

    assert first(8) == first(8)
    assert first(8) != first(8, seed=2)


def test_epochs_differ_but_hold_the_same_events(manifest: Path) -> None:
    found = loader(manifest)
    epochs: dict[int, list[list[float]]] = {0: [], 1: []}
    for epoch, _, (batch,), _ in found.stream(0, 0):
        if epoch > 1:
            break
        epochs[epoch].append(signature(batch))
    assert epochs[0] != epochs[1]
    assert sorted(itertools.chain(*epochs[0])) == sorted(itertools.chain(*epochs[1]))


def test_stream_goes_on_from_any_position(manifest: Path) -> None:
    whole = [(e, p, signature(b)) for e, p, (b,), _ in itertools.islice(loader(manifest).stream(0, 0), 60)]
    assert {epoch for epoch, _, _ in whole} >= {0, 1}
    for stopped in (0, 7, 30, 44):
        epoch, position, _ = whole[stopped]
        resumed = [(e, p, signature(b)) for e, p, (b,), _ in itertools.islice(loader(manifest).stream(epoch, position), 10)]
        assert resumed == whole[stopped + 1 : stopped + 11]


@pytest.mark.parametrize("world_size", [2, 3, 40])
def test_ranks_share_each_batch_of_one_rank(manifest: Path, world_size: int) -> None:
    streams = [loader(manifest, rank=rank, world_size=world_size).stream(0, 0) for rank in range(world_size)]
    for _, _, (batch,), n_events in itertools.islice(loader(manifest).stream(0, 0), 6):
        parts = [next(stream) for stream in streams]
        assert sum(part[3] for part in parts) == n_events
        total = sum(part[2][0].features.double().sum().item() for part in parts)
        assert total == pytest.approx(batch.features.double().sum().item())
        assert all(part[2][0].element_type.numel() for part in parts)  # a rank without events still takes part


@pytest.mark.parametrize(("world_size", "parts"), [(1, 4), (2, 3), (3, 20)])
def test_micro_batches_share_out_a_rank_s_events_by_length(manifest: Path, world_size: int, parts: int) -> None:
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
            assert all(batch.element_type.numel() for batch in found)  # no event, one padding element
            lengths = [(batch.element_type > 0).sum(1).tolist() for batch in found]
            assert all(max(after) <= min(before) for before, after in itertools.pairwise(lengths))
            events = [event for batch in found for event in signature(batch)]
            assert sorted(filter(None, events)) == pytest.approx(sorted(filter(None, signature(expected))))


def test_bad_shards_are_named(manifest: Path, tmp_path: Path) -> None:
    original = pq.read_table(manifest.parent / "valid" / "00000.parquet")

    def with_features(features: list[list[float]]) -> Path:
        copied = write_synthetic(tmp_path, train=(1,), valid=1, test=1)
        table = original.set_column(original.schema.get_field_index("features"), "features", pa.array(features, pa.list_(pa.float32())))
        write_table(tmp_path / "valid" / "00000.parquet", [table.cast(SHARD_SCHEMA)], SHARD_SCHEMA, {})
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
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=7), n_events=st.integers(1, 300), seed=st.integers(0, 99))
def test_chosen_events_are_nested_and_read_few_shards(sizes: list[int], n_events: int, seed: int) -> None:
    fewer, more = (choose_events(sizes, n, np.random.default_rng(seed)) for n in (n_events, n_events + 7))
    assert sum(map(len, fewer.values())) == min(n_events, sum(sizes))
    assert all(set(events) <= set(more[shard]) and set(events) <= set(range(sizes[shard])) for shard, events in fewer.items())
    assert sum(len(events) < sizes[shard] for shard, events in fewer.items()) <= 1


def test_a_training_on_fewer_events_sees_these_in_every_epoch(manifest: Path) -> None:
    every = [event for batch in loader(manifest).once() for event in signature(batch)]
    for n_events, n_shards in ((7, 1), (50, 2), (10_000, 3)):
        found = loader(manifest, max_events=n_events)
        assert len(found.paths) == n_shards
        epochs: dict[int, list[float]] = {0: [], 1: []}
        for epoch, _, (batch,), _ in found.stream(0, 0):
            if epoch > 1:
                break
            epochs[epoch] += signature(batch)
        assert sorted(epochs[0]) == sorted(epochs[1])
        assert len(epochs[0]) == min(n_events, 120)
        assert set(epochs[0]) <= set(every)
    assert signature(next(loader(manifest, max_events=7).once())) != signature(next(loader(manifest, max_events=7, seed=2).once()))
