"""Batches of training events from Parquet shards.

Inputs -> outputs: one split of the shards in a manifest (``schema.SHARD``) -> ``loss.Batch`` on the
CPU, in the order of ``plan.plan_epoch``. Of each global batch, whose events are sorted by length, a
rank takes every ``world_size``-th event, so that ranks have like work, and cuts what it took into
``parts`` micro-batches of neighbours in length, so that little is padding.

Reading: since the plan is known before any event is read, a window's shards are read row group by
row group, and each event is copied once, to its padded place in this rank's next batches. A rank so
holds its own events of a window, and one row group of all events. Every rank decodes every shard of
the split: that is the price of global batches that do not depend on the number of ranks
(docs/performance.md says what it costs).

Memory: the lengths of all events (4 bytes each), this rank's part of a window, of ``read_ahead``
more windows, one row group.

Invariants: the sequence of global batches depends on data, budget, seed and epoch only; a position
(epoch, batch) is all that must be saved to continue; reading ahead changes no batch, raises errors
where the batch would have come, and ends with the stream.
"""

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from particleforge.ahead import made_ahead
from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs, read_manifest
from particleforge.model.loss import Batch
from particleforge.seeds import generator_of
from particleforge.tables.parquet import SHARD, iter_tables, read_metadata
from particleforge.tables.schema import ELEMENT_TYPES, N_SHARES
from particleforge.training.plan import (
    Indices,
    PlannedBatch,
    choose_events,
    plan_epoch,
    shards_per_window,
)

_COLUMNS = Batch._fields  # a batch holds columns of the shards
_WEIGHT = "weight"  # the only one of them with one value per event
# all others are stored as int8; integers become int64 in a batch
_TYPES = {
    "features": torch.float32,
    "target_p4": torch.float32,
    "share": torch.float32,
    "share_host": torch.int32,
    _WEIGHT: torch.float32,
}
_Epoch = TypeVar("_Epoch", int, None)


