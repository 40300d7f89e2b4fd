"""How many optimiser steps a number of events is.

The plan of batches, which needs no event, says it exactly.

Inputs -> outputs: settings and manifest of a training -> its loader; loaders and numbers of events
-> numbers of steps.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from particleforge.config.settings import TrainSettings
from particleforge.config.training import STEPS_FOR
from particleforge.model.inputs import ModelInputs
from particleforge.training.loader import ShardLoader


def train_loader(settings: TrainSettings, manifest: Path) -> ShardLoader:
    """Return the loader whose global batches a training sees, as the only rank."""
    training = settings.training
    return ShardLoader(
        manifest,
        "train",
        ModelInputs.from_manifest(manifest),
        budget=training.elements_per_batch,
        shards_in_memory=training.shuffle_shards,
        seed=settings.seed,
        max_events=training.max_train_events,
    )


def events_after_steps(loader: ShardLoader, events_seen: int) -> npt.NDArray[np.int64]:
    """Return the number of events seen after each step, one step at least.

    Its last value comes nearest to ``events_seen``.
    """
    sizes: list[int] = []
    epoch = total = 0
    while total < events_seen:
        epoch_sizes = [len(batch.events) for batch in loader.plan(epoch)]
        sizes += epoch_sizes
        epoch, total = epoch + 1, total + sum(epoch_sizes)
    seen = np.cumsum(sizes)
    return seen[: max(1, int(np.abs(seen - events_seen).argmin()) + 1)]


def steps_for(loader: ShardLoader, events_seen: float) -> int:
    """Return after how many steps a training comes nearest to a number of events; 0 for none."""
    return steps_until([loader], [events_seen])[0] if events_seen else 0


def with_steps(settings: TrainSettings, manifest: Path) -> TrainSettings:
    """Return the settings of a training with all its lengths in optimiser steps.

    Numbers of events become steps by the plan of the training's own batches.
    """
    training = settings.training
    if training.in_steps:
        return settings
    loader = train_loader(settings, manifest)
    own: dict[str, int | None] = {}
    for events, steps in STEPS_FOR.items():
        amount = getattr(training, events)
        if amount is not None:
            own |= {events: None, steps: steps_for(loader, amount)}
    return settings.model_copy(update={"training": training.model_copy(update=own)})


def steps_until(loaders: Sequence[ShardLoader], events: Sequence[float]) -> list[int]:
    """Return after how many steps a training comes nearest to each of the rising numbers of events.

    The steps up to the k-th number are those of the k-th loader; where the next one is another, it
    begins with a new epoch, as :mod:`particleforge.training.trainer` does. At least one step lies
    between any two.
    """
    found: list[int] = []
    steps, seen, epoch, before = 0, 0, -1, None
    plan: Iterator[tuple[int, int]] = iter(())
    ahead = (0, 0)
    for loader, target in zip(loaders, events, strict=True):
        if loader is not before:
            plan, before = _sizes(loader, epoch + 1), loader
            ahead = next(plan)
        first = True
        while first or abs(seen + ahead[1] - target) < abs(seen - target):
            epoch, size = ahead
            steps, seen, first = steps + 1, seen + size, False
            ahead = next(plan)
        found.append(steps)
    return found


def _sizes(loader: ShardLoader, epoch: int) -> Iterator[tuple[int, int]]:
    """Yield epoch and number of events of every batch, without end."""
    for current in itertools.count(epoch):
        for batch in loader.plan(current):
            yield current, len(batch.events)
