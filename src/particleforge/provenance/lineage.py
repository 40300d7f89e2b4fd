"""Where a file comes from: the chain of records back to the seeds, and whether it still holds.

Inputs -> outputs: a file or folder that a stage wrote -> ``Lineage``, read from the records that
``provenance`` wrote beside it, beside its inputs, beside theirs, and so on; ``verify_lineage``
compares every file with the checksums that the records hold.

A file is *changed* if it is not what its own record says, or not what a file further down the chain
was made from. A file without a record (brought in from elsewhere) ends its branch. ``lineage_text``
draws the chain.
"""

import os
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from particleforge.errors import UserError
from particleforge.provenance.record import RECORD_SUFFIX, checksum, read_record, record_of

State = Literal["OK", "CHANGED", "MISSING", "UNCHECKED"]
Record = Mapping[str, Any]


@dataclass
class Item:
    """A file, or a folder that was written as one.

    ``record`` is None where there is none; ``inputs`` are the paths it was made from. ``consumers``
    maps the checksum of this item at the time when something was made from it to what was made.
    """

    path: Path
    record: Record | None
    inputs: list[Path] = field(default_factory=list)
    consumers: dict[str, list[Path]] = field(default_factory=dict)
    state: State = "UNCHECKED"
    reason: str = ""

    @property
    def stage(self) -> str:
        """The stage that wrote it, or nothing."""
        return str(self.record["stage"]) if self.record else ""


@dataclass
class Lineage:
    """A file (``end``) and everything it comes from, by absolute path.

    Each comes before what it was made from.
    """

    end: Path
    items: dict[Path, Item]

    @cached_property
    def base(self) -> Path:
        """The folder that holds all items with a record; names are relative to it."""
        return Path(
            os.path.commonpath([path.parent for path, item in self.items.items() if item.record])
        )

    def name(self, path: Path) -> str:
        """Return an item's path from ``base``, or its absolute path if it lies elsewhere."""
        return str(path.relative_to(self.base)) if path.is_relative_to(self.base) else str(path)

    def in_state(self, state: State) -> list[Item]:
        """Return the items in a state."""
        return [item for item in self.items.values() if item.state == state]

    def problems(self) -> list[Item]:
        """Return the items that are changed or missing."""
        return [*self.in_state("CHANGED"), *self.in_state("MISSING")]

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values: the records, with inputs named as the items are."""
        items = {}
        for path, item in self.items.items():
            inputs = {
                self.name(source): entry["sha256"]
                for source, entry in zip(item.inputs, _entries(item.record), strict=True)
            }
            items[self.name(path)] = {
                "state": item.state,
                "reason": item.reason,
                **(item.record or {}),
                "inputs": inputs,
            }
        return {"file": self.name(self.end), "base": str(self.base), "items": items}


def read_lineage(file: Path) -> Lineage:
    """Return the chain of a file, of a folder, or of a file in a folder that was written as one.

    UserError without a record.
    """
    end = _recorded(file)
    items = read_items([end])
    for item in items.values():
        for source, entry in zip(item.inputs, _entries(item.record), strict=True):
            items[source].consumers.setdefault(entry["sha256"], []).append(item.path)
    return Lineage(end, items)


def read_items(ends: Iterable[Path]) -> dict[Path, Item]:
    """Return files and everything they come from, by absolute path, without their consumers."""
    items: dict[Path, Item] = {}
    waiting = deque(_joined(Path.cwd(), str(path)) for path in ends)
    while waiting:
        path = waiting.popleft()
        if path in items:
            continue
        record_file = record_of(path)
        record = read_record(record_file) if record_file.is_file() else None
        inputs = [_joined(path.parent, entry["file"]) for entry in _entries(record)]
        items[path] = Item(path, record, inputs)
        waiting += inputs
    return items


def verify_lineage(lineage: Lineage) -> None:
    """Compare every item with the checksums in the records, and set its state.

    Every file is read once.
    """
    with ThreadPoolExecutor() as pool:  # hashing and reading both leave the interpreter's lock
        found = list(pool.map(_checksum, lineage.items))
    for item, actual in zip(lineage.items.values(), found, strict=True):
        item.state, item.reason = _state(lineage, item, actual)


def _state(lineage: Lineage, item: Item, actual: str | None) -> tuple[State, str]:
    """Return whether an item is as it was, and if not, what it no longer fits."""
    if actual is None:
        return "MISSING", "there is no such file any more"
    as_written = item.record is None or item.record["output"]["sha256"] == actual
    others = [
        lineage.name(path)
        for digest, consumers in item.consumers.items()
        if digest != actual
        for path in consumers
    ]
    if as_written and not others:
        return "OK", ""
    readers = shortened(others)
    if not as_written:
        return "CHANGED", "not what its stage wrote" + (
            f", nor what {readers} read" if others else ""
        )
    return "CHANGED", f"{'made again' if item.record else 'changed'} since {readers} read it"


def _checksum(path: Path) -> str | None:
    return checksum(path) if path.exists() else None


def _recorded(file: Path) -> Path:
    """Return what the record is about: the path, or the nearest folder above that has a record."""
    path = _joined(Path.cwd(), str(file).removesuffix(RECORD_SUFFIX))
    for owner in (path, *(path.parents if path.exists() else ())):
        if record_of(owner).is_file():
            return owner
    if not path.exists():
        raise UserError(
            f"{file}: no such file; give a file of a results folder, or one that a particleforge"
            " command wrote"
        )
    raise UserError(
        f"{file}: no provenance, as {path.name}{RECORD_SUFFIX} is not beside it; give a file that a"
        " stage wrote, or rerun it"
    )


def _entries(record: Record | None) -> list[dict[str, str]]:
    return list(record["inputs"]) if record else []


def _joined(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder / name))


def shortened(values: Iterable[str], limit: int = 3) -> str:
    """Return the distinct values in order, or the first ones and how many more there are."""
    found = list(dict.fromkeys(values))
    shown = ", ".join(found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit} more"
