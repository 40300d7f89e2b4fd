"""The fetch stage: one file of another machine is brought here.

Inputs -> outputs: a URL (``http(s)://`` through requests, ``root://`` and others through fsspec) ->
the file, complete, under its name.

A try that breaks off is followed by another one that goes on where it stopped (HTTP: a range
request, refused or ignored ones start over; if the file's ETag or date has changed meanwhile, it
starts over, too). The part that is there survives the job, so that a job that is run again goes on
as well. A range is believed only if ``Content-Range`` says that it begins where the part ends and
reaches the end of the file; else the part is dropped and the next try starts over. What is final is
not tried again: HTTP 4xx (but 408, 425 and 429), what cannot be asked (``inputs.web``), a file that
an XRootD server lacks, an unknown protocol, a file that is too long.

Invariants: a file under its own name has the length that the server announced and the one that is
known beforehand, begins as a ROOT file does and has its checksum, if one is known; one without any
announced length has a checksum. With ``on_bad_file: quarantine`` all but the first is left to the
stage that reads it, which then sets it aside.
"""

import errno
import json
import logging
import math
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import fsspec
import requests

from particleforge.artefacts import atomic_output, explaining
from particleforge.config.settings import FetchSettings
from particleforge.errors import UserError
from particleforge.inputs.checksums import verify_checksum
from particleforge.inputs.web import BLOCK, BrokenOffError, asking, in_time, length_of, reason_of
from particleforge.progress import shown
from particleforge.provenance.record import Provenance

log = logging.getLogger(__name__)

_MAGIC = b"root"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_WAIT_S_MAX = 60.0
_XROOTD = ("root://", "roots://", "xroot://", "xroots://")
_XROOTD_NOT_FOUND = "[3011]"  # kXR_NotFound; the client gives the number of an answer as text only
_OF_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def fetch_file(
    settings: FetchSettings,
    output: Path,
    *,
    attempts: int,
    wait_s: float,
    timeout_s: float,
    on_bad_file: Literal["fail", "quarantine"],
    gb_max: float = math.inf,
) -> None:
    """Fetch ``settings.url`` to ``output``.

    UserError if it cannot be had, or is not the file that it should be.

    What may change from run to run without a file being fetched anew is no setting of the stage:
    how often is tried, and what becomes of a file that is not what it should be.
    """
    bytes_max = gb_max * 1e9 if settings.size is None else min(gb_max * 1e9, settings.size)
    part = output.with_name(f".{output.name}.part")
    for attempt in range(1, attempts + 1):
        try:
            with explaining(output):
                output.parent.mkdir(parents=True, exist_ok=True)
                _fetch_rest(settings, part, timeout_s, bytes_max)
            break
        except BrokenOffError as broken:
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
    if settings.size not in (None, _size(part)):
        raise UserError(
            f"{settings.url}: has {_size(part)} bytes, its record says {settings.size}; fetch it"
            " again, or ask those who keep the record"
        )
    if settings.checksum:
        verify_checksum(part, settings.checksum, settings.url)


def _fetch_rest(settings: FetchSettings, part: Path, timeout_s: float, bytes_max: float) -> None:
    """Append to ``part`` what it lacks of the file."""
    http = settings.url.startswith(("http://", "https://"))
    total = (_fetch_http if http else _fetch_other)(settings, part, timeout_s, bytes_max)
    if total is not None and (came := _size(part)) != total:
        if came > total:
            _remove(part)
        raise BrokenOffError(f"{came} of {total} bytes came")


def _fetch_http(
    settings: FetchSettings, part: Path, timeout_s: float, bytes_max: float
) -> int | None:
    """Fetch over HTTP, and return the length of the file, None if the server does not tell it."""
    begun, known = _size(part), _read_state(part)
    validator, headers = known.get("validator"), {}
    if begun and isinstance(validator, str) and re.fullmatch(r"[ -~]+", validator):
        headers = {"Range": f"bytes={begun}-", "If-Range": validator}
    with asking(settings.url, headers, timeout_s) as (answer, blocks):
        length = length_of(answer)
        if answer.status_code == requests.codes.ok:
            begun = 0  # all of it, as the server knows no ranges or the file has changed
        elif not (headers and _is_the_rest(answer, begun, length, known)):
            _remove(part)
            raise BrokenOffError("the server sends another part of the file than the one wanted")
        elif length is None:
            length = _range_of(answer)[1] - begun + 1
        total = begun + length if length is not None else None
        if total is None and not _is_chunked(answer) and not (settings.checksum or settings.size):
            raise UserError(
                f"{settings.url}: the server does not say how long the file is, so that a part of"
                " it could pass for the whole; give its checksum under checksums"
            )
        _check_length(settings.url, part, total or 0, bytes_max)
        if not begun:
            _remove(part)
        _write_state(part, {"validator": _validator(answer), "length": total})
        _append(settings.url, part, begun, shown(blocks, "B", total, len, begun), bytes_max)
    return total


