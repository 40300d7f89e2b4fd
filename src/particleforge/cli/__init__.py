"""Command line: every stage on files of your own, by the functions that the workflow calls."""

from particleforge.cli import sharing, stages, tools  # noqa: F401  they add their commands to app
from particleforge.cli.options import app
from particleforge.logs import log_to_terminal, one_line_errors

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 1."""
    log_to_terminal()
    with one_line_errors():
        app()
