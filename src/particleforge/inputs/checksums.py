"""Checksums that files must have, as ``sha256:<hex>`` or ``md5:<hex>``."""

import hashlib
from pathlib import Path

from particleforge.errors import UserError


def verify_checksum(path: Path, expected: str, name: str = "") -> None:
    """Compare a file with the checksum it must have.

    UserError, which calls the file ``name``, if it has another one.
    """
    algorithm, _, digest = expected.partition(":")
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, algorithm).hexdigest()
    if found != digest:
        raise UserError(
            f"{name or path}: its {algorithm} is {found}, expected {digest}; fetch it again, or"
            " correct the checksum"
        )
