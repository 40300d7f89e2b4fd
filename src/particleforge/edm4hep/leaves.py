"""The leaves of an open TTree or RNTuple as flat NumPy arrays, block by block.

Inputs -> outputs: a tree of uproot, the name of a leaf, a range of events -> the offsets of the
events, and the values of all of them.

Files are compressed in blocks (baskets of a TTree, clusters of an RNTuple). ``ranges`` cuts the
events along them, so that none is decompressed twice; of a block that is longer than what is asked
for, the arrays are held until the events after it are asked for. uproot's own ``array`` and
``arrays`` take as long again to describe an RNTuple's columns as to read them, copy them into a
cache, and decompress one cluster too many; here the columns are described once, and each is read
once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import awkward as ak
import numpy as np
import uproot
from uproot.source.file import MultithreadedFileSource

from particleforge.edm4hep.raw_events import Array, IntArray

# as uproot.open takes it: no threads, no copies
LOCAL_FILE = {"handler": MultithreadedFileSource, "use_threads": False, "array_cache": None}


class NotAListError(Exception):
    """A leaf that is no list of numbers per event; carries its type."""


class TornListError(Exception):
    """A leaf whose offsets fall, or end beyond its values."""


def first_of_each(tree: uproot.TTree) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return branch or leaf -> what the file has first under that name, as ROOT finds it.

    A line for each name that stands in the tree again comes with it. Of a second branch no leaf is
    taken, not even those that the first lacks: they are of other objects.
    """
    found: dict[str, Any] = {}
    again: dict[str, str] = {}
    sizes = {count.name for branch in tree.branches if (count := branch.count_branch) is not None}
    sizes |= {f"{branch.name}_size" for branch in tree.branches}  # of objects, beside them
    for branch in tree.branches:
        if (name := branch.name) not in found:
            leaves = ((branch.name, branch), *branch.items(recursive=True, full_paths=False))
            for leaf, content in leaves:
                found.setdefault(leaf, content)
            continue
        first, second = (
            getattr(one.streamer, "typename", None) or one.typename for one in (found[name], branch)
        )
        if name not in sizes:
            again.setdefault(
                name.split(".")[0],
                f"two branches are called {name}; the first ({first}) is read, the second"
                f" ({second}) is not",
            )
    return found, tuple(again.values())


