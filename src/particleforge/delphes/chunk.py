"""One range of events of a Delphes file: members and references of branches.

Inputs -> outputs: a ``DelphesFile``, its branch map and a range of events -> ``Table`` and
``Pairs``. What the branches mean is not known here; ``reader`` asks. References that point nowhere
are left out and counted.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from particleforge.config.delphes import DelphesConfig
from particleforge.delphes.references import keys, resolve
from particleforge.delphes.rootfile import DelphesFile
from particleforge.edm4hep.identities import collection_id
from particleforge.edm4hep.raw_events import (
    Array,
    FloatArray,
    IntArray,
    Origin,
    Pairs,
    Table,
    combined,
    with_origin,
)
from particleforge.errors import UserError


class Chunk:
    """Reads one range of events; counts the references that it dropped."""

    def __init__(
        self, file: DelphesFile, branches: DelphesConfig, start: int, stop: int, truth: bool = True
    ) -> None:
        self.file, self.branches, self.start, self.stop = file, branches, start, stop
        self.truth = truth
        self.has_numbers = file.member(branches.event, "Number") is not None
        self.n_events = stop - start
        self.dropped = 0

    def table(self, branch: str, columns: Mapping[str, tuple[str, ...]]) -> Table:
        """Read members of a branch, each under the first of its names that the file knows."""
        return self.leaves(
            {column: self.file.require(branch, *names) for column, names in columns.items()}
        )

    def leaves(self, leaves: Mapping[str, str]) -> Table:
        """Read leaves of one branch; they must agree on the number of objects."""
        offsets: IntArray | None = None
        columns = {}
        for column, leaf in leaves.items():
            counts, columns[column] = self.file.jagged(leaf, self.start, self.stop)
            offsets = self.agreed(leaf, counts, offsets)
        assert offsets is not None
        return Table(offsets, columns)

    def agreed(self, leaf: str, counts: IntArray, offsets: IntArray | None) -> IntArray:
        """Return the offsets of ``counts``.

        Where they are not ``offsets``, or events are missing, the file is damaged.
        """
        found = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if len(counts) != self.n_events:
            raise UserError(
                f"{self.file.path}: branch {leaf} has {len(counts)} of {self.n_events} events; the"
                " file is damaged"
            )
        if offsets is not None and not np.array_equal(offsets, found):
            raise UserError(
                f"{self.file.path}: branch {leaf} and its neighbours differ in length; the file is"
                " damaged"
            )
        return found

    def reference_lists(self, branch: str, table: Table) -> Pairs:
        """Read (object, key of a particle in it); none where neither truth nor leaf is there."""
        if not self.truth and self.file.member(branch, "Particles") is None:
            return Pairs.none()
        leaf = self.file.require(branch, "Particles")
        counts, lengths, references = self.file.reference_lists(leaf, self.start, self.stop)
        self.agreed(leaf, counts, table.offsets)
        owner = np.repeat(np.arange(table.n_rows), lengths)
        return Pairs.of(owner, keys(table.events()[owner], references))

    def references(self, branch: str, table: Table) -> Pairs:
        """Read (track, key of its particle); none where neither truth nor leaf is there."""
        if not self.truth and self.file.member(branch, "Particle") is None:
            return Pairs.none()
        leaf = self.file.require(branch, "Particle")
        counts, references = self.file.references(leaf, self.start, self.stop)
        self.agreed(leaf, counts, table.offsets)
        return Pairs.of(np.arange(table.n_rows), keys(table.events(), references))

    def links(self, references: Pairs, particle_keys: IntArray, weight: FloatArray) -> Pairs:
        """Turn references to particles into weighted pairs.

        Leave out, and count, what points nowhere. Without truth there are no particles.
        """
        if not self.truth:
            return Pairs.none()
        row = resolve(references.right, particle_keys)
        found = row >= 0
        self.dropped += int(np.sum(~found))
        return Pairs.of(references.left[found], row[found], weight[row[found]])

    def with_origins(
        self, table: Table, branches: Sequence[str], parts: Sequence[Table], row: IntArray
    ) -> Table:
        """Return what ``merged`` made of the branches' parts, with what each row is in the file.

        With truth, which is read to train, as it is.
        """
        if self.truth:
            return table
        collection, index = np.zeros(len(row), np.uint32), np.zeros(len(row), np.int32)
        ids = np.array([collection_id(name) for name in branches], np.uint32)
        collection[row] = np.repeat(ids, [part.n_rows for part in parts])
        index[row] = np.concatenate([np.zeros(0, np.int64), *(part.local() for part in parts)])
        return with_origin(table, collection, index)

    def origin(self, event_number: Array) -> Origin | None:
        """Return what leads back to the file; None where truth is read.

        Branches are what collections are elsewhere; they have the IDs that podio would give them.
        """
        if self.truth:
            return None
        read = (("track", self.branches.tracks), ("cluster", self.branches.clusters))
        return Origin(
            event_number,
            np.zeros(self.n_events, np.uint64),
            {
                name: (collection_id(name), meaning)
                for meaning, names in read
                for name in self.file.found(names)
            },
        )


def one_per_event(file: DelphesFile, leaf: str, start: int, stop: int) -> Array:
    """Return the values of a leaf that must hold one finite number per event."""
    counts, values = file.jagged(leaf, start, stop)
    if len(counts) != stop - start or np.any(counts != 1) or not np.all(np.isfinite(values)):
        raise UserError(
            f"{file.path}: {leaf} must hold one finite number per event; the file is damaged"
        )
    return values


def merged(
    tables: Sequence[Table], n_events: int, columns: Mapping[str, type]
) -> tuple[Table, IntArray]:
    """Return several tables as one, event by event, and the new row of each of their rows.

    Rows are those of the tables in turn.
    """
    event = np.concatenate([np.zeros(0, np.int64), *(table.events() for table in tables)])
    order = np.argsort(event, kind="stable")
    row = np.empty(len(order), np.int64)
    row[order] = np.arange(len(order))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(event, minlength=n_events))]).astype(
        np.int64
    )
    found = {
        name: np.concatenate([np.zeros(0, dtype), *(table[name] for table in tables)])[order]
        for name, dtype in columns.items()
    }
    return Table(offsets, found), row


def all_of(parts: Sequence[tuple[Table, Pairs]], row: IntArray) -> Pairs:
    """Return the references of several tables that ``merged`` joined, null ones included."""
    firsts = np.cumsum([0, *(table.n_rows for table, _ in parts)])
    return combined(
        [
            Pairs.of(row[refs.left + first], refs.right)
            for first, (_, refs) in zip(firsts, parts, strict=False)
        ]
    )
