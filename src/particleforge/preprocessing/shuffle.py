"""Shuffle rows that do not fit into memory.

Rows in any order, each with a 64-bit key -> the same rows in the order of their keys, in
groups that are kept apart (here: the splits). Two passes: rows are scattered to bucket files by
group and range of key, then each bucket is sorted in memory and emitted. With keys that are hashes
the order of keys is a random permutation, and buckets are of similar size. (Distribution sort on
external storage: Knuth, The Art of Computer Programming 3, section 5.4.)

Memory is one bucket plus one buffer of rows, whatever the number of inputs. Rows with equal
keys keep the order in which they came.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

KEY, GROUP = "shuffle_key", "shuffle_group"  # columns of the rows: uint64, int8


class Buckets:
    """Bucket files of several groups in one folder."""

    def __init__(self, folder: Path, buckets_per_group: list[int]) -> None:
        self._per_group = np.array(buckets_per_group, dtype=np.uint64)
        self._first = np.cumsum(buckets_per_group) - buckets_per_group
        self._files = [folder / f"{number:06d}.arrows" for number in range(sum(buckets_per_group))]

    def scatter(self, blocks: Iterable[pa.Table], buffer_bytes: int) -> None:
        """Append each row to its bucket's file."""
        for rows in _buffered(blocks, buffer_bytes):
            bucket = self._bucket_of(rows)
            order = np.argsort(bucket, kind="stable")
            ordered = rows.take(pa.array(order))
            present, first = np.unique(bucket[order], return_index=True)
            for number, start, stop in zip(present, first, [*first[1:], len(order)], strict=True):
                _append(self._files[number], ordered.slice(start, stop - start))

    def in_key_order(self, group: int) -> Iterator[pa.Table]:
        """Yield a group's rows, bucket by bucket, in the order of their keys.

        A bucket's file is deleted once read.
        """
        first = self._first[group]
        for file in self._files[first : first + int(self._per_group[group])]:
            if file.exists():
                rows = _read(file)
                file.unlink()
                order = np.argsort(rows[KEY].to_numpy(), kind="stable")
                yield rows.take(pa.array(order)).drop_columns([KEY, GROUP])

    def _bucket_of(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return each row's bucket: the ranges of key of a group have equal width."""
        group = rows[GROUP].to_numpy()
        place = ((rows[KEY].to_numpy() >> np.uint64(32)) * self._per_group[group]) >> np.uint64(32)
        bucket: NDArray[np.int64] = self._first[group] + place.astype(np.int64)
        return bucket


def cut(tables: Iterable[pa.Table], sizes: Iterable[int]) -> Iterator[pa.Table]:
    """Yield the rows of ``tables``, in order, in tables of the given sizes.

    The sizes must sum to the number of rows.
    """
    source = iter(tables)
    rest: pa.Table | None = None
    for size in sizes:
        pieces, missing = [], size
        while missing:
            rest = next(source) if rest is None or not rest.num_rows else rest
            pieces.append(rest.slice(0, missing))
            rest = rest.slice(pieces[-1].num_rows)
            missing -= pieces[-1].num_rows
        yield pa.concat_tables(pieces)


def _buffered(blocks: Iterable[pa.Table], buffer_bytes: int) -> Iterator[pa.Table]:
    """Join small blocks, so that few and large pieces are written."""
    waiting: list[pa.Table] = []
    size = 0
    for block in blocks:
        waiting.append(block)
        size += block.nbytes
        if size >= buffer_bytes:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _append(file: Path, rows: pa.Table) -> None:
    """Append rows as a stream of their own, so that no bucket's file stays open."""
    with open(file, "ab") as handle, pa.ipc.new_stream(handle, rows.schema) as writer:
        writer.write_table(rows)


def _read(file: Path) -> pa.Table:
    streams = []
    with pa.OSFile(str(file)) as handle:
        while handle.tell() < handle.size():
            streams.append(pa.ipc.open_stream(handle).read_all())
    return pa.concat_tables(streams)
