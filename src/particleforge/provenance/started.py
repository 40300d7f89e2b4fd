"""What a run was started with: written down by its head, asked for by each of its jobs.

Inputs -> outputs: configuration and code of a run -> one JSON file in the results, and a ticket,
checksum and path of that file, which each job is given. A job whose ticket no longer fits belongs
to a run that is over.

Code is what lies in this package and in the files of the workflow. It cannot be kept as cheaply as
a configuration can, so a job that finds other code than the run began with stops.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from particleforge.artefacts import sha256, write_text
from particleforge.errors import UserError

TICKET_VARIABLE = "PARTICLEFORGE_RUN"  # how a job's process hands the ticket to the job's script
_FILE = ".run.json"
_PACKAGE = Path(__file__).parents[1]
_KINDS = {".py", ".smk", ".j2", ".css"}  # of files in the package
_NAMES_SHOWN = 3


class Started:
    """What a run is started with, to be written when it does start."""

    def __init__(
        self, results_dir: str, config: Mapping[str, Any], workflow_files: Iterable[Path]
    ) -> None:
        """Take down the configuration, as plain values, and the checksums of the code."""
        content = {"config": config, "code": code_checksums(workflow_files)}
        self._file = (Path(results_dir) / _FILE).absolute()
        self._text = json.dumps(content, allow_nan=False) + "\n"
        digest = hashlib.sha256(self._text.encode()).hexdigest()
        self.ticket = (
            f"{digest}:{quote(os.fsencode(self._file))}"  # passes through any shell unchanged
        )

    def write(self) -> None:
        """Write it down, and give the ticket to the scripts that this process starts."""
        write_text(self._file, self._text)
        os.environ[TICKET_VARIABLE] = self.ticket


def read_started(ticket: str) -> dict[str, Any]:
    """Return what the run of a ticket was started with; UserError if that run is over."""
    digest, _, file = ticket.partition(":")
    path = Path(os.fsdecode(unquote_to_bytes(file)))
    text = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(text).hexdigest() != digest:
        raise UserError(
            f"{path}: not what the run of this job was started with; a later run with other"
            " settings or code has begun, or this one was started with --no-hooks: start it again"
        )
    content: dict[str, Any] = json.loads(text)
    return content


def check_code() -> None:
    """Raise a UserError if the code is not what the run of this process was started with.

    A process that belongs to no run of the workflow may have any code.
    """
    ticket = os.environ.get(TICKET_VARIABLE)
    if ticket is None:
        return
    recorded: dict[str, str] = read_started(ticket)["code"]
    changed = [name for name, digest in recorded.items() if _checksum(name) != digest]
    if changed:
        more = len(changed) - _NAMES_SHOWN
        shown = ", ".join(changed[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        raise UserError(
            f"{shown}: changed since the run started, which keeps the code that it began with; put"
            " it back, or end the run and start it again"
        )


def code_checksums(workflow_files: Iterable[Path]) -> dict[str, str]:
    """Return the checksums of the code, by name.

    Files of the package are named relative to the folder above it, which may be another one on
    another machine; those of the workflow have their whole path.
    """
    own = (path for path in _PACKAGE.rglob("*") if path.suffix in _KINDS)
    files = [
        *(path.relative_to(_PACKAGE.parent) for path in own),
        *(path.absolute() for path in workflow_files),
    ]
    found = {str(file): _checksum(str(file)) for file in files}
    return {name: digest for name, digest in found.items() if digest is not None}


def _checksum(name: str) -> str | None:
    """Return the checksum of a file of code, None if there is none of this name."""
    path = _PACKAGE.parent / name
    return sha256(path) if path.is_file() else None
