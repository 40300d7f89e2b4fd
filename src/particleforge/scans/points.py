"""The trainings that a scan consists of, as a static list with the settings of each.

Inputs -> outputs: the run's configuration -> ``ScanPoint`` by name. A point's settings hold
nothing of the other points, so that a scan with one more point makes that one only.

Scans and sources: ``scaling_batch``, large batches and learning-rate rules (Goyal et al.,
arXiv:1706.02677; LAMB, arXiv:1904.00962); ``fine_tuning``, pre-training on another detector
(arXiv:2503.00131); ``scaling_law``, loss against data and against size of the network (Kaplan et
al., arXiv:2001.08361).

Invariants: all points of a scan see equally many events; training sets of one repeat are nested;
of points that differ in nothing there is one. Light on purpose: the workflow's rules import it
while they are parsed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from particleforge.config.base import Block
from particleforge.config.run import RunConfig
from particleforge.config.scans import ScanConfig, ScanName
from particleforge.config.settings import TrainSettings
from particleforge.config.training import STEPS_FOR, TrainingConfig

Labels = dict[str, int | str]


class ScanPoint(Block):
    """One training of a scan.

    ``labels`` say what distinguishes it from the others. ``settings`` lack the training's length,
    which follows from ``events_seen`` once the data are there, and, if there is a source, the
    architecture, which is the source's.
    """

    version: int = 1
    scan: ScanName
    name: str
    labels: Labels
    settings: TrainSettings
    events_seen: int
    n_validations: int
    warmup_fraction: float
    starts_from_source: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the point as plain JSON values, for params, hashes and provenance."""
        return self.model_dump(mode="json")


def points_of(run: RunConfig, scan: ScanName) -> dict[str, ScanPoint]:
    """Return the trainings of a scan by name."""
    make = {
        "scaling_batch": _scaling_batch,
        "fine_tuning": _fine_tuning,
        "scaling_law": _scaling_law,
    }[scan]
    config: ScanConfig = getattr(run.scans, scan)
    return {point.name: point for repeat in range(config.repeats) for point in make(run, repeat)}


def _scaling_batch(run: RunConfig, repeat: int) -> Iterator[ScanPoint]:
    scan = run.scans.scaling_batch
    for optimiser, rate in scan.learning_rates.items():
        for factor in scan.factors:
            # all rules agree there
            rules = scan.learning_rate_scalings if factor > 1 else scan.learning_rate_scalings[:1]
            for rule in rules:
                own = {
                    "optimiser": optimiser,
                    "learning_rate": rate,
                    "learning_rate_scaling": rule if factor > 1 else "none",
                    "elements_per_batch": factor * scan.elements_per_batch,
                    "reference_elements_per_batch": scan.elements_per_batch,
                    # memory stays that of x1
                    "accumulation_steps": factor * run.training.accumulation_steps,
                }
                labels: Labels = {
                    "optimiser": optimiser,
                    "rule": rule if factor > 1 else "any",
                    "factor": factor,
                }
                name = f"{optimiser}_x{factor}" + (f"_{rule}" if factor > 1 else "")
                yield _point(run, "scaling_batch", name, repeat, labels, training=own)


def _fine_tuning(run: RunConfig, repeat: int) -> Iterator[ScanPoint]:
    scan = run.scans.fine_tuning
    rates = {
        "scratch": run.training.learning_rate,
        "fine_tuned": scan.learning_rate or run.training.learning_rate,
    }
    for events in scan.train_events:
        for start, rate in rates.items():
            own = {"max_train_events": events, "learning_rate": rate}
            labels: Labels = {"start": start, "train_events": events}
            name = f"{start}_{events}"
            yield _point(
                run,
                "fine_tuning",
                name,
                repeat,
                labels,
                training=own,
                starts_from_source=start == "fine_tuned",
            )


def _scaling_law(run: RunConfig, repeat: int) -> Iterator[ScanPoint]:
    scan = run.scans.scaling_law
    for events in scan.train_events:
        labels: Labels = {"axis": "events", "train_events": events}
        yield _point(
            run,
            "scaling_law",
            f"events_{events}",
            repeat,
            labels,
            training={"max_train_events": events},
        )
    for size in scan.model_sizes:
        labels = {
            "axis": "parameters",
            "width": size.width,
            "n_layers": size.n_layers,
            "n_heads": size.n_heads,
        }
        name = f"width_{size.width}_layers_{size.n_layers}_heads_{size.n_heads}"
        yield _point(run, "scaling_law", name, repeat, labels, model=size.model_dump())


def _point(
    run: RunConfig,
    scan: ScanName,
    name: str,
    repeat: int,
    labels: Labels,
    *,
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    starts_from_source: bool = False,
) -> ScanPoint:
    """Return a point with the configured settings but for what is given.

    The first repeat has the run's own seed.
    """
    config: ScanConfig = getattr(run.scans, scan)
    own = {
        "ranks": run.scans.ranks,
        "early_stopping_patience": 0,
        "init_from": None,
        "tracker": "tensorboard",
        **(training or {}),
    }
    settings = TrainSettings(
        seed=run.seed + repeat,
        model=type(run.model)(**{**run.model.model_dump(), **(model or {})}),
        training=_with_length(run.training, own),
    )
    return ScanPoint(
        scan=scan,
        name=f"{name}_{repeat}",
        labels={**labels, "repeat": repeat},
        settings=settings,
        events_seen=config.events_seen,
        n_validations=config.n_validations,
        warmup_fraction=config.warmup_fraction,
        starts_from_source=starts_from_source,
    )


def _with_length(
    training: TrainingConfig, own: Mapping[str, Any], **length: int | None
) -> TrainingConfig:
    """Return training settings with ``own`` laid over them.

    What makes up the length is left out unless it is given.
    """
    open_length = {
        **dict.fromkeys(STEPS_FOR),
        "max_steps": 1,
        "schedule_steps": None,
        "valid_every_steps": 1,
        "checkpoint_every_steps": 1,
        "log_every_steps": 1,
        "warmup_steps": 0,
    }
    return TrainingConfig(**{**training.model_dump(), **open_length, **own, **length})


def with_steps(point: ScanPoint, n_steps: int) -> TrainSettings:
    """Return a point's settings for ``n_steps``: it validates evenly and ends with its schedule."""
    every = -(-n_steps // point.n_validations)
    training = _with_length(
        point.settings.training,
        {},
        max_steps=n_steps,
        valid_every_steps=every,
        checkpoint_every_steps=every,
        log_every_steps=every,
        warmup_steps=round(point.warmup_fraction * n_steps),
    )
    return point.settings.model_copy(update={"training": training})
