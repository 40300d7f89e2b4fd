"""What a file is, by its first bytes, before anything tries to read it as ROOT.

Inputs -> outputs: a path -> nothing, or a UserError that says what the file is in place of a whole
ROOT file, and what to do.

A ROOT file begins with ``root``, its version (beyond a million if it has 64-bit pointers), the
place of the first record (100), and that of its end (TFile); a file that is shorter was truncated.
"""

import struct
from pathlib import Path

from particleforge.errors import UserError

_AGAIN = "fetch or simulate it again"
_UNPACK = "unpack it and give the ROOT files in it"
_MADE_OF = "give the ROOT files that it was made of"
_KNOWN = (
    (b"PAR1", "Parquet", f"{_MADE_OF}; a dataset is the input of select-events"),
    (b"\x89HDF", "HDF5", _MADE_OF),
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"\x80", "a pickle", "a pickle may run any code and is not read; " + _MADE_OF),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"HepMC::", "HepMC text", "simulate its events, and give the ROOT file of the simulation"),
    (b"<LesHouches", "LHE text", "simulate its events, and give the ROOT file of the simulation"),
    (b"<", "a web page", "fetch it again; its address may ask for a login"),
)
_LCIO = b"\xab\xad\xca\xfe"  # marks records of SIO, after their length
_BEGIN_MAX, _VERSION_MAX = 1000, 2_000_000
_LARGE = 1_000_000
_HEADER = 512


def refuse_other_files(path: str | Path) -> None:
    """Raise UserError for a file that is no ROOT file, or not a whole one.

    What cannot be opened is left to whoever opens it next.
    """
    try:
        with Path(path).open("rb") as handle:
            begin = handle.read(_HEADER)
        size = Path(path).stat().st_size
    except OSError:
        return
    if not begin:
        raise UserError(f"{path}: not a ROOT file but empty; {_AGAIN}")
    if begin.startswith(b"root") and _looks_like_root(begin):
        end = _end(begin)
        if end is None or end > size:
            of = "" if end is None else f" of {end}"
            raise UserError(
                f"{path}: a truncated ROOT file, {size}{of} bytes are there; fetch or simulate it"
                " again"
            )
        return
    what, remedy = _what(begin)
    raise UserError(f"{path}: not a ROOT file but {what}; {remedy}")


def _looks_like_root(begin: bytes) -> bool:
    """Tell whether version and first record are possible, as far as they are there."""
    numbers = [int.from_bytes(begin[at : at + 4], "big") for at in (4, 8) if len(begin) >= at + 4]
    return all(
        number <= limit for number, limit in zip(numbers, (_VERSION_MAX, _BEGIN_MAX), strict=False)
    )


def _end(begin: bytes) -> int | None:
    """Return where a ROOT file says that it ends, None if it is too short to say."""
    if len(begin) < 20:
        return None
    large = int.from_bytes(begin[4:8], "big") >= _LARGE
    end: int = struct.unpack(">q" if large else ">I", begin[12 : 20 if large else 16])[0]
    return end


def _what(begin: bytes) -> tuple[str, str]:
    """Return what begins so, and the remedy."""
    if begin[4:8] == _LCIO:
        return "LCIO", "convert it to EDM4hep with lcio2edm4hep"
    for known, what, remedy in _KNOWN:
        if begin.lstrip().startswith(known):
            return what, remedy
    try:
        text = begin.decode("utf-8", errors="strict" if len(begin) < _HEADER else "ignore")
        if all(sign.isprintable() or sign.isspace() for sign in text):
            return "text", "give the ROOT file that was meant"
    except UnicodeDecodeError:
        pass
    return "something else", "give the ROOT file that was meant"
