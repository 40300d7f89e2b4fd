"""How files come into being (temporary name, sync, rename), and checksums that tell them apart."""

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from particleforge.errors import UserError, explained


@contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``.

    On success sync it to disk and rename it, on failure remove it.

    What a killed job left under the temporary name is overwritten. A full or read-only disk is a
    UserError.
    """
    target = Path(path)
    with explaining(target):
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


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a short hash of plain settings, independent of key order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
