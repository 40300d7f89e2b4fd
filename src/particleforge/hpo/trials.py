"""One job of the search as the study records it, free of Optuna.

Samplers and plots read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["running", "complete", "diverged", "failed"]


@dataclass(frozen=True)
class SearchTrial:
    """The trial of one (rung, slot).

    A configuration is named after the slot that it was new in (:func:`config_name`) and
    keeps that name through its promotions, each of which is a trial of its own. ``value`` is the
    validation loss after ``steps`` optimiser steps, None unless ``status`` is "complete"; ``curve``
    maps steps to validation losses on the way there. ``steps`` is 0 until the first job of a trial
    has counted them, where budgets are in events or epochs. ``objectives`` holds what else counts
    (:mod:`particleforge.hpo.objectives`), by name. ``starts`` holds, for each job that began to
    train it and was lost, how many steps had been done; ``began`` is the Unix time at which the
    last job began, None if that ended in good order; ``spent_s`` are the seconds that the jobs
    before it trained. ``seconds`` are those of all jobs of a trial that has ended. ``started`` and
    ``ended`` are the Unix times in seconds of the claim and of the end; nothing is decided by them.
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
    objectives: Mapping[str, float] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    starts: tuple[int, ...] = ()
    began: float | None = None
    spent_s: float = 0.0

    @property
    def slot_id(self) -> tuple[int, int]:
        """The slot: rung, number."""
        return (self.rung, self.slot)

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
    def order_key(self) -> tuple[float, str]:
        """Return the order among the trials of one rung that ended well: by value, then name.

        Names decide ties so that no order depends on timing.
        """
        return (self.loss, self.config)


def config_name(slot: int) -> str:
    """Return the name of the configuration that is new in a slot of the first rung."""
    return f"c{slot:05d}"


# the settings as configured, where ``hpo.include_default`` asks for them
DEFAULT_CONFIG = config_name(0)


def succeeded(trials: Sequence[SearchTrial], rung: int) -> list[SearchTrial]:
    """Return the trials of a rung that ended well, best first."""
    return sorted(
        (t for t in trials if t.rung == rung and t.status == "complete"), key=lambda t: t.order_key
    )


def contenders(trials: Sequence[SearchTrial], rung: int) -> list[SearchTrial]:
    """Return the trials that a slot of a rung may promote, best first.

    They ended well in the rung below, and no slot has promoted them yet. While nothing failed, the
    first lies in the top 1/eta (:mod:`particleforge.hpo.dag`); after failures
    it may be the next best, so that a slot is left empty only if nothing is left to promote.
    """
    promoted = {t.parent for t in trials if t.rung == rung}
    return [t for t in succeeded(trials, rung - 1) if t.number not in promoted]


def failed_fraction(trials: Sequence[SearchTrial]) -> float:
    """Return the share of finished trials that failed or diverged."""
    finished = [t for t in trials if t.finished]
    return sum(t.status != "complete" for t in finished) / len(finished) if finished else 0.0


def furthest(trials: Sequence[SearchTrial]) -> dict[str, SearchTrial]:
    """Return each configuration's trial of the highest rung that ended well, by name.

    Where none did, it is the first rung's trial, running or failed.
    """
    best: dict[str, SearchTrial] = {}
    for trial in sorted(trials, key=lambda t: (t.config, t.rung)):
        if trial.parent is None or trial.status == "complete":
            best[trial.config] = trial
    return best


def furthest_of(trials: Sequence[SearchTrial]) -> dict[str, SearchTrial]:
    """Return, by configuration, its trial of the highest rung that ended well.

    Configurations without one are left out.
    """
    return {
        config: trial for config, trial in furthest(trials).items() if trial.status == "complete"
    }


def in_order(best: Mapping[str, SearchTrial]) -> list[SearchTrial]:
    """Return the trials best first: higher rungs before lower ones, then by loss."""
    return sorted(best.values(), key=lambda trial: (-trial.rung, *trial.order_key))
