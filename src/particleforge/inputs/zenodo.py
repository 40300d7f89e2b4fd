"""What a Zenodo record consists of, asked of Zenodo's API.

Inputs -> outputs: address and number of a record -> its files: name, URL, size in bytes, checksum.
Source: REST API, ``GET /api/records/<id>``; each of its ``files`` has ``key``, ``size``,
``checksum`` ("md5:...") and ``links.self``.

What the server says is not trusted: types are those, sizes are sizes, a link stays on the host that
was asked, and a name stands once.

Imported while the Snakefile is parsed; the HTTP client is loaded only when a record is asked for.
"""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from particleforge.addresses import holds_secret, is_readable
from particleforge.errors import UserError

_BYTES_MAX = 1 << 26  # of a record's description


def _name(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must have no control characters")
    return text


def _link(url: str) -> str:
    if not url.startswith(("http://", "https://")) or not is_readable(url) or holds_secret(url):
        raise ValueError("must be an address of http or https, without password or token")
    return url


class RecordFile(BaseModel):
    """One file of a record, as Zenodo describes it or as ``model_dump`` wrote it down."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_name)] = Field(
        min_length=1, max_length=4096, validation_alias=AliasChoices("name", "key")
    )
    url: Annotated[str, AfterValidator(_link)] = Field(
        validation_alias=AliasChoices("url", AliasPath("links", "self"))
    )
    size: int = Field(ge=0, lt=1 << 62)
    checksum: str = Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")


class _Record(BaseModel):
    """What is used of a record's description."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    files: list[RecordFile]


def record_files(zenodo_url: str, record: str, timeout_s: float) -> list[RecordFile]:
    """Return the files of a record.

    UserError if Zenodo does not answer, does not know it, or says what cannot be.
    """
    url = f"{zenodo_url.rstrip('/')}/api/records/{record}"
    try:
        files = _Record.model_validate_json(_described(url, timeout_s)).files
        _check(files, zenodo_url)
    except (ValidationError, ValueError) as error:
        raise UserError(
            f"{url}: not a record's description ({first_fault(error)}); correct"
            " simulation.fetch.zenodo_url, or try later"
        ) from error
    return files


def first_fault(error: ValueError) -> str:
    """Return the first thing that is wrong, without the value."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def _check(files: Sequence[RecordFile], zenodo_url: str) -> None:
    """Refuse a name that stands twice, and a link to another host than the one that was asked."""
    own = urlsplit(zenodo_url)
    names: set[str] = set()
    for file in files:
        link = urlsplit(file.url)
        if link.netloc.lower() != own.netloc.lower() or link.scheme not in ("https", own.scheme):
            raise ValueError(
                f"{file.name}: its link leads to {link.scheme}://{link.netloc}, not to {own.netloc}"
            )
        if file.name in names:
            raise ValueError(f"{file.name}: stands there twice")
        names.add(file.name)


def _described(url: str, timeout_s: float) -> bytes:
    """Return what the server says of a record."""
    from particleforge.inputs.web import BrokenOffError, asking, length_of

    content = b""
    try:
        with asking(url, {}, timeout_s, "correct the record's number") as (answer, blocks):
            length = length_of(answer)
            for block in blocks:
                content += block
                if len(content) > _BYTES_MAX:
                    raise ValueError(f"longer than {_BYTES_MAX >> 20} MiB")
    except BrokenOffError as broken:
        raise UserError(
            f"{url}: {broken}; the files of a record can only be listed with a connection to"
            " Zenodo; try later"
        ) from broken
    if length not in (None, len(content)):
        raise ValueError(f"{len(content)} of {length} bytes came")
    return content
