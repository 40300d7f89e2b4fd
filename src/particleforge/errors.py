"""The one exception that a user's mistake or a broken input raises.

Its message is a single line that names the file or key, what is wrong and the remedy. Command line and
workflow scripts print it without a traceback; anything else that is raised is a defect of the package.
"""


class UserError(Exception):
    """A problem the user can mend: the message names file or key, the value, and the remedy, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
