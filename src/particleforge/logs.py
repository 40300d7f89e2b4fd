"""Logging of stages: progress and warnings into the job's log file, a user's mistake as one line."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from particleforge.errors import UserError

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_terminal(level: int = logging.INFO) -> None:
    """Send the package's log to standard error."""
    logging.basicConfig(level=logging.WARNING, format=_FORMAT, stream=sys.stderr)
    logging.getLogger("particleforge").setLevel(level)


@contextmanager
def job_log(path: str | Path) -> Iterator[None]:
    """Send a job's log to ``path``; a UserError ends the process with its one line in the log and on standard error."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING, format=_FORMAT, handlers=[logging.FileHandler(path, mode="w", encoding="utf-8")])
    logging.captureWarnings(True)
    logger = logging.getLogger("particleforge")
    logger.setLevel(logging.INFO)
    try:
        yield
    except UserError as error:
        logger.error("%s", error)
        sys.exit(f"error: {error}")
    except BaseException:
        logger.exception("the job failed; this is a defect or a fault of the machine, not of the configuration")
        raise
