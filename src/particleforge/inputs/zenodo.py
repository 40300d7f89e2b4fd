"""What a Zenodo record consists of, asked of Zenodo's API.

Inputs -> outputs: address and number of a record -> its files: name, URL, size in bytes, checksum.
Source: REST API, ``GET /api/records/<id>``; each of its ``files`` has ``key``, ``size``,
``checksum`` ("md5:...") and ``links.self``.

Imported while the Snakefile is parsed; the HTTP client is loaded only when a record is asked for.
"""

from dataclasses import dataclass

from particleforge.errors import UserError


@dataclass(frozen=True)
class RecordFile:
    """One file of a record."""

    name: str
    url: str
    size: int
    checksum: str


def record_files(zenodo_url: str, record: str, timeout_s: float) -> list[RecordFile]:
    """Return the files of a record; UserError if Zenodo does not answer or does not know it."""
    import requests

    url = f"{zenodo_url.rstrip('/')}/api/records/{record}"
    try:
        answer = requests.get(url, timeout=timeout_s)
    except requests.RequestException as error:
        raise UserError(
            f"{url}: {type(error).__name__}; the files of a record can only be listed with a"
            " connection to Zenodo"
        ) from error
    if not answer.ok:
        raise UserError(
            f"{url}: {answer.status_code} {answer.reason}; correct the record's number, or try"
            " later"
        )
    try:
        return [
            RecordFile(f["key"], f["links"]["self"], int(f["size"]), str(f["checksum"]))
            for f in answer.json()["files"]
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{url}: not a record's description; correct simulation.fetch.zenodo_url, or try later"
        ) from error
