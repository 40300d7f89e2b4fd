"""How files come into being (temporary name, sync, rename), and checksums that tell them apart."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from particleforge.errors import UserError, explained
from particleforge.stored import check_regular


@contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``.

    On success sync it to disk and rename it, on failure remove it.

    What a killed job left under the temporary name is overwritten. A full or read-only disk is a
    UserError.
    """
    target = Path(path)
    with explaining(target):
        check_regular(target, may_lack=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = _temporary_file(target)
        try:
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


def _temporary_file(target: Path) -> tuple[Path, int]:
    """Return an empty, locked file beside ``target``, and the handle that holds the lock.

    Its name is always the same, so that no folder of many files need be searched for leftovers. A
    second writer at the same time, on this machine or another, and one whose file system has no
    locks, gets a name of its own.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    with suppress(OSError):
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), temporary.stat()):
                os.ftruncate(handle, 0)
                return temporary, handle
        except (BlockingIOError, FileNotFoundError):
            pass  # its writer is at work, or has just renamed it
        except OSError:
            temporary.unlink(missing_ok=True)  # no locks here, so nobody writes under this name
        os.close(handle)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that replaces it on success and vanishes on failure.

    What a killed run left behind is removed first; should its writer be alive after all, that one
    fails. A full or read-only disk is a UserError.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    with explaining(target):
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
            shutil.rmtree(leftover)
        temporary.mkdir()
        try:
            yield temporary
            if target.exists():
                shutil.rmtree(target)
            temporary.replace(target)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)


@contextmanager
def explaining(target: Path) -> Iterator[None]:
    """Turn a full disk and the like into a UserError that names ``target``.

    The temporary name beside it is not named. An error that itself names another file keeps that
    name.

    An error that itself names another file keeps that name.
    """
    try:
        yield
    except (OSError, UserError) as error:
        problem = error if isinstance(error, UserError) else explained(error, target)
        if problem is None:
            raise
        temporary_name = rf"\.{re.escape(target.name)}(\.[0-9a-f]{{32}})?\.tmp"
        raise UserError(re.sub(temporary_name, lambda _: target.name, str(problem))) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, keys sorted, NaN refused."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted path."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        leaves |= dotted(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return leaves


def check_outputs(
    outputs: Iterable[Path], inputs: Iterable[Path] = (), folders: Iterable[Path] = ()
) -> None:
    """Refuse an output that is an input or another output, UserError.

    ``folders`` are outputs that are emptied first: no input may lie in them.
    """
    seen: set[str] = set()
    read = {os.path.realpath(path): path for path in inputs}
    for path in (*outputs, *folders):
        real = os.path.realpath(path)
        if real in read:
            raise UserError(
                f"{path}: is an input, too, and would be overwritten; give another output"
            )
        if real in seen:
            raise UserError(f"{path}: two outputs have this path; give each its own")
        seen.add(real)
    for folder in folders:
        for real, path in read.items():
            if Path(real).is_relative_to(os.path.realpath(folder)):
                raise UserError(
                    f"{path}: lies in {folder}, which is emptied before it is written; give another"
                    " output"
                )


def check_empty(folder: Path) -> None:
    """Refuse a folder that holds anything already, UserError; it may be missing or empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: is no empty folder; give the name of a new one")


def check_foreign(folder: Path, own: Iterable[str], what: str) -> None:
    """Refuse to replace a folder that holds other things than its ``own`` entries; UserError.

    Each may have a companion with a suffix, such as its record; hidden files count as its own.
    """
    names = set(own)
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in found:
        if not name.startswith(".") and not {name, name.split(".")[0]} & names:
            raise UserError(
                f"{folder}: holds {name}, which is no part of {what}, and would be replaced as a"
                " whole; give a folder of its own"
            )


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes; a pipe or device is a UserError."""
    check_regular(Path(path))
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a short hash of plain settings, independent of key order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
