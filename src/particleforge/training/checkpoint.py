"""Checkpoints: the whole state of a training.

A damaged one is noticed and the one before it is used.

Files: ``<folder>/step_<step>_<first 16 hex digits of the content's SHA-256>.pt``; the newest
``KEPT`` are kept.

Invariants: a file appears whole or not at all; a file whose content does not match the checksum in
its name is passed over with a line in the log.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

from particleforge.artefacts import atomic_output
from particleforge.model.saved import deserialise, serialise
from particleforge.training.spec import checkpoints_in

log = logging.getLogger(__name__)
KEPT = 2
State = dict[str, Any]


def write_checkpoint(folder: Path, state: State) -> Path:
    """Write ``state``, which has ``step``, keep only the newest files, and return the path."""
    content = serialise(state)
    path = folder / f"step_{state['step']:09d}_{_checksum(content)}.pt"
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder by rising step."""
    return checkpoints_in(folder)


def read_checkpoint(path: Path) -> State | None:
    """Return the state in a file, or None, with a line in the log, if it is damaged.

    A whole file that is no state but could run code is a UserError (``deserialise``): somebody put
    it there.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        log.warning("checkpoint %s is not readable (%s)", path.name, error)
        return None
    if _checksum(content) != path.stem.rpartition("_")[2]:
        log.warning(
            "checkpoint %s is damaged: its content does not match the checksum in its name",
            path.name,
        )
        return None
    state: State = deserialise(content, path)
    return state


def latest_state(folder: Path) -> State | None:
    """Return the newest undamaged state of a folder.

    Damaged files, and those that a killed run left half-written, are removed.
    """
    for half in folder.glob(".step_*.tmp"):
        half.unlink(missing_ok=True)
    for path in reversed(list_checkpoints(folder)):
        state = read_checkpoint(path)
        if state is not None:
            return state
        path.unlink(missing_ok=True)
    return None


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