class Window:
    """This rank's padded micro-batches of some consecutive global batches.

    The batches lie in the same shards.

    ``batches``: per global batch the events of each micro-batch, as indices into the events of the
    window's shards. ``mean_weight`` is what event weights are divided by; None: there are none.
    ``memory`` is that of a window which is no longer needed: to use it again saves the system from
    providing fresh pages.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[Indices]],
        lengths: Indices,
        inputs: ModelInputs,
        mean_weight: float | None = None,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        self._parts = [len(micro_batches) for micro_batches in batches]
        self._width = {
            "features": inputs.n_features,
            "target_p4": 4,
            "share_host": N_SHARES,
            "share": N_SHARES + 1,
            _WEIGHT: int(mean_weight is not None),
        }
        self._inputs, self._mean_weight = inputs, mean_weight
        self._read_columns = [name for name in _COLUMNS if self._width.get(name, 1)]
        flat = [events for micro_batches in batches for events in micro_batches]
        self._events = [len(events) for events in flat]
        longest = np.array([lengths[events].max(initial=1) for events in flat], dtype=np.int64)
        # a micro-batch without events is one padding element, so that its rank still takes part
        self._shapes = list(
            zip(np.maximum(self._events, 1).tolist(), longest.tolist(), strict=True)
        )
        ends = np.cumsum([rows * slots for rows, slots in self._shapes])
        self._starts = np.concatenate(([0], ends[:-1])).tolist()
        self.memory = (
            memory
            if memory is not None and len(memory["features"]) >= ends[-1]
            else self._allocated(int(ends[-1]))
        )
        self._columns = {name: column[: ends[-1]] for name, column in self.memory.items()}
        # rows that no element was copied to: padding, once all shards are read
        self._empty = np.ones(ends[-1], dtype=bool)
        # where each event of the window goes, -1 if to another rank or behind this position
        self._lengths, self._read = lengths, 0
        self._places = np.full(len(lengths), -1)
        row = np.arange(sum(self._events)) - np.repeat(
            np.cumsum(self._events) - self._events, self._events
        )
        self._places[np.concatenate(flat)] = np.repeat(
            self._starts, self._events
        ) + row * np.repeat(longest, self._events)

    def _allocated(self, n_elements: int) -> dict[str, Tensor]:
        n_elements += n_elements // 20  # the next window may be a little larger
        return {
            name: torch.empty(
                (n_elements, *self._trailing(name)), dtype=_TYPES.get(name, torch.int8)
            )
            for name in _COLUMNS
        }

    def _trailing(self, name: str) -> tuple[int, ...]:
        return (self._width[name],) if name in self._width else ()

    def fill(self, path: Path) -> None:
        """Read the next of the window's shards.

        One that does not fit the manifest is a UserError.
        """
        for table in iter_tables(path, self._read_columns):
            events = slice(self._read, self._read + table.num_rows)
            lengths, places = self._lengths[events], self._places[events]
            values = {
                name: _values_of(table[name]) for name in self._read_columns if name != _WEIGHT
            }
            if self._mean_weight is not None:
                weights = table[_WEIGHT].to_numpy() / self._mean_weight
                values[_WEIGHT] = np.repeat(weights, lengths).astype(np.float32)
            self._check(path, values, int(lengths.sum()))
            starts = np.cumsum(lengths) - lengths
            target = np.repeat(places - starts, lengths) + np.arange(int(lengths.sum()))
            own: Any = slice(None)
            if (places < 0).any():
                own = np.flatnonzero(np.repeat(places >= 0, lengths))
                target = target[own]
            for name, column in values.items():
                width = self._width.get(name, 1)
                _as_items(self._columns[name].numpy(), width)[target] = _as_items(column, width)[
                    own
                ]
            self._empty[target] = False
            self._read += table.num_rows

    def finish(self) -> None:
        """Clear the padding, after the last shard."""
        padding = torch.from_numpy(np.flatnonzero(self._empty))
        for column in self._columns.values():
            column.index_fill_(0, padding, 0)

    def _check(self, path: Path, values: dict[str, npt.NDArray[Any]], n_elements: int) -> None:
        for name, found in values.items():
            expected = n_elements * self._width.get(name, 1)
            if len(found) != expected:
                raise UserError(
                    f"{path}: {name} has {len(found)} values, expected {expected}: not a shard of"
                    " this manifest; rerun write_shards"
                )
            if name in self._width and not np.isfinite(found).all():
                raise UserError(
                    f"{path}: column {name} holds NaN or infinity; rerun build_dataset and what"
                    " follows"
                )
        for name, low, high in (
            ("element_type", 1, len(ELEMENT_TYPES)),
            ("target_class", 0, self._inputs.n_classes),
            (_WEIGHT, 0, np.inf),
        ):
            if (
                n_elements
                and name in values
                and not low <= values[name].min() <= values[name].max() <= high
            ):
                raise UserError(
                    f"{path}: {name} holds values outside {low} ... {high}: no shard of this"
                    " manifest; rerun write_shards"
                )

    def __iter__(self) -> Iterator[tuple[list[Batch], int]]:
        """Yield per global batch this rank's micro-batches and the number of events in them.

        The micro-batches own their memory.
        """
        index = iter(range(len(self._shapes)))
        for parts in self._parts:
            chosen = list(itertools.islice(index, parts))
            yield [self._batch(i) for i in chosen], sum(self._events[i] for i in chosen)

    def _batch(self, index: int) -> Batch:
        start, shape = self._starts[index], self._shapes[index]

        def cut(name: str) -> Tensor:
            part = self._columns[name][start : start + shape[0] * shape[1]].view(
                *shape, *self._trailing(name)
            )
            return part.clone() if part.dtype == torch.float32 else part.long()

        return Batch(**{name: cut(name) for name in _COLUMNS})


class ShardLoader:
    """Batches of one split for one rank.

    ``pin`` puts them in pinned memory, for copies to a GPU in the background.

    ``max_events`` restricts the split to as many events, chosen by seed; shards with none of these
    are not read.
    """

    def __init__(
        self,
        manifest: Path,
        split: str,
        inputs: ModelInputs,
        *,
        budget: int,
        shards_in_memory: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        parts: int = 1,
        max_events: int | None = None,
        read_ahead: int = 0,
        pin: bool = False,
    ) -> None:
        content = read_manifest(manifest)
        shards = content["splits"][split]["shards"]
        self._chosen: list[Indices] | None = None
        if max_events is not None:
            found = choose_events(
                [shard["n_events"] for shard in shards],
                max_events,
                generator_of(seed, "events", split),
            )
            shards, self._chosen = [shards[i] for i in found], list(found.values())
        self.paths = [manifest.parent / shard["file"] for shard in shards]
        self.lengths = [_read_lengths(path) for path in self.paths]
        if not sum(map(len, self.lengths)):
            raise UserError(
                f"{manifest}: the {split} split has no events; simulate more, or raise"
                f" selection.{split}_fraction"
            )
        self.inputs, self.seed, self.split = inputs, seed, split
        self._mean_weight: float | None = content.get("mean_weight")
        taking_part = (
            self.lengths
            if self._chosen is None
            else [n[events] for n, events in zip(self.lengths, self._chosen, strict=True)]
        )
        n_elements = sum(int(n.sum()) for n in taking_part)
        self.budget = budget
        self.shards_in_memory = shards_per_window(
            len(self.paths), n_elements, budget, shards_in_memory
        )
        self.rank, self.world_size, self.parts = rank, world_size, parts
        self.read_ahead, self.pin = read_ahead, pin

    def plan(self, epoch: int | None) -> Iterator[PlannedBatch]:
        """Yield the global batches of an epoch; of None, unshuffled."""
        generator = None if epoch is None else generator_of(self.seed, "batches", self.split, epoch)
        return plan_epoch(self.lengths, self.budget, self.shards_in_memory, generator, self._chosen)

    def stream(
        self, epoch: int, batch: int
    ) -> Generator[tuple[int, int, list[Batch], int], None, None]:
        """Yield global batches from the given position on, without end.

        ``close`` it to end reading ahead.

        Each as the position after it, this rank's ``parts`` micro-batches of it, and the number of
        events in these.
        """
        spare: list[dict[str, Tensor]] = []
        with closing(
            made_ahead(self._windows(itertools.count(epoch), batch, spare), self.read_ahead)
        ) as found:
            for current, first, window in found:
                for position, (micro_batches, n_events) in enumerate(window, start=first + 1):
                    yield current, position, self._pinned(micro_batches), n_events
                spare.append(window.memory)
                del window

    def once(self) -> Generator[Batch, None, None]:
        """Yield this rank's micro-batches of every global batch of the split, unshuffled."""
        spare: list[dict[str, Tensor]] = []
        with closing(made_ahead(self._windows([None], 0, spare), self.read_ahead)) as found:
            for _, _, window in found:
                for micro_batches, _ in window:
                    yield from self._pinned(micro_batches)
                spare.append(window.memory)
                del window

    def _pinned(self, batches: list[Batch]) -> list[Batch]:
        return (
            [Batch(*(tensor.pin_memory() for tensor in batch)) for batch in batches]
            if self.pin
            else batches
        )

    def _windows(
        self, epochs: Iterable[_Epoch], batch: int, spare: list[dict[str, Tensor]]
    ) -> Iterator[tuple[_Epoch, int, Window]]:
        """Yield the windows of some epochs from a batch of the first on.

        Each comes with its epoch and the position of its first batch.

        Keeps no window while it reads the next; ``spare`` memory is used up first.
        """
        for epoch in epochs:
            position = 0
            for shards, planned in itertools.groupby(self.plan(epoch), key=attrgetter("window")):
                batches = [self._dealt(found.events) for found in planned]
                skipped = max(0, batch - position)
                if skipped < len(batches):
                    yield epoch, position + skipped, self._read(shards, batches[skipped:], spare)
                position += len(batches)
            batch = 0

    def _read(
        self, shards: tuple[int, ...], batches: list[list[Indices]], spare: list[dict[str, Tensor]]
    ) -> Window:
        lengths = np.concatenate([self.lengths[shard] for shard in shards]).astype(np.int64)
        window = Window(
            batches, lengths, self.inputs, self._mean_weight, spare.pop() if spare else None
        )
        for shard in shards:
            window.fill(self.paths[shard])
        window.finish()
        return window

    def _dealt(self, events: Indices) -> list[Indices]:
        return np.array_split(events[self.rank :: self.world_size], self.parts)


def _as_items(values: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Return rows of ``width`` values as single items.

    NumPy copies these several times faster than rows.
    """
    return values.reshape(-1).view(np.dtype((np.void, width * values.itemsize)))


def _values_of(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return the values of a list column, without a copy if it is in one piece."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    values: npt.NDArray[Any] = array.flatten().to_numpy()
    return values


def _read_lengths(path: Path) -> npt.NDArray[np.int32]:
    read_metadata(path, SHARD)
    return np.concatenate(
        [
            np.zeros(0, np.int32),
            *(table["n_elements"].to_numpy() for table in iter_tables(path, ["n_elements"])),
        ]
    )
