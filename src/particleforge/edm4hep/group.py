"""Several collections of a chunk as one table.

Tables of collections -> ``Group``: the rows of all of them, event by event and in the order of the collections within an event, and
what turns a reference to a row of one of the collections into a row of the table. A single collection is left as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from particleforge.edm4hep.records import Array, IntArray, Table


@dataclass(frozen=True)
class Group:
    """Collections read as one; ``order`` holds, for the rows one collection after the other, their row in the table."""

    table: Table
    members: Mapping[str, tuple[int, Table]]
    order: IntArray | None = None

    @classmethod
    def of(cls, tables: Mapping[str, Table], empty: Table, aliases: Iterable[str] = ()) -> "Group":
        """Join tables of the same columns; ``empty`` stands for none, ``aliases`` are other names of a single one."""
        if len(tables) <= 1:
            table = next(iter(tables.values()), empty)
            return cls(table, dict.fromkeys((*tables, *aliases), (0, table)))
        parts = list(tables.values())
        event = np.concatenate([part.events() for part in parts])
        sort = np.argsort(event, kind="stable")
        order = np.empty(len(sort), np.int64)
        order[sort] = np.arange(len(sort))
        offsets = np.sum([part.offsets for part in parts], axis=0)
        columns = {name: np.concatenate([part[name] for part in parts])[sort] for name in parts[0].columns}
        firsts = np.cumsum([0, *(part.n_rows for part in parts)])
        members = {name: (int(first), table) for (name, table), first in zip(tables.items(), firsts[:-1], strict=True)}
        return cls(Table(offsets, columns), members, order)

    def rows_of(self, collection: str) -> IntArray:
        """Return the table's rows that hold a collection's rows."""
        first, table = self.members[collection]
        rows = np.arange(first, first + table.n_rows)
        return rows if self.order is None else self.order[rows]

    def resolve(self, index: Array, ids: Array, event: IntArray, names: Mapping[int, str]) -> IntArray:
        """Return the row that each (index, collection ID) of an event means; -1 where it points nowhere."""
        rows = np.full(len(index), -1, np.int64)
        ids = ids.astype(np.int64) & 0xFFFFFFFF  # 32 bits, signed in some versions
        for collection_id, name in names.items():
            if name in self.members:
                first, table = self.members[name]
                found = np.flatnonzero((ids == collection_id & 0xFFFFFFFF) & (index >= 0) & (index < table.counts[event]))
                rows[found] = first + table.offsets[event[found]] + index[found]
        if self.order is not None and len(self.order):
            rows = np.where(rows >= 0, self.order[rows], -1)
        return rows
