"""A lock between processes on several machines, which outlives neither its holder nor a machine.

It is a file created with ``O_EXCL``, which NFS version 3 and later, Lustre and GPFS honour; no
``fcntl`` locks are needed. A holder that was killed on this machine is replaced at once, one on
another machine when its heartbeat has stopped for ``LEASE_S``. Both come from
``filelock.SoftFileLease``. What that does not do, since older programs hold empty files, is to
replace a holder that was killed after it had created the file and before it wrote its name into it:
all others would wait for ever. So whoever sees the file empty for ``EMPTY_S`` writes a mark into
it, and filelock then replaces it as damaged. A holder that was merely slow overwrites the mark.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

LEASE_S = 60.0
EMPTY_S = 3.0
_MARK = b"?\n"  # shorter than any holder's record


class SharedLock:
    """Lock on ``path``, a file that nobody else writes to.

    Hold it with ``acquire`` and ``release``, or with :func:`holding`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lease = filelock.SoftFileLease(path, lease_duration=LEASE_S, poll_interval=0.01)

    def acquire(self) -> None:
        """Return when this process holds the lock."""
        while True:
            empty = self._empty_file()
            try:
                self._lease.acquire(timeout=EMPTY_S)
                return
            except filelock.Timeout:
                if empty and self._empty_file() == empty:
                    with suppress(OSError), self._path.open("rb+") as file:
                        if os.fstat(file.fileno()).st_ino == empty[0]:
                            file.write(_MARK)

    def release(self) -> None:
        """Give the lock back."""
        self._lease.release()

    def _empty_file(self) -> tuple[int, int] | None:
        """Return which file it is that is empty, or None."""
        with suppress(OSError):
            found = self._path.lstat()
            return None if found.st_size else (found.st_ino, found.st_ctime_ns)
        return None


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock on a file."""
    lock = SharedLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
