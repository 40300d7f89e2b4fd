"""Logging of stages: progress and warnings into the job's log, a user's mistakes as one line."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from particleforge.addresses import masked
from particleforge.errors import UserError, explained
from particleforge.progress import hidden, write_beside_bars
from particleforge.provenance.started import check_code

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_INTERRUPTED = 130  # exit status, as shells have it
_DONE = "done"  # the last line of a finished job's log


def log_to_terminal(level: int = logging.INFO) -> None:
    """Send the package's log to standard error."""
    _log_to(_Terminal(sys.stderr))
    logging.getLogger("particleforge").setLevel(level)


@contextmanager
def quiet() -> Iterator[None]:
    """Pass over warnings."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on standard error where the user can mend what went wrong."""
    try:
        yield
    except (UserError, OSError) as error:
        problem = _mendable(error)
        if problem is None:
            raise
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped from the keyboard; run it again to go on\n")
        sys.exit(_INTERRUPTED)


@contextmanager
def job_log(path: str | Path) -> Iterator[None]:
    """Send a job's log to ``path``.

    What the user can mend ends the process with one line in the log and on standard error; so does
    code that changed since the run of this job was started.
    """
    with one_line_errors(), hidden():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _log_to(_LogFile(path, mode="w", encoding="utf-8"))
        logging.captureWarnings(True)
        logger = logging.getLogger("particleforge")
        logger.setLevel(logging.INFO)
        try:
            check_code()
            yield
        except KeyboardInterrupt:
            logger.error("stopped from the keyboard; run it again to go on")
            raise
        except BaseException as error:
            problem = _mendable(error)
            if problem is None:
                logger.exception(
                    "the job failed; this is a defect or a fault of the machine, not of the"
                    " configuration"
                )
            else:
                logger.error("%s", problem)
            raise
        logger.info(_DONE)


def ended_well(path: str | Path) -> bool:
    """Return whether a job's log is that of a finished job.

    The log of one that failed or was killed is not.
    """
    return Path(path).read_text(encoding="utf-8", errors="replace").rstrip().endswith(f": {_DONE}")


def last_error(path: str | Path) -> str:
    """Return the last error in a job's log, on one line.

    Nothing if the job left no log or no error.
    """
    if not Path(path).exists():
        return ""
    errors = [
        line
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        if " ERROR " in line
    ]
    return errors[-1].partition(" ERROR ")[2].partition(": ")[2] if errors else ""


def _mendable(error: BaseException) -> UserError | None:
    if isinstance(error, OSError):
        return explained(error, "a file of this job")
    return error if isinstance(error, UserError) else None


def _log_to(handler: logging.Handler) -> None:
    handler.setFormatter(_Formatter(_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _Formatter(logging.Formatter):
    """Lines and tracebacks without the passwords and tokens of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        """Return what is written of a record."""
        return masked(super().format(record))


class _Terminal(logging.StreamHandler[TextIO]):
    """Standard error, on which lines stand above the bars of ``progress``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        with write_beside_bars():
            super().emit(record)


class _LogFile(logging.FileHandler):
    """A log that a full disk silences.

    Logging's own tracebacks would bury the job's one line on standard error.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Pass over what the file system refuses."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
