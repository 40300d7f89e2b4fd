"""How a search stands, as data and as the lines that ``particleforge hpo-status`` prints."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from particleforge.hpo.trials import DEFAULT_CONFIG
from particleforge.pages.terminal import table_lines

_WIDTH = 120
LISTED = 5  # trials or reasons per list


@dataclass(frozen=True)
class RungProgress:
    """Trials of one rung.

    ``slots`` is None if the settings of the search are unknown.
    """

    rung: int
    budget: str
    slots: int | None
    complete: int
    running: int
    failed: int
    best_loss: float | None
    best_config: str | None


@dataclass(frozen=True)
class BestSoFar:
    """The best trial of the highest rung, and the configured settings to compare.

    These are at the highest rung that both have.
    """

    trial: int
    config: str
    steps: int
    loss: float
    params: Mapping[str, Any]
    configured: Mapping[str, Any]
    default_steps: int | None = None
    default_loss: float | None = None
    loss_at_default_steps: float | None = None


@dataclass(frozen=True)
class RunningTrial:
    """A trial that was claimed and has not ended."""

    trial: int
    config: str
    rung: int
    slot: int
    steps: int
    checkpoint_step: int | None
    since_start_s: float | None
    since_checkpoint_s: float | None


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended."""

    trial: int
    config: str
    rung: int
    steps: int
    loss: float | None
    reason: str
    since_end_s: float | None


@dataclass(frozen=True)
class Progress:
    """State of one study.

    ``rank_hours`` are those of the trainings that have ended, None if the ranks are unknown.
    """

    study: str
    storage: str
    search: str
    rungs: Sequence[RungProgress]
    best: BestSoFar | None
    running: Sequence[RunningTrial]
    last: Sequence[EndedTrial]
    failures: Mapping[str, Sequence[int]]
    elapsed_s: float
    rank_hours: float | None
    notes: Sequence[str] = field(default_factory=tuple)

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return lines for a terminal."""
        lines = [self._headline(), *self.notes, "", *self._table(), ""]
        lines += [*self._best(), *self._lists()]
        return "\n".join(
            line.rstrip() if len(line) <= _WIDTH else f"{line[: _WIDTH - 4]} ..." for line in lines
        )

    def _headline(self) -> str:
        complete, running, failed = (
            sum(getattr(r, name) for r in self.rungs) for name in ("complete", "running", "failed")
        )
        slots = [r.slots for r in self.rungs if r.slots is not None]
        of = f" of {sum(slots)} slots" if slots else ""
        cost = "" if self.rank_hours is None else f", {self.rank_hours:.3g} rank hours"
        return (
            f"study {self.study}{self.search}: {complete + failed}{of} ended ({failed} failed),"
            f" {running} running; {_duration(self.elapsed_s)}{cost}"
        )

    def _table(self) -> list[str]:
        heads = (
            "rung",
            "budget",
            "slots",
            "complete",
            "running",
            "failed",
            "to come",
            "best loss",
            "configuration",
        )
        rows = [heads]
        for r in self.rungs:
            left = (
                "-" if r.slots is None else str(max(0, r.slots - r.complete - r.running - r.failed))
            )
            best = ("-", "-") if r.best_loss is None else (f"{r.best_loss:.5g}", str(r.best_config))
            counts = (
                r.rung,
                r.budget,
                "-" if r.slots is None else r.slots,
                r.complete,
                r.running,
                r.failed,
            )
            rows.append((*map(str, counts), left, *best))  # type: ignore[arg-type]
        return table_lines(rows, right=range(len(heads)))

    def _best(self) -> list[str]:
        if self.best is None:
            return ["no training has ended well yet"]
        best = self.best
        lines = [
            f"best: configuration {best.config}, trial {best.trial}: validation loss"
            f" {best.loss:.5g} after {best.steps} steps"
        ]
        if best.config == DEFAULT_CONFIG and best.params == best.configured:
            lines[0] += ", the configured settings"
        elif best.default_loss is not None and best.loss_at_default_steps is not None:
            change = (
                f" ({best.loss_at_default_steps / best.default_loss - 1:+.1%})"
                if best.default_loss
                else ""
            )
            lines.append(
                f"  after {best.default_steps} steps: {best.loss_at_default_steps:.5g}, configured"
                f" settings {best.default_loss:.5g}{change}"
            )
        changes = []
        for path, value in best.params.items():
            before = best.configured[path]
            changes.append(
                f"{path} = {_value(value)}"
                + ("" if value == before else f" (configured: {_value(before)})")
            )
        return lines + textwrap.wrap(
            ", ".join(changes),
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )

    def _lists(self) -> list[str]:
        lines: list[str] = []
        if self.running:
            lines += ["", "running:", *_first(self.running, _running_line)]
        if self.last:
            lines += ["", "ended last:", *_first(self.last, _ended_line)]
        if self.failures:
            order = sorted(self.failures.items(), key=lambda entry: (-len(entry[1]), entry[0]))
            lines += [
                "",
                "failed:",
                *_first(
                    order,
                    lambda entry: (
                        f"{len(entry[1])} x {entry[0]} (trial {', '.join(map(str, entry[1][:8]))})"
                    ),
                ),
            ]
        return lines


def _running_line(trial: RunningTrial) -> str:
    at = (
        ""
        if trial.checkpoint_step is None
        else f", checkpoint at {trial.checkpoint_step} ({_duration(trial.since_checkpoint_s)} old)"
    )
    slot = f"rung {trial.rung}, slot {trial.slot}"
    # budgets in epochs or events are counted when the training begins
    to = f"to {trial.steps} steps, " if trial.steps else ""
    return (
        f"trial {trial.trial}, configuration {trial.config} ({slot}): {to}begun"
        f" {_duration(trial.since_start_s)} ago{at}"
    )


def _ended_line(trial: EndedTrial) -> str:
    outcome = (
        trial.reason or "failed" if trial.loss is None else f"validation loss {trial.loss:.5g}"
    )
    ago = "" if trial.since_end_s is None else f", {_duration(trial.since_end_s)} ago"
    return f"trial {trial.trial}, configuration {trial.config}: {trial.steps} steps, {outcome}{ago}"


def _first(entries: Sequence[Any], line: Any) -> list[str]:
    shown = [f"  {line(entry)}" for entry in entries[:LISTED]]
    return shown if len(entries) <= LISTED else [*shown, f"  and {len(entries) - LISTED} more"]


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
