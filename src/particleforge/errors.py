"""The one exception for a user's mistake, a broken input or a full file system, and its hints.

Its message is a single line that names the file or key, what is wrong and the remedy. Command line
and workflow scripts print it without a traceback; anything else that is raised is a defect of the
package.
"""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

from particleforge.addresses import masked

_ELSEWHERE = "or put the results elsewhere, then run again"
_FILE_SYSTEM_FAULTS = {
    errno.ENOSPC: f"the disk is full; free space on it, {_ELSEWHERE}",
    errno.EDQUOT: f"the disk quota is used up; free space or ask for more, {_ELSEWHERE}",
    errno.EROFS: f"the file system is read-only; mount it writable, {_ELSEWHERE}",
    errno.EACCES: (
        "permission denied; correct owner or mode of the file and its folder, then run again"
    ),
}


class UserError(Exception):
    """A problem the user can mend: one line with file or key, the value, and the remedy.

    Passwords and tokens of addresses are taken out of it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(masked(" ".join(message.split())))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the known name closest to ``word``.

    Return nothing where none is close.
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def explained(error: OSError, path: str | Path) -> UserError | None:
    """Return as a UserError what the user can mend, None for any other error.

    The user can mend a full disk, a quota, a read-only file system, permissions.

    The message names ``path``, or another file that the error itself names (the target, where it
    copies or renames).
    """
    if error.errno not in _FILE_SYSTEM_FAULTS:
        return None
    return UserError(
        f"{error.filename2 or error.filename or path}: {_FILE_SYSTEM_FAULTS[error.errno]}"
    )