class Leaves(ABC):
    """Reads the leaves of one tree; ``n_events`` is their number of events.

    ``doubled`` holds a line for each name that stands in the tree twice.
    """

    kind: str
    doubled: tuple[str, ...] = ()

    def __init__(self, tree: Any, fields: dict[str, Any]) -> None:
        self.tree, self.fields = tree, fields
        self.n_events = int(tree.num_entries)
        self._held: dict[str, tuple[IntArray, Array]] = {}
        self._held_range = (0, 0)

    def ranges(self, n_events: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of at most ``n_events`` events up to ``stop``.

        A range ends where a block ends if one does within.
        """
        start, ends = 0, self.block_edges
        while start < stop:
            last = min(start + n_events, stop)
            within = ends[(ends > start) & (ends <= last)]
            end = int(within[-1]) if len(within) and last < stop else last
            yield start, end
            start = end

    def flat(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        """Return the offsets int64 ``[stop - start + 1]`` of the events, and a leaf's values."""
        edges = self.block_edges
        before, after = edges[edges <= start], edges[edges >= stop]
        block = (
            int(before[-1]) if len(before) else 0,
            int(after[0]) if len(after) else self.n_events,
        )
        if block == (start, stop):
            offsets, values = self._sound(leaf, start, stop)
        else:
            if block != self._held_range:
                self._held, self._held_range = {}, block
            if leaf not in self._held:
                self._held[leaf] = self._sound(leaf, *block)
            offsets, values = self._held[leaf]
            offsets = offsets[start - block[0] : stop - block[0] + 1]
        return offsets - offsets[0], values[offsets[0] : offsets[-1]]

    def _sound(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        offsets, values = self.read(leaf, start, stop)
        if np.any(np.diff(offsets) < 0) or offsets[-1] > max(len(values), offsets[0]):
            raise TornListError(leaf)
        return offsets, values

    @property
    @abstractmethod
    def block_edges(self) -> IntArray:
        """The events at which blocks end, ascending, the last being ``n_events``."""

    @abstractmethod
    def read(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        """Return offsets and values of a range of events.

        What is no list of numbers per event is a NotAListError.
        """


class TreeLeaves(Leaves):
    """Leaves of a TTree."""

    kind = "TTree"

    def __init__(self, tree: uproot.TTree) -> None:
        fields, self.doubled = first_of_each(tree)
        super().__init__(tree, fields)
        largest = max(
            self.fields.values(), key=lambda branch: branch.compressed_bytes, default=None
        )
        edges = np.unique(
            np.asarray(largest.entry_offsets if largest is not None else [], np.int64)
        )
        self._edges = np.append(edges[(edges > 0) & (edges < self.n_events)], self.n_events)

    @property
    def block_edges(self) -> IntArray:
        """Return where baskets of the largest branch end.

        Others have fewer, or the same where the file was flushed.
        """
        return self._edges

    def read(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        """Return offsets and values of a range of events."""
        if (n_entries := self.fields[leaf].num_entries) != self.n_events:
            raise ValueError(f"branch {leaf} has {n_entries} entries for {self.n_events} events")
        array = self.fields[leaf].array(entry_start=start, entry_stop=stop)
        layout = array.layout
        if (
            array.ndim != 2
            or not isinstance(layout, ak.contents.ListOffsetArray)
            or not layout.content.is_numpy
        ):
            raise NotAListError(str(array.type))
        return np.asarray(layout.offsets.data, np.int64), np.asarray(layout.content.data)


class NTupleLeaves(Leaves):
    """Leaves of an RNTuple."""

    kind = "RNTuple"

    def __init__(self, tree: Any) -> None:
        super().__init__(tree, dict(tree.items(recursive=True)))
        self._ntuple = tree.ntuple
        summaries = self._ntuple.cluster_summaries
        self._first = np.asarray([cluster.num_first_entry for cluster in summaries], np.int64)
        ends = self._first + np.asarray([cluster.num_entries for cluster in summaries], np.int64)
        if not np.array_equal(np.append(self._first, self.n_events), np.append(0, ends)):
            raise ValueError("clusters do not follow each other")
        self._ends = ends
        self._columns: dict[str, tuple[int, int]] = {}
        # of the range below, by column: members of a collection share them
        self._offsets: dict[int, IntArray] = {}
        self._offsets_range = (0, 0)

    @property
    def block_edges(self) -> IntArray:
        """Where clusters end."""
        return self._ends

    def read(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        """Return offsets and values of a range of events, which begins and ends with a cluster."""
        if leaf not in self._columns:
            self._columns[leaf] = self._columns_of(leaf)
        of_offsets, of_values = self._columns[leaf]
        if (start, stop) != self._offsets_range:
            self._offsets, self._offsets_range = {}, (start, stop)
        if of_offsets not in self._offsets:
            self._offsets[of_offsets] = self._column(of_offsets, start, stop).astype(np.int64)
        return self._offsets[of_offsets], self._column(of_values, start, stop)

    def _column(self, number: int, start: int, stop: int) -> Array:
        first, last = np.searchsorted(self._first, [start, stop])
        offset = int(self._first[first]) if first < len(self._first) else 0
        # of columns that were added late
        absent = max(int(self._ntuple.column_records[number].first_element_index) - offset, 0)
        column: Array = self._ntuple.read_cluster_range(
            number, first, last, missing_element_padding=absent
        )
        return column

    def _columns_of(self, leaf: str) -> tuple[int, int]:
        """Return the numbers of the columns that hold the offsets and the values of a leaf."""
        field = self.fields[leaf]
        form, lists = field.to_akform()[0], []
        while not isinstance(form, ak.forms.NumpyForm):
            if isinstance(form, ak.forms.ListOffsetForm):
                lists.append(form.form_key)
                form = form.content
            elif isinstance(form, ak.forms.RecordForm) and len(form.contents) == 1:
                form = form.contents[0]
            else:
                break
        keys = [*lists, getattr(form, "form_key", "")]
        if (
            len(keys) != 2
            or not all(
                key and key.split("-")[0] == "column" and key.count("-") == 1 for key in keys
            )
            or form.inner_shape
        ):
            raise NotAListError(field.typename)
        of_offsets, of_values = (int(key.split("-")[1]) for key in keys)
        return of_offsets, of_values


def leaves_of(tree: Any) -> Leaves:
    """Return the reader of a tree's leaves."""
    return TreeLeaves(tree) if isinstance(tree, uproot.TTree) else NTupleLeaves(tree)
