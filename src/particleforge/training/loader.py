"""Batches of training events from Parquet shards.

Inputs -> outputs: one split of the shards in a manifest (``schema.SHARD``) -> ``loss.Batch`` on the CPU, in the order of
``plan.plan_epoch``; of each global batch a rank takes every ``world_size``-th event, so that ranks get events of like length,
and deals them to ``parts`` micro-batches in the same way: micro-batch k of rank r holds what rank r + k * world_size would get
among parts * world_size ranks. So accumulation over micro-batches stands in for ranks exactly.

Memory: the lengths of all events (4 bytes each), and the columns of one window of ``training.shuffle_shards`` shards. A
split that fits into one window is read once.

Invariants: the sequence of global batches depends on seed and epoch only; a position (epoch, batch) is all that must be
saved to continue.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs, read_manifest
from particleforge.model.loss import Batch
from particleforge.schema import ELEMENT_TYPES
from particleforge.seeds import generator_of
from particleforge.tables import read_metadata
from particleforge.training.plan import PlannedBatch, plan_epoch

_COLUMNS = Batch._fields  # a batch holds columns of the shards
_TYPES = (np.float32, np.int64, np.int64, np.int64, np.float32)


class Window:
    """The events of a few shards as flat columns, ready to be gathered into padded batches."""

    def __init__(self, paths: list[Path], lengths: npt.NDArray[np.int64], inputs: ModelInputs) -> None:
        self.lengths = lengths
        self.starts = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64) if len(lengths) else lengths
        parts = [_read_shard(path, inputs) for path in paths]
        # one more row of zeros, which padding points to
        self.columns = [
            np.concatenate([*column, np.zeros_like(column[0], shape=(1, *column[0].shape[1:]))]) for column in zip(*parts, strict=True)
        ]

    def batch(self, events: npt.NDArray[np.int64]) -> Batch:
        """Return the events padded to the longest; at least one event of one padding element."""
        lengths, starts = self.lengths[events], self.starts[events]
        slots = np.arange(max(1, int(lengths.max(initial=0))))
        padding = len(self.columns[0]) - 1
        rows = np.where(slots < lengths[:, None], starts[:, None] + slots, padding)
        if not len(events):
            rows = np.full((1, 1), padding)
        tensors = [torch.from_numpy(column[rows].astype(kind, copy=False)) for column, kind in zip(self.columns, _TYPES, strict=True)]
        return Batch(*tensors)


class ShardLoader:
    """Batches of one split for one rank."""

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
    ) -> None:
        described = read_manifest(manifest)["splits"][split]
        self.paths = [manifest.parent / shard["file"] for shard in described["shards"]]
        self.lengths = [_read_lengths(path) for path in self.paths]
        if not sum(map(len, self.lengths)):
            raise UserError(f"{manifest}: the {split} split has no events; simulate more, or raise selection.{split}_fraction")
        self.inputs, self.seed, self.split = inputs, seed, split
        self.budget, self.shards_in_memory = budget, shards_in_memory
        self.rank, self.world_size, self.parts = rank, world_size, parts
        self._window_key: tuple[int, ...] = ()
        self._window: Window | None = None
        self.plan = lru_cache(maxsize=1)(self._plan)

    def _plan(self, epoch: int | None) -> list[PlannedBatch]:
        generator = None if epoch is None else generator_of(self.seed, "batches", self.split, epoch)
        return plan_epoch(self.lengths, self.budget, self.shards_in_memory, generator)

    def stream(self, epoch: int, batch: int) -> Iterator[tuple[int, int, list[Batch], int]]:
        """Yield global batches from the given position on, without end.

        Each as the position after it, this rank's ``parts`` micro-batches of it, and the number of events in these.
        """
        while True:
            planned = self.plan(epoch)
            while batch < len(planned):
                micro_batches, n_events = self._load(planned[batch])
                batch += 1
                yield epoch, batch, micro_batches, n_events
            epoch, batch = epoch + 1, 0

    def once(self) -> Iterator[Batch]:
        """Yield this rank's micro-batches of every global batch of the split, unshuffled."""
        for planned in self.plan(None):
            yield from self._load(planned)[0]

    def _load(self, planned: PlannedBatch) -> tuple[list[Batch], int]:
        if self._window is None or planned.window != self._window_key:
            self._window = None  # release the old window before the new one is read
            lengths = np.concatenate([self.lengths[shard] for shard in planned.window])
            self._window = Window([self.paths[shard] for shard in planned.window], lengths, self.inputs)
            self._window_key = planned.window
        dealt = [planned.events[self.rank + self.world_size * part :: self.world_size * self.parts] for part in range(self.parts)]
        return [self._window.batch(events) for events in dealt], sum(map(len, dealt))


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    read_metadata(path)
    return pq.read_table(path, columns=list(columns))


def _read_lengths(path: Path) -> npt.NDArray[np.int64]:
    lengths: npt.NDArray[np.int64] = _read(path, ["n_elements"])["n_elements"].to_numpy().astype(np.int64)
    return lengths


def _read_shard(path: Path, inputs: ModelInputs) -> list[npt.NDArray[Any]]:
    """Return the shard's flat columns in the order of ``_COLUMNS``, features as [elements, F] and momenta as [elements, 4]."""
    table = _read(path, _COLUMNS)
    flat = {name: table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in _COLUMNS}
    n_elements = len(flat["element_type"])
    width = {"features": inputs.n_features, "target_p4": 4}
    for name, values in flat.items():
        expected = n_elements * width.get(name, 1)
        if len(values) != expected:
            raise UserError(
                f"{path}: {name} has {len(values)} values, expected {expected}: not a shard of this manifest; rerun write_shards"
            )
        if name in width:
            flat[name] = values.reshape(n_elements, width[name])
            if not np.isfinite(values).all():
                raise UserError(f"{path}: column {name} holds NaN or infinity; rerun build_dataset and what follows")
    for name, low, high in (("element_type", 1, len(ELEMENT_TYPES)), ("target_class", 0, inputs.n_classes)):
        if n_elements and not low <= flat[name].min() <= flat[name].max() <= high:
            raise UserError(f"{path}: {name} holds values outside {low} ... {high}: no shard of this manifest; rerun write_shards")
    return [flat[name] for name in _COLUMNS]
