"""The search's journal, opened with its lines checked.

Inputs -> outputs: ``journal.log``, an append-only file of Optuna's -> its storage. A damaged line,
or one that does not follow from those before it, is a UserError that names file and line: whoever
went on without it would search on what is not true. A last line that a killed writer left half
written is none (``study`` mends it).
"""

import json
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from particleforge.errors import UserError
from particleforge.stored import check_regular

JOURNAL = "journal.log"


def open_journal(journal: Path, lock: Any = None) -> JournalStorage:
    """Return the storage in a journal, which is made where there is none."""
    _check_lines(journal)
    try:
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
    except OSError:
        raise
    except Exception as error:  # Optuna replays the records and trips over what does not fit
        raise UserError(
            f"{journal}: its records do not fit together ({error!r}); {_remedy(journal)}"
        ) from error


def _check_lines(journal: Path) -> None:
    if not journal.exists():
        return
    check_regular(journal)
    with journal.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                fits = isinstance(record["op_code"], int) and isinstance(record["worker_id"], str)
            except (ValueError, LookupError, TypeError, RecursionError):
                fits = False
            if not fits:
                raise UserError(
                    f"{journal}: line {number} is no record of a search; {_remedy(journal)}"
                )


def _remedy(journal: Path) -> str:
    return f"put the file back from a copy, or remove {journal.parent} to search anew"
