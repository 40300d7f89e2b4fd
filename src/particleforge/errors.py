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
    errno.EPERM: "not permitted by the system; correct the file's attributes, or give another path",
    errno.ENOENT: "no such file or folder; correct the path",
    errno.EISDIR: "a folder, where a file is to be; give another path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; give another path",
    errno.EEXIST: "a file or broken link is in the place of a folder; give another path",
    errno.ENAMETOOLONG: "the name is too long for the file system; give a shorter path",
    errno.ELOOP: "links that lead round in a circle; give another path",
    errno.ENXIO: "a pipe or device that nobody serves; give a file",
    errno.ENODEV: "a device that is not there; give a file",
    errno.EBUSY: "in use by the system; give another path",
    errno.EFBIG: "larger than the file system or the limits of this shell allow; give another path",
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

    The user can mend a full disk, a quota, a read-only file system, permissions, a wrong path.

    The message names ``path``, or another file that the error itself names (the target, where it
    copies or renames).
    """
    if error.errno not in _FILE_SYSTEM_FAULTS:
        return None
    return UserError(
        f"{error.filename2 or error.filename or path}: {_FILE_SYSTEM_FAULTS[error.errno]}"
    )
