"""Which events form which batch: the order of one epoch, without reading any event.

Inputs -> outputs: the number of elements of every event of every shard -> windows of shards and,
per window, batches of event indices whose padded size (events x longest event) stays within an
element budget.

Algorithm: shards are shuffled and taken in windows, which bounds the memory of the loader. Within a
window, events are shuffled and cut into chunks of about ``CHUNK_BATCHES`` batches; a chunk is
sorted by length and cut from its longest event on, so that neighbours in length share a batch and
padding stays small while batches remain random samples of the chunk's events of about one length.
The batches of a window are then shuffled. Windows are planned one by one, when they are needed.

Invariants: the plan depends on lengths, budget and generator only, not on the number of ranks;
every event occurs exactly once; an event longer than the budget has a batch of its own.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHUNK_BATCHES = 32
WINDOW_BATCHES = 16  # fewer would span too wide a range of lengths each
Indices = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlannedBatch:
    """A global batch: the shards of its window, ascending, and its events.

    Events are indices into those shards, one after another.
    """

    window: tuple[int, ...]
    events: Indices


def plan_epoch(
    lengths: Sequence[Lengths],
    budget: int,
    shards_per_window: int,
    generator: np.random.Generator | None,
    chosen: Sequence[Indices] | None = None,
) -> Iterator[PlannedBatch]:
    """Yield one epoch's batches of shards of ``lengths``, unshuffled without a generator.

    ``chosen`` holds the events of each shard that take part; default is all.
    """
    chosen = [np.arange(len(of_shard)) for of_shard in lengths] if chosen is None else chosen
    n_shards = len(lengths)
    order = np.arange(n_shards) if generator is None else generator.permutation(n_shards)
    for first in range(0, n_shards, shards_per_window):
        window = tuple(sorted(order[first : first + shards_per_window].tolist()))
        window_lengths = np.concatenate([lengths[shard] for shard in window]).astype(np.int64)
        starts = np.cumsum([0, *(len(lengths[shard]) for shard in window)])
        events = np.concatenate(
            [start + chosen[shard] for start, shard in zip(starts, window, strict=False)]
        )
        for batch in _plan_window(events, window_lengths, budget, generator):
            yield PlannedBatch(window, batch)


def shards_per_window(n_shards: int, n_elements: int, budget: int, at_least: int) -> int:
    """Return how many shards make a window.

    There are ``at_least`` so many, and more where these hold less than ``WINDOW_BATCHES`` batches.

    ``n_elements`` is the number of elements of all ``n_shards`` shards.
    """
    return max(at_least, math.ceil(WINDOW_BATCHES * budget * n_shards / max(1, n_elements)))


def choose_events(
    sizes: Sequence[int], n_events: int, generator: np.random.Generator
) -> dict[int, Indices]:
    """Return ``n_events`` random events, or all if there are fewer, as ascending indices by shard.

    Whole shards are taken first, so that no more are read than needed. Equal generators give nested
    choices: fewer events are a part of more.
    """
    chosen: dict[int, Indices] = {}
    for shard in generator.permutation(len(sizes)).tolist():
        events = generator.permutation(sizes[shard])[:n_events]
        n_events -= len(events)
        if len(events):
            chosen[shard] = np.sort(events)
    return dict(sorted(chosen.items()))


def padded_elements(lengths: Indices) -> int:
    """Return the size of a batch of events of these lengths, padding included."""
    return int(len(lengths) * max(1, lengths.max(initial=0)))


def _plan_window(
    events: Indices, lengths: Indices, budget: int, generator: np.random.Generator | None
) -> list[Indices]:
    events = events if generator is None else generator.permutation(events)
    total = np.cumsum(np.maximum(lengths[events], 1))
    n_chunks = max(1, round(float(total[-1]) / (CHUNK_BATCHES * budget))) if len(events) else 0
    cuts = np.searchsorted(total, total[-1] * np.arange(1, n_chunks) / n_chunks) if n_chunks else []
    batches = [
        batch for chunk in np.split(events, cuts) for batch in _cut_chunk(chunk, lengths, budget)
    ]
    if generator is not None:
        batches = [batches[i] for i in generator.permutation(len(batches))]
    return batches


def _cut_chunk(chunk: Indices, lengths: Indices, budget: int) -> list[Indices]:
    chunk = chunk[np.argsort(-lengths[chunk], kind="stable")]
    batches, start = [], 0
    while start < len(chunk):
        n_events = max(1, budget // max(1, int(lengths[chunk[start]])))
        batches.append(chunk[start : start + n_events])
        start += n_events
    return batches
