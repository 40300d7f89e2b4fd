"""The fetch stage: one file of another machine is brought here.

Inputs -> outputs: a URL (``http(s)://`` through requests, ``root://`` and others through fsspec) ->
the file, complete, under its name.

A try that breaks off is followed by another one that goes on where it stopped (HTTP: a range
request, refused or ignored ones start over; if the file's ETag or date has changed meanwhile, it
starts over, too). The part that is there survives the job, so that a job that is run again goes on
as well. What is final is not tried again: HTTP 4xx (but 408 and 429), a file that an XRootD server
lacks, an unknown protocol.

Invariants: a file under its own name has the length that the server announced, begins as a ROOT
file does and has its checksum, if one is known. With ``on_bad_file: quarantine`` the last two are
left to the stage that reads it, which then sets it aside.
"""

import errno
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import fsspec
import requests

from particleforge.artefacts import atomic_output, explaining
from particleforge.config.settings import FetchSettings
from particleforge.errors import UserError
from particleforge.inputs.checksums import verify_checksum
from particleforge.provenance.record import Provenance

log = logging.getLogger(__name__)

_BLOCK = 1 << 16  # what is lost of a transfer that breaks off, at most
_MAGIC = b"root"
_PASSING = (408, 429)  # of the 4xx, those that may pass by themselves
_WAIT_S_MAX = 60.0
_XROOTD = ("root://", "roots://", "xroot://", "xroots://")
_XROOTD_NOT_FOUND = "[3011]"  # kXR_NotFound; the client gives the number of an answer as text only
_OF_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class _BrokenOffError(Exception):
    """A try that ended early, for a reason that may pass."""


def fetch_file(
    settings: FetchSettings,
    output: Path,
    *,
    attempts: int,
    wait_s: float,
    timeout_s: float,
    on_bad_file: Literal["fail", "quarantine"],
) -> None:
    """Fetch ``settings.url`` to ``output``.

    UserError if it cannot be had, or is not the file that it should be.

    What may change from run to run without a file being fetched anew is no setting of the stage:
    how often is tried, and what becomes of a file that is not what it should be.
    """
    part = output.with_name(f".{output.name}.part")
    for attempt in range(1, attempts + 1):
        try:
            with explaining(output):
                output.parent.mkdir(parents=True, exist_ok=True)
                _fetch_rest(settings.url, part, timeout_s)
            break
        except _BrokenOffError as broken:
            if attempt == attempts:
                raise UserError(
                    f"{settings.url}: {broken} ({attempts} tries); run again to go on from"
                    f" {_size(part) / 1e6:.1f} MB, or raise simulation.fetch.attempts"
                ) from broken
            pause = min(wait_s * 2 ** (attempt - 1), _WAIT_S_MAX)
            log.warning(
                "%s: %s; try %d of %d in %.1f s", settings.url, broken, attempt + 1, attempts, pause
            )
            time.sleep(pause)
    try:
        _check(settings, part)
    except UserError as bad:
        if on_bad_file == "fail":
            _remove(part)
            raise
        log.warning("%s (kept, so that the stage that reads it sets it aside)", bad)
    made = Provenance.of("fetch_file", settings.plain())
    with atomic_output(output) as temporary:
        part.replace(temporary)
    _remove(part)
    made.record(output)
    log.info("%s: %.1f MB", settings.url, _size(output) / 1e6)


def _check(settings: FetchSettings, part: Path) -> None:
    """Refuse what is not the file that was asked for."""
    with part.open("rb") as handle:
        begin = handle.read(512)
    if not begin.startswith(_MAGIC):
        kind = (
            "a web page" if begin.lstrip()[:1] == b"<" else "something else" if begin else "nothing"
        )
        raise UserError(
            f"{settings.url}: the server sent {kind} instead of a ROOT file; open the address in a"
            " browser and correct it"
        )
    if settings.checksum:
        verify_checksum(part, settings.checksum, settings.url)


def _fetch_rest(url: str, part: Path, timeout_s: float) -> None:
    """Append to ``part`` what it lacks of the file at ``url``."""
    try:
        if url.startswith(("http://", "https://")):
            _fetch_http(url, part, timeout_s)
        else:
            _fetch_other(url, part, timeout_s)
    except requests.RequestException as error:
        raise _BrokenOffError(f"the connection failed ({_reason(error)})") from error


def _fetch_http(url: str, part: Path, timeout_s: float) -> None:
    """Fetch over HTTP; identity encoding, so that lengths are those of the file."""
    begun, known = _size(part), _read_state(part)
    headers = {"Accept-Encoding": "identity"}
    if begun and known.get("validator"):
        headers |= {"Range": f"bytes={begun}-", "If-Range": known["validator"]}
    else:
        begun = 0
    with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            _remove(part)
            raise _BrokenOffError("the part that was there does not fit the file")
        if not answer.ok:
            status = int(answer.status_code or 0)
            said = f"the server answers {status} {answer.reason}"
            if status < 500 and status not in _PASSING:
                raise UserError(f"{url}: {said}; correct the address, or ask for access")
            raise _BrokenOffError(said)
        if answer.status_code != requests.codes.partial_content:
            begun = 0  # the server sends all of it, as it knows no ranges or the file has changed
        length = answer.headers.get("Content-Length")
        total = begun + int(length) if length is not None else None
        if not begun:
            _remove(part)
        _write_state(
            part,
            {"validator": answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""},
        )
        with _part_file(part, begun) as handle:
            for block in answer.iter_content(_BLOCK):
                handle.write(block)
    if total is not None and _size(part) != total:
        raise _BrokenOffError(f"{_size(part)} of {total} bytes came")


def _fetch_other(url: str, part: Path, timeout_s: float) -> None:
    """Fetch over any protocol that fsspec knows, XRootD with a time limit of its own."""
    try:
        system, path = fsspec.core.url_to_fs(
            url, **({"timeout": math.ceil(timeout_s)} if url.startswith(_XROOTD) else {})
        )
        total = system.size(path)
        if _read_state(part) != {"size": total}:  # of another version of the file
            _remove(part)
        begun = _size(part)
        _write_state(part, {"size": total})
        with system.open(path, "rb") as source, _part_file(part, begun) as handle:
            source.seek(begun)
            while block := source.read(_BLOCK):
                handle.write(block)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}; for root:// install fsspec-xrootd") from error
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file there; correct the address") from error
    except OSError as error:
        if error.errno in _OF_THIS_MACHINE:
            raise
        if url.startswith(_XROOTD) and _XROOTD_NOT_FOUND in str(error):
            raise UserError(f"{url}: no such file there; correct the address") from error
        raise _BrokenOffError(f"the connection failed ({_reason(error)})") from error
    if total is not None and _size(part) != total:
        raise _BrokenOffError(f"{_size(part)} of {total} bytes came")


@contextmanager
def _part_file(part: Path, begun: int) -> Iterator[BinaryIO]:
    """Yield the part, open behind its first ``begun`` bytes; sync it even if the try breaks off."""
    with part.open("r+b" if part.exists() else "w+b") as handle:
        handle.truncate(begun)
        handle.seek(begun)
        try:
            yield handle
        finally:
            handle.flush()
            os.fsync(handle.fileno())


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return dict(json.loads(_state_of(part).read_text(encoding="utf-8")))
    return {}


def _write_state(part: Path, state: dict[str, Any]) -> None:
    _state_of(part).write_text(json.dumps(state), encoding="utf-8")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_of(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    """Return an error's kind and the innermost cause that says something."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    return f"{type(error).__name__}: {inner}"
