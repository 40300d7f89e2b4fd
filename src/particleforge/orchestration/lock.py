"""One workflow at a time in a results folder.

Snakemake's own lock lies in the working folder. Two workflows on one results folder would delete
each other's outputs.
"""

import fcntl
from pathlib import Path
from typing import IO

from particleforge.errors import UserError, explained

_NAME = ".workflow.lock"


class ResultsLock:
    """A lock on a results folder; it ends with the process, so none is ever left behind."""

    def __init__(self, results_dir: str) -> None:
        self._results_dir = results_dir
        self._held: IO[str] | None = None

    def take(self) -> None:
        """Take the lock; UserError if the workflow of another working folder holds it.

        UserError, too, if there can be no such folder. A file system without locks has none.
        """
        path = Path(self._results_dir) / _NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a")
        except OSError as error:
            raise explained(error, path) or UserError(
                f"results_dir: {self._results_dir}: {error.strerror}; give one that can be made"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self._results_dir}: another workflow works in this results folder; wait for it"
                " or end it"
            ) from None
        except OSError:
            return
        self._held = handle