def _is_the_rest(
    answer: requests.Response, begun: int, length: int | None, known: Mapping[str, Any]
) -> bool:
    """Tell whether an answer is what lacks of the known file behind its first ``begun`` bytes."""
    if answer.status_code != requests.codes.partial_content:
        return False
    first, last, total = _range_of(answer)
    return (
        first == begun
        and last + 1 == total
        and length in (None, total - begun)
        and known.get("length") in (None, total)
        and _validator(answer) in ("", known["validator"])
    )


def _range_of(answer: requests.Response) -> tuple[int, int, int]:
    """Return first and last byte and the length of the file, -1 where the answer has no range."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else (-1, -1, -1)


def _is_chunked(answer: requests.Response) -> bool:
    """Tell whether an answer has an end of its own, so that one cut short shows."""
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


def _validator(answer: requests.Response) -> str:
    """Return what tells one version of a file from another, "" if nothing does."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _fetch_other(
    settings: FetchSettings, part: Path, timeout_s: float, bytes_max: float
) -> int | None:
    """Fetch over any protocol that fsspec knows, with the time limits of HTTP.

    XRootD's client has limits of its own, which are minutes, and none for a server that says
    nothing. So the threads that wait for HTTP wait here, too.
    """
    url = settings.url
    with _telling(url):
        with closing(in_time(_opened(url, timeout_s), timeout_s)) as steps:
            system, path, total = next(steps)
        _check_length(url, part, total or 0, bytes_max)
        if _read_state(part) != {"size": total}:  # of another version of the file
            _remove(part)
        begun = _size(part)
        _write_state(part, {"size": total})
        with closing(in_time(_blocks(system, path, begun), timeout_s)) as blocks:
            _append(url, part, begun, shown(blocks, "B", total, len, begun), bytes_max)
    return total


def _opened(url: str, timeout_s: float) -> Generator[tuple[Any, str, int | None]]:
    """Yield the file system of an address, the path in it and the length of the file."""
    limits = {"timeout": math.ceil(timeout_s)} if url.startswith(_XROOTD) else {}
    system, path = fsspec.core.url_to_fs(url, **limits)
    yield system, path, system.size(path)


def _blocks(system: Any, path: str, begun: int) -> Generator[bytes]:
    """Yield a file from one byte on."""
    with system.open(path, "rb") as source:
        source.seek(begun)
        yield from iter(partial(source.read, BLOCK), b"")


@contextmanager
def _telling(url: str) -> Iterator[None]:
    """Say of an error of fsspec whether it may pass."""
    try:
        yield
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}; for root:// install fsspec-xrootd") from error
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file there; correct the address") from error
    except OSError as error:
        if error.errno in _OF_THIS_MACHINE:
            raise
        if url.startswith(_XROOTD) and _XROOTD_NOT_FOUND in str(error):
            raise UserError(f"{url}: no such file there; correct the address") from error
        raise BrokenOffError(f"the connection failed ({reason_of(error)})") from error


def _append(url: str, part: Path, begun: int, blocks: Iterable[bytes], bytes_max: float) -> None:
    """Write blocks behind the first ``begun`` bytes of the part, as long as they may be."""
    with _part_file(part, begun) as handle:
        for block in blocks:
            begun += len(block)
            _check_length(url, part, begun, bytes_max)
            handle.write(block)


def _check_length(url: str, part: Path, length: int, bytes_max: float) -> None:
    """Refuse a file that is longer than it may be, and drop what came of it."""
    if length > bytes_max:
        _remove(part)
        raise UserError(
            f"{url}: the server sends more than the {bytes_max:.0f} bytes that its record or"
            " simulation.fetch.gb_max allows; correct the address, or raise simulation.fetch.gb_max"
        )


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
