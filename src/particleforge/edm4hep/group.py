"""Several collections of a chunk as one table.

Tables of collections -> ``Group``: the rows of all of them, event by event and in the order of the
collections within an event, and what turns a reference to a row of one of the collections into a
row of the table. A single collection is left as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from particleforge.edm4hep import kernels
from particleforge.edm4hep.raw_events import IntArray, Table


@dataclass(frozen=True)
class Group:
    """Collections read as one.

    ``members`` holds, by name, the table's row where the rows of each event begin, and the
    collection.
    """

    table: Table
    members: Mapping[str, tuple[IntArray, Table]]

    @classmethod
    def of(cls, tables: Mapping[str, Table], empty: Table, aliases: Iterable[str] = ()) -> "Group":
        """Join tables of the same columns.

        ``empty`` stands for none, ``aliases`` are other names of a single one.
        """
        if len(tables) <= 1:
            table = next(iter(tables.values()), empty)
            return cls(table, dict.fromkeys((*tables, *aliases), (table.offsets[:-1], table)))
        parts = list(tables.values())
        offsets = np.sum([part.offsets for part in parts], axis=0)
        starts = offsets[:-1] + np.cumsum(
            [np.zeros(len(offsets) - 1, np.int64), *(part.counts for part in parts[:-1])], axis=0
        )
        columns = {}
        for name in parts[0].columns:
            columns[name] = np.empty(offsets[-1], np.result_type(*(part[name] for part in parts)))
            for part, start in zip(parts, starts, strict=True):
                kernels.lay(part[name], part.offsets, start, columns[name])
        return cls(
            Table(offsets, columns),
            {
                name: (start, table)
                for (name, table), start in zip(tables.items(), starts, strict=True)
            },
        )

    def rows_of(self, collection: str) -> IntArray:
        """Return the table's rows that hold a collection's rows."""
        starts, table = self.members[collection]
        return np.arange(table.n_rows) + np.repeat(starts - table.offsets[:-1], table.counts)

    def resolve(self, references: Table, names: Mapping[int, str]) -> IntArray:
        """Return the row that each reference (columns ``index``, ``id``) of its event means.

        -1 where it points nowhere.
        """
        known = [
            (number & 0xFFFFFFFF, *self.members[name])
            for number, name in names.items()
            if name in self.members
        ]
        ids = np.array([number for number, _, _ in known], np.int64)
        shape = (len(known), len(references.offsets) - 1)
        starts = np.array([start for _, start, _ in known], np.int64).reshape(shape)
        counts = np.array([table.counts for _, _, table in known], np.int64).reshape(shape)
        rows: IntArray = kernels.resolve(
            references["index"], references["id"], references.offsets, ids, starts, counts
        )
        return rows
