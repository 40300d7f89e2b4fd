"""The one exception that a user's mistake or a broken input raises, and the hint that goes with a misspelled name.

Its message is a single line that names the file or key, what is wrong and the remedy. Command line and
workflow scripts print it without a traceback; anything else that is raised is a defect of the package.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A problem the user can mend: the message names file or key, the value, and the remedy, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the known name closest to ``word``, or nothing where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
