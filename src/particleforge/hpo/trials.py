"""One job of the search as the study records it, free of Optuna: what the promotion rule, the samplers and the plots read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["running", "complete", "diverged", "failed"]


@dataclass(frozen=True)
class SearchTrial:
    """The trial of one (rung, slot).

    A configuration is named after its first-rung slot and keeps that name through its promotions, each of which is a
    trial of its own. ``value`` is the validation loss after ``steps`` optimiser steps, None unless ``status`` is
    "complete"; ``curve`` maps steps to validation losses on the way there.
    """

    number: int
    config: str
    rung: int
    slot: int
    parent: int | None
    steps: int
    params: Mapping[str, Any]
    status: Status = "running"
    value: float | None = None
    reason: str = ""
    seconds: float | None = None
    checkpoint: str | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the training has ended, well or not."""
        return self.status != "running"

    @property
    def loss(self) -> float:
        """The value of a trial that ended well."""
        assert self.value is not None, f"trial {self.number} is {self.status}"
        return self.value

    @property
    def rank_key(self) -> tuple[float, str]:
        """Order among the trials of one rung that ended well: by value, ties by name so that no order depends on timing."""
        return (self.loss, self.config)


def succeeded(trials: Sequence[SearchTrial], rung: int) -> list[SearchTrial]:
    """Return the trials of a rung that ended well, best first."""
    return sorted((t for t in trials if t.rung == rung and t.status == "complete"), key=lambda t: t.rank_key)


def candidate(trials: Sequence[SearchTrial], rung: int) -> SearchTrial | None:
    """Return the trial that a new slot of ``rung`` promotes: the best of the rung below that was not promoted yet.

    While nothing failed it lies in the top 1/eta of its rung (see :mod:`particleforge.hpo.dag`); after failures it may be
    the next best, so that a slot is left empty only if nothing is left to promote.
    """
    promoted = {t.parent for t in trials if t.rung == rung}
    return next((t for t in succeeded(trials, rung - 1) if t.number not in promoted), None)


def failed_fraction(trials: Sequence[SearchTrial]) -> float:
    """Return the share of finished trials that failed or diverged."""
    finished = [t for t in trials if t.finished]
    return sum(t.status != "complete" for t in finished) / len(finished) if finished else 0.0


def furthest(trials: Sequence[SearchTrial]) -> dict[str, SearchTrial]:
    """Return, by configuration in order of their names, the trial of the highest rung that ended well.

    Failing that, the first rung's trial, running or failed.
    """
    best: dict[str, SearchTrial] = {}
    for trial in sorted(trials, key=lambda t: (t.config, t.rung)):
        if trial.rung == 0 or trial.status == "complete":
            best[trial.config] = trial
    return best
