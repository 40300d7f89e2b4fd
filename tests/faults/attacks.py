"""Attacks on what the package reads: what one attempt came to, and how they are counted.

A *kind* is a class with ``attempt(number)``, from ``attack_config``, ``attack_stored``,
``attack_server`` or ``attack_kills``: what is done follows from the number alone, so that one that
failed can be repeated by hand. ``benchmarks/attack.py`` makes thousands, the suite a few.
"""

import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from particleforge.errors import UserError, explained

REFUSED, SURVIVED, TRACEBACK, SILENT = "refused", "survived", "tracebacks", "silent"
BYTES = ("truncated", "flipped", "overwritten", "moved", "emptied", "no such file")


@dataclass
class Count:
    """Outcomes of one kind, and the failures among them: number -> what was said."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)

    def plain(self) -> dict[str, int]:
        return {
            "attempts": self.outcomes.total(),
            **{name: self.outcomes[name] for name in (REFUSED, SURVIVED, TRACEBACK, SILENT)},
        }


class _Told(logging.Handler):
    """Counts warnings: a change that one of them names is not silent."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.number = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.number += 1


@contextmanager
def _listening() -> Iterator[_Told]:
    logger, told = logging.getLogger("particleforge"), _Told()
    logger.addHandler(told)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield told
    finally:
        logger.removeHandler(told)
        logger.propagate = propagated


def outcome(use: Callable[[], str]) -> tuple[str, str]:
    """Return what ``use`` came to; it returns "" or the rule that is violated in what it made."""
    with _listening() as told:
        try:
            violated = use()
        except UserError as error:
            lines = str(error).strip().splitlines()
            return (REFUSED, lines[0]) if len(lines) == 1 else (TRACEBACK, f"lines: {error}")
        except OSError as error:
            if (line := explained(error, "a file")) is not None:
                return REFUSED, str(line)
            return TRACEBACK, traceback.format_exc()
        except Exception:
            return TRACEBACK, traceback.format_exc()
    return (SILENT, violated) if violated and not told.number else (SURVIVED, violated)


def count(attempt: Callable[[int], tuple[str, str]], numbers: Iterator[int] | range) -> Count:
    """Return the outcomes of the attempts of these numbers."""
    found = Count()
    for number in numbers:
        what, said = attempt(number)
        found.outcomes[what] += 1
        if what in (TRACEBACK, SILENT):
            found.failures[number] = said
    return found


def spoiled(sound: bytes, how: str, rng: random.Random) -> bytes | None:
    """Return bytes that were changed; None where the file is to be missing."""
    if how == "no such file":
        return None
    if how == "emptied" or not sound:
        return b""
    place, length = rng.randrange(len(sound)), rng.randrange(1, 64)
    if how == "truncated":
        return sound[:place]
    if how == "flipped":
        changed = bytearray(sound)
        for one in (rng.randrange(len(sound)) for _ in range(rng.randrange(1, 5))):
            changed[one] ^= rng.randrange(1, 256)
        return bytes(changed)
    if how == "overwritten":
        filling = (bytes(length), b"\xff" * length, rng.randbytes(length))[rng.randrange(3)]
        return sound[:place] + filling + sound[place + length :]
    doubled = sound[place : place + length] * (2 if rng.random() < 0.5 else 0)
    return sound[:place] + doubled + sound[place + length :]
