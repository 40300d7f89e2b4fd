"""Which files a sample consists of, and which shard of the dataset each belongs to.

Inputs -> outputs: a sample's ``files`` (paths, globs, folders, URLs, Zenodo records) -> ``Source``
objects in a fixed order; with the ledger of earlier runs -> ``{shard number: sources}``.

Order: that of the entries in the configuration; within a glob, folder or record by name, numbers in
it as numbers. A file that two entries name counts once.

Shards are numbered by a *ledger*, a JSON file in the results: a file keeps the shard it was given
first, files that are new are given new shards behind the last one. So a file that is added makes
new shards and touches no other, wherever its name sorts, and one that is removed makes its own
shard again and no other. Without a ledger, or with another ``files_per_dataset_shard``, shards are
numbered afresh in the order above.

Imported while the Snakefile is parsed: nothing heavy here.
"""

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from particleforge.artefacts import write_json
from particleforge.config.detector import SampleConfig
from particleforge.errors import UserError
from particleforge.inputs.zenodo import RecordFile, first_fault, record_files

_MAGIC = re.compile(r"[*?\[]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_REMOTE = ("http", "https", "root")
_RECORD = re.compile(r"zenodo://record/(\d+)/(.+)")
_PICKLE = re.compile(r"\.(pkl|pickle)(\.(bz2|gz|xz|zst))?$", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.\w+|gz|bz2|xz|zst|7z)$", re.IGNORECASE)
_REMEDY = "give a ROOT file, a folder of them, a glob or a URL"
_RecordOf = Callable[[str], Sequence[RecordFile]]  # number of a Zenodo record -> its files


@dataclass(frozen=True)
class Source:
    """One file of a sample: a path of this machine, a URL or ``zenodo://record/<id>/<name>``.

    ``checksum`` is what it must have, "" if none is known; ``record_url`` is where Zenodo serves a
    record's file, ``size`` its length in bytes.
    """

    location: str
    checksum: str = ""
    record_url: str = ""
    size: int | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it must be fetched."""
        return bool(_SCHEME.match(self.location))

    @property
    def url(self) -> str:
        """Where it is fetched from."""
        return self.record_url or self.location

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return (
            unquote(urlsplit(self.location).path.rsplit("/", 1)[-1])
            if self.is_remote
            else self.location.rsplit("/", 1)[-1]
        )

    @property
    def stored(self) -> str:
        """Return a fetched file's path in its sample's folder: host, path, hash of the query."""
        parts = urlsplit(self.location)
        names = [
            parts.netloc.rpartition("@")[2],
            *(part for part in parts.path.split("/") if part not in ("", ".", "..")),
        ]
        query = f"-{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}" if parts.query else ""
        return quote("/".join(names), safe="/._-+=,%") + query


class _LedgerFile(BaseModel):
    """A ledger as it is written down."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    files_per_dataset_shard: int
    shards: dict[str, NonNegativeInt]
    records: dict[str, list[RecordFile]]


@dataclass(frozen=True)
class Ledger:
    """What earlier runs settled: shards of locations, and contents of Zenodo records.

    The contents never change.
    """

    files_per_shard: int
    shards: Mapping[str, int]
    records: Mapping[str, Sequence[RecordFile]]

    @classmethod
    def read(cls, path: Path, files_per_shard: int) -> "Ledger":
        """Return the ledger in a file, an empty one where there is none.

        UserError if the file is none.
        """
        try:
            content = _LedgerFile.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls(files_per_shard, {}, {})
        except (OSError, ValueError) as error:
            fault = first_fault(error) if isinstance(error, ValueError) else error
            raise UserError(
                f"{path}: not a readable list of a sample's shards ({fault}); delete it to number"
                " them afresh"
            ) from error
        same = content.files_per_dataset_shard == files_per_shard
        return cls(files_per_shard, content.shards if same else {}, content.records)

    def write(self, path: Path) -> None:
        """Write the ledger, if it differs from what is there."""
        content = {
            "files_per_dataset_shard": self.files_per_shard,
            "shards": dict(self.shards),
            "records": {
                name: [entry.model_dump() for entry in entries]
                for name, entries in self.records.items()
            },
        }
        if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != content:
            write_json(path, content)

    def knowing(self, records: Mapping[str, Sequence[RecordFile]]) -> "Ledger":
        """Return the ledger with what is known of further records."""
        return replace(self, records={**records, **self.records})

    def extended(
        self, locations: Iterable[str], records: Mapping[str, Sequence[RecordFile]]
    ) -> "Ledger":
        """Return the ledger with shards behind the last one for locations that it does not know."""
        shards = dict(self.shards)
        new = [location for location in locations if location not in shards]
        first = max(shards.values(), default=-1) + 1
        for place, location in enumerate(new):
            shards[location] = first + place // self.files_per_shard
        return Ledger(self.files_per_shard, shards, {**self.records, **records})


@dataclass(frozen=True)
class SampleFiles:
    """The files of a sample by number of their shard, in order, and the ledger to keep."""

    shards: Mapping[int, Sequence[Source]]
    ledger: Ledger


def sample_files(
    sample: SampleConfig, key: str, ledger: Ledger, zenodo_url: str, timeout_s: float
) -> SampleFiles:
    """Return what a sample consists of; ``key`` is how messages call it.

    UserError for a sample without files and for a path, glob, folder or URL that cannot be.
    """
    if not sample.files:
        raise UserError(
            f"{key}.files: missing, but simulation.backend is files; {_REMEDY}, or take the"
            " sample out"
        )
    records: dict[str, Sequence[RecordFile]] = dict(ledger.records)

    def record_of(number: str) -> Sequence[RecordFile]:
        if number not in records:
            records[number] = record_files(zenodo_url, number, timeout_s)
        return records[number]

    found: dict[str, Source] = {}
    for entry in sample.files:
        for source in _expanded(entry, f"{key}.files", record_of):
            found.setdefault(source.location, source)
    if sample.checksums:
        _check_names(found.values(), sample.checksums, key)
        found = {
            place: replace(source, checksum=sample.checksums.get(source.name, source.checksum))
            for place, source in found.items()
        }
    settled = ledger.extended(found, records)
    shards: dict[int, list[Source]] = {}
    for location, source in found.items():
        shards.setdefault(settled.shards[location], []).append(source)
    return SampleFiles(shards, settled)


def natural(name: str) -> list[Any]:
    """Return a sort key by which file_2 comes before file_10."""
    return [
        (int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _check_names(sources: Iterable[Source], checksums: Mapping[str, str], key: str) -> None:
    """Refuse checksums of absent files, which a slip of the pen would leave unchecked."""
    if unknown := sorted(set(checksums) - {source.name for source in sources}):
        raise UserError(
            f"{key}.checksums: {unknown[0]} is no file of the sample; name files as they are called"
            f" in {key}.files"
        )


def _expanded(entry: str, key: str, record_of: _RecordOf) -> list[Source]:
    """Return the files that one entry names, in order."""
    scheme = _SCHEME.match(entry)
    if scheme is None:
        return [Source(path) for path in local_files(entry, key)]
    if scheme[1] == "zenodo":
        return _of_record(entry, key, record_of)
    if scheme[1] not in _REMOTE:
        raise UserError(
            f"{key}: {entry}: {scheme[1]}:// is not known; use {'://, '.join(_REMOTE)}:// or"
            " zenodo://record/<id>/<glob>"
        )
    if (
        not urlsplit(entry).netloc
        or urlsplit(entry).path.rstrip("/") == ""
        or _MAGIC.search(urlsplit(entry).path)
    ):
        raise UserError(
            f"{key}: {entry}: must be the address of one file; folders and globs of other machines"
            " cannot be listed"
        )
    _check_kind(urlsplit(entry).path, key)
    return [Source(entry)]


def local_files(entry: str, key: str) -> list[str]:
    """Return this machine's paths that an entry names: a file, a folder's ROOT files, a glob's.

    UserError, which calls the entry ``key``, if there are none, or one that may not be read or is
    of a kind that is not.
    """
    if scheme := _SCHEME.match(entry):
        raise UserError(
            f"{key}: {entry}: only files of this machine can be read here; {scheme[1]}:// files are"
            " fetched by the workflow"
        )
    # Path would drop a leading "./", by which users call their files
    path = os.path.expanduser(entry)  # noqa: PTH111
    if _MAGIC.search(path) and not Path(path).exists():
        _listed(Path(_MAGIC.split(path)[0] + "x").parent, entry, key)
        names = glob.glob(path, recursive=True)  # noqa: PTH207  as above
        found = [name for name in names if not Path(name).is_dir()]
    elif Path(path).is_dir():
        found = [
            os.path.join(path, name)  # noqa: PTH118  as above
            for name in _listed(Path(path), entry, key)
            if name.endswith(".root")
        ]
    else:
        found = [path] if Path(path).exists() else []
        if not found:
            raise UserError(f"{key}: {entry}: no such file; {_REMEDY}")
    if not found:
        raise UserError(f"{key}: {entry}: no file there; {_REMEDY}")
    for name in found:
        _check_kind(name, key)
        if not os.access(name, os.R_OK):
            raise UserError(f"{key}: {name}: permission denied; make it readable")
    return sorted(found, key=natural)


def _check_kind(name: str, key: str) -> None:
    """Refuse what its name says is no ROOT file."""
    if _PICKLE.search(name):
        raise UserError(
            f"{key}: {name}: is a pickle, which may run any code and is not read; give the ROOT"
            " files it was made from"
        )
    if _ARCHIVE.search(name):
        raise UserError(f"{key}: {name}: is an archive; unpack it and give the ROOT files in it")


def _listed(folder: Path, entry: str, key: str) -> list[str]:
    """Return the names in a folder; UserError if it cannot be listed."""
    try:
        return os.listdir(folder)  # noqa: PTH208  a folder may hold a hundred thousand files
    except PermissionError:
        raise UserError(
            f"{key}: {entry}: permission denied in {folder}; make the folder readable"
        ) from None
    except OSError as error:
        raise UserError(f"{key}: {entry}: {folder}: {error.strerror}; {_REMEDY}") from error


def _of_record(entry: str, key: str, record_of: _RecordOf) -> list[Source]:
    """Return the files of a Zenodo record that a glob names."""
    matched = _RECORD.fullmatch(entry)
    if not matched:
        raise UserError(f"{key}: {entry}: must read zenodo://record/<id>/<name or glob>")
    record, pattern = matched.groups()
    listed = record_of(record)
    found = [file for file in listed if fnmatchcase(file.name, pattern)]
    if not found:
        there = ", ".join(sorted((file.name for file in listed), key=natural)[:3]) or "nothing"
        raise UserError(
            f"{key}: {entry}: the record has no such file; it has {there}"
            + (" ..." if len(listed) > 3 else "")
        )
    for file in found:
        _check_kind(f"zenodo://record/{record}/{file.name}", key)
    return [
        Source(f"zenodo://record/{record}/{quote(file.name)}", file.checksum, file.url, file.size)
        for file in sorted(found, key=lambda file: natural(file.name))
    ]
