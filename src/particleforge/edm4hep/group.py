"""Several collections of a chunk as one table.

Tables of collections -> ``Group``: the rows of all of them, event by event and in the order of the collections within an event, and
what turns a reference to a row of one of the collections into a row of the table. A single collection is left as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from particleforge.edm4hep import kernels
from particleforge.edm4hep.records import IntArray, Table


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
        of_parts = np.array([part.offsets for part in parts])
        offsets, order = of_parts.sum(axis=0), kernels.interleave(of_parts)
        firsts = np.cumsum([0, *(part.n_rows for part in parts)])
        columns = {}
        for name in parts[0].columns:
            columns[name] = np.empty(len(order), np.result_type(*(part[name] for part in parts)))
            for part, first in zip(parts, firsts[:-1], strict=True):
                columns[name][order[first : first + part.n_rows]] = part[name]
        members = {name: (int(first), table) for (name, table), first in zip(tables.items(), firsts[:-1], strict=True)}
        return cls(Table(offsets, columns), members, order)

    def rows_of(self, collection: str) -> IntArray:
        """Return the table's rows that hold a collection's rows."""
        first, table = self.members[collection]
        rows = np.arange(first, first + table.n_rows)
        return rows if self.order is None else self.order[rows]

    def resolve(self, references: Table, names: Mapping[int, str]) -> IntArray:
        """Return the row that each reference (columns ``index``, ``id``) of its event means; -1 where it points nowhere."""
        known = [(number & 0xFFFFFFFF, *self.members[name]) for number, name in names.items() if name in self.members]
        offsets = np.array([table.offsets for _, _, table in known], np.int64).reshape(len(known), len(references.offsets))
        ids, firsts = (np.array([entry[i] for entry in known], np.int64) for i in range(2))
        index = references["index"].astype(np.int64)
        order = np.zeros(0, np.int64) if self.order is None else self.order
        rows: IntArray = kernels.resolve(index, references["id"], references.offsets, ids, firsts, offsets, order)
        return rows
