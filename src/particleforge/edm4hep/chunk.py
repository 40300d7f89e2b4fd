"""One range of events of an EDM4hep file: members, references, relations and links of collections.

Inputs -> outputs: an ``EventFile`` and a range of its events -> ``Table`` and ``Pairs``, with row
numbers within the tables. What the collections mean is not known here; ``reader`` and ``fallbacks``
ask. References that point nowhere, or at a collection that is not read, are left out and counted.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from particleforge.edm4hep import kernels
from particleforge.edm4hep.group import Group
from particleforge.edm4hep.layout import Reference
from particleforge.edm4hep.raw_events import IntArray, Pairs, Table, combined
from particleforge.edm4hep.rootfile import EventFile
from particleforge.errors import UserError


class Chunk:
    """Reads one range of events."""

    def __init__(self, file: EventFile, start: int, stop: int) -> None:
        self.file, self.layout, self.names = file, file.layout, file.names
        self.start, self.stop = start, stop
        self.n_events = stop - start
        self.counts = {"references_dropped": 0}

    def table(
        self, collection: str, columns: Mapping[str, tuple[str, ...]], optional: Sequence[str] = ()
    ) -> Table:
        """Read members of a collection.

        Columns in ``optional`` are left out where the file lacks them.
        """
        if not self.layout.has(collection):
            return Table.empty(
                self.n_events, {name: float for name in columns if name not in optional}
            )
        leaves = {
            name: (
                self.layout.member(collection, *members)
                if name in optional
                else self.layout.require(collection, *members)
            )
            for name, members in columns.items()
        }
        return self.leaves({name: leaf for name, leaf in leaves.items() if leaf is not None})

    def leaves(self, leaves: dict[str, str]) -> Table:
        """Read leaves of one collection; they must agree on the number of entries."""
        offsets: IntArray | None = None
        columns = {}
        for name, leaf in leaves.items():
            counts, columns[name] = self.file.jagged(leaf, self.start, self.stop)
            found = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            if offsets is not None and not np.array_equal(offsets, found):
                raise UserError(
                    f"{self.file.path}: branch {leaf} and its collection differ in length; the file"
                    " is damaged"
                )
            offsets = found
        assert offsets is not None
        if len(offsets) != self.n_events + 1:
            raise UserError(
                f"{self.file.path}: branch {leaf} has {len(offsets) - 1} of {self.n_events} events;"
                " the file is damaged"
            )
        return Table(offsets, columns)

    def links(self, collections: Sequence[str], origin: Group, target: Group) -> Pairs:
        """Read link collections as weighted pairs of rows."""
        return combined([self.links_of(name, origin, target) for name in collections])

    def links_of(self, name: str, origin: Group, target: Group) -> Pairs:
        """Read one link collection; pairs that point nowhere are left out and counted."""
        ends = self.layout.link_end(name, "from"), self.layout.link_end(name, "to")
        if ends[0] is None or ends[1] is None:
            raise UserError(
                f"{self.file.path}: link {name} lacks its ends (_{name}_from.index,"
                f" _{name}_to.index); the file is damaged"
            )
        table = self.leaves({"weight": self.layout.require(name, "weight")})
        left = self.rows(ends[0], origin, table.offsets)
        right = self.rows(ends[1], target, table.offsets)
        return self.kept(Pairs.of(left, right, table["weight"]))

    def relation(
        self,
        kind: str,
        name: str,
        owners: Group,
        targets: Group,
        collections: Sequence[str] | None = None,
    ) -> Pairs:
        """Read a one-to-many relation as pairs (row of the owners, row of the targets)."""
        found = []
        for collection in owners.members if collections is None else collections:
            reference = self.layout.relation(kind, collection, name)
            table = owners.members[collection][1]
            if reference is None or table.n_rows == 0 or not targets.members:
                continue
            counts = self.file.jagged(reference.index, self.start, self.stop)[0]
            rows = self.rows(reference, targets)
            owner, member = self.ranges(
                collection, name, table, np.concatenate([[0], np.cumsum(counts)])
            )
            found.append(self.kept(Pairs.of(owners.rows_of(collection)[owner], rows[member])))
        return combined(found)

    def rows(
        self, reference: Reference, targets: Group, offsets: IntArray | None = None
    ) -> IntArray:
        """Turn references into row numbers of the target table; -1 where they point nowhere.

        Their ``offsets`` must be those given.
        """
        table = self.leaves({"index": reference.index, "id": reference.collection_id})
        if offsets is not None and not np.array_equal(table.offsets, offsets):
            raise UserError(
                f"{self.file.path}: branch {reference.index} and what it belongs to differ in"
                " length; the file is damaged"
            )
        for name, leaf in (("index", reference.index), ("id", reference.collection_id)):
            if table[name].dtype.kind not in "iu":
                raise UserError(
                    f"{self.file.path}: branch {leaf} holds {table[name].dtype}, expected integers;"
                    " the file is damaged"
                )
        return targets.resolve(table, self.file.collection_ids)

    def ranges(
        self, collection: str, name: str, owners: Table, offsets: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Return (owner row, member row) of the ranges name_begin to name_end of every owner."""
        leaves = {
            edge: self.layout.require(collection, f"{name}_{edge}") for edge in ("begin", "end")
        }
        edges = self.leaves(leaves)
        begin, end = edges["begin"].astype(np.int64), edges["end"].astype(np.int64)
        event = owners.events()
        if (
            edges.n_rows != owners.n_rows
            or np.any((begin < 0) | (begin > end))
            or np.any(end > np.diff(offsets)[event])
        ):
            raise UserError(
                f"{self.file.path}: {leaves['begin']} or {leaves['end']} points beyond its list;"
                " the file is damaged"
            )
        owner, member = kernels.expand(begin, end, owners.offsets, offsets)
        return owner, member

    def kept(self, pairs: Pairs) -> Pairs:
        """Leave out, and count, pairs that point nowhere or have a weight that is not finite."""
        keep = (pairs.left >= 0) & (pairs.right >= 0) & np.isfinite(pairs.weight)
        self.counts["references_dropped"] += int(np.sum(~keep))
        return pairs.where(keep)
