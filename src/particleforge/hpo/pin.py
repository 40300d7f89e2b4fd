"""Which trials ``hpo.pin_trial`` names, and why it may name none that could win.

Asked when the winner is chosen and, by the table of the last search, when the workflow is parsed:
Snakemake deletes the old ``best.yaml`` before the job that would refuse a wrong pin starts. Light
on purpose: the workflow's rules import it while they are parsed.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from particleforge.config.run import RunConfig
from particleforge.errors import UserError, did_you_mean
from particleforge.paths import Paths


class Pinnable(NamedTuple):
    """What a pin asks of a trial."""

    number: int
    config: str
    status: str
    reason: str | None


def check_pin(pin: int | str, trials: Sequence[Pinnable], table: str = "trials.csv") -> None:
    """Raise a UserError unless ``pin``, a number or name, is of a trial that ended well."""
    named = [t for t in trials if pin in (t.number, t.config)]
    if not named:
        known = sorted({t.config for t in trials})
        what = (
            f"no trial has this number (0 to {len(trials) - 1})"
            if isinstance(pin, int)
            else "no such configuration"
        )
        raise UserError(
            f"hpo.pin_trial: {pin!r}: {what}; {table} has all{did_you_mean(str(pin), known)}"
        )
    if not any(t.status == "complete" for t in named):
        raise UserError(
            f"hpo.pin_trial: {pin!r}: trial {named[0].number} {named[0].status}: {named[0].reason};"
            " pin one that ended well"
        )


def check_pin_of(run: RunConfig, paths: Paths) -> None:
    """Raise a UserError for a pin that the table of some detector's last search refuses."""
    pin = run.hpo.pin_trial
    if pin is None:
        return
    for name in run.detector:
        table = Path(paths.hpo_trials.format(detector=name))
        if table.is_file():
            check_pin(pin, _read(table), str(table))


def _read(table: Path) -> list[Pinnable]:
    try:
        with table.open(encoding="utf-8", newline="") as rows:
            return [
                Pinnable(int(row["trial"]), row["config"], row["status"], row["reason"])
                for row in csv.DictReader(rows)
            ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{table}: not a table of trials ({error!r}); delete it, so that it is written anew"
        ) from error
