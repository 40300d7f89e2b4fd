"""One job of a scan: one training of one point.

Inputs -> outputs: training shards, a point and, for fine-tuning, another detector's trained model
-> a JSON file with the point's labels, status, losses, curve and sizes; checkpoints in the work
folder, from which a killed job goes on.

A training's length is given in events seen. The plan of its batches, which needs no event, says
after how many steps that is, so that trainings with other batches or fewer training events see
equally many, to within half a batch.

A training that diverges is a result, since a scan may look for the place where that begins; one
that is interrupted or fails is an error, and its job is to be run again.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from particleforge.artefacts import write_json
from particleforge.config.settings import TrainSettings
from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs, index_files, read_manifest, split_folders
from particleforge.model.network import ParticleFlowNetwork
from particleforge.provenance.record import Provenance
from particleforge.scans.points import ScanPoint, with_steps
from particleforge.scans.results import PointResult
from particleforge.tables.parquet import read_columns
from particleforge.training.budget import events_after_steps, train_loader
from particleforge.training.init_from import read_source
from particleforge.training.launch import TrainingResult, TrainingSpec, run_training

log = logging.getLogger(__name__)

Train = Callable[[TrainingSpec, int], TrainingResult]


def run_scan_training(
    point: ScanPoint,
    *,
    manifest: Path,
    source: Path | None,
    work_dir: Path,
    output: Path,
    train: Train = run_training,
) -> None:
    """Train a point and write its result to ``output``.

    ``train`` is called as ``train(spec, ranks)``.

    ``source`` is the model that a fine-tuned training starts from and whose architecture all
    trainings of that scan have. UserError if there are fewer training events than the point asks
    for, and if the training was interrupted or failed.
    """
    n_train_events = _train_events(point, manifest)
    if source is not None:
        point = _like_source(point, source)
    seen = events_after_steps(train_loader(point.settings, manifest), point.events_seen)
    settings = with_steps(point, len(seen))
    log.info("%s: %d steps, %d events seen of %d", point.name, len(seen), seen[-1], n_train_events)
    result = train(TrainingSpec(settings, manifest, work_dir, len(seen)), settings.training.ranks)
    if result.status not in ("complete", "diverged"):
        raise UserError(
            f"{work_dir}: training {result.status}: {result.reason}; run it again to go on from the"
            " last checkpoint"
        )
    complete = result.status == "complete"
    content = {
        "kind": PointResult.KIND,
        "scan": point.scan,
        "point": point.name,
        "labels": point.labels,
        "status": result.status,
        "reason": result.reason,
        "loss": result.best_valid_loss if complete else None,
        "last_loss": result.valid_loss if complete else None,
        "train_loss": _last_train_loss(result) if complete else None,
        "steps": len(seen),
        "events_seen": int(seen[-1]),
        "train_events": n_train_events,
        "elements_per_batch": settings.training.elements_per_batch,
        "learning_rate": settings.training.learning_rate,
        "parameters": n_parameters(settings, manifest),
        "curve": [[int(step), int(seen[int(step) - 1]), loss] for step, loss in result.valid_curve],
    }
    write_json(output, content)
    made = Provenance.of(
        "run_scan_training",
        {**point.plain(), "seed": point.settings.seed},
        [*index_files(manifest), *([source] if source else [])],
        glanced_at=split_folders(manifest, "train", "valid"),
        part={"scan": point.scan, "point": point.name},
    )
    made.record(output)


def n_parameters(settings: TrainSettings, manifest: Path) -> int:
    """Return the number of weights that are trained."""
    network = ParticleFlowNetwork(settings.model, ModelInputs.from_manifest(manifest))
    return sum(weights.numel() for weights in network.parameters())


def _train_events(point: ScanPoint, manifest: Path) -> int:
    """Return how many events the point trains on.

    A UserError if it asks for more than there are.
    """
    available: int = read_manifest(manifest)["splits"]["train"]["n_events"]
    asked = point.settings.training.max_train_events
    if asked is not None and asked > available:
        raise UserError(
            f"scans.{point.scan}.train_events: {asked}, but {manifest} has {available} events to"
            " train on; lower it, or give more events (simulation.events_per_sample, or files)"
        )
    return asked or available


def _like_source(point: ScanPoint, source: Path) -> ScanPoint:
    """Return the point with the source's architecture and, if it starts from it, with its file."""
    settings = point.settings.model_copy(update={"model": read_source(source).model})
    if point.starts_from_source:
        settings = settings.model_copy(
            update={"training": settings.training.model_copy(update={"init_from": str(source)})}
        )
    return point.model_copy(update={"settings": settings})


def _last_train_loss(result: TrainingResult) -> float | None:
    """Return the mean training loss since the last but one validation."""
    assert result.metrics is not None
    rows: list[dict[str, Any]] = read_columns(result.metrics).to_pylist()
    losses = [row["value"] for row in rows if row["split"] == "train" and row["name"] == "loss"]
    return losses[-1] if losses else None
