"""Collections of an EDM4hep file as they are, to be written into another file.

Inputs -> outputs: a file in the layout of podio 0.16 or later (TTree or RNTuple) and names of
collections -> for a range of events the fields ``X`` and, for each of its one-to-many relations and
vector members, ``_X_<name>``, with every member that the file has: nothing is read into meanings.
Relations of the copies may point at collections that are not copied.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import awkward as ak
from awkward.contents import Content, ListOffsetArray, RecordArray

from particleforge.edm4hep.identities import table_of_ids
from particleforge.edm4hep.rootfile import TreeFile
from particleforge.errors import UserError

_BEGIN = "_begin"


class Copies(TreeFile):
    """An open file, some of whose collections are copied; a context manager."""

    def __init__(self, path: str | Path, names: Iterable[str]) -> None:
        """Open the file; collections in an older layout are a UserError."""
        self._names = tuple(names)
        super().__init__(path)

    def _look(self) -> None:
        self.fields: dict[str, list[str]] = {}
        for name in self._names:
            lists = [
                f"_{name}_{leaf.removeprefix(f'{name}.').removesuffix(_BEGIN)}"
                for leaf in sorted(self.layout.leaves)
                if leaf.startswith(f"{name}.") and leaf.endswith(_BEGIN)
            ]
            known = self.layout.collections | self.layout.leaves
            if missing := [field for field in lists if field not in known]:
                raise UserError(
                    f"{self.path}: {name} has no {missing[0]}, as in files of before 2023, which"
                    " name relations by number; set reconstruction.copy_collections: false"
                )
            self.fields[name] = [name, *lists]
        table = table_of_ids(self.root) or {}
        self.ids = {name: number & 0xFFFFFFFF for number, name in table.items()}

    def read(self, start: int, stop: int) -> dict[str, dict[str, Content]]:
        """Return each collection's fields of a range of events, a list per event each."""
        try:
            return {
                name: {field: self._read(field, start, stop) for field in fields}
                for name, fields in self.fields.items()
            }
        except Exception as error:  # uproot raises whatever broken bytes lead it to
            raise self.unreadable(error) from error

    def _read(self, field: str, start: int, stop: int) -> Content:
        if self.kind == "RNTuple":
            array = self._tree[field].array(entry_start=start, entry_stop=stop)
            return ak.to_packed(array).layout
        leaves = [leaf for leaf in self._leaves.fields if leaf.startswith(f"{field}.")] or [field]
        found = {}
        for leaf in leaves:
            array = self._leaves.fields[leaf].array(entry_start=start, entry_stop=stop)
            found[leaf.partition(".")[2].split("[")[0]] = ak.to_packed(array).layout
        first = next(iter(found.values()))
        if list(found) == [""]:
            return first
        record = _record({name: of_leaf.content for name, of_leaf in found.items()})
        return ListOffsetArray(first.offsets, record)


def _record(members: dict[str, Content]) -> RecordArray:
    """Return a record; dotted names become nested records."""
    tree: dict[str, Any] = {}
    for name, content in members.items():
        outer, _, inner = name.partition(".")
        if inner:
            tree.setdefault(outer, {})[inner] = content
        else:
            tree[outer] = content
    contents = [_record(part) if isinstance(part, dict) else part for part in tree.values()]
    return RecordArray(contents, list(tree))
