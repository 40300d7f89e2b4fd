"""Stage ``train_model``: the final training, with the settings that the search found best.

Inputs -> outputs: training shards (manifest) and, optionally, ``best.yaml`` of the search ->
``best.pt`` (``model.saved``), the last checkpoint, metrics as Parquet (``training.metrics``) and a
folder of TensorBoard event files; a run of MLflow, if asked for. Checkpoints live in the work
folder, which outlives retries: a killed job goes on where it was.
"""

import logging
import shutil
from pathlib import Path

from particleforge.artefacts import atomic_output
from particleforge.config import load
from particleforge.config.best import BestConfig
from particleforge.config.reader import read_yaml
from particleforge.config.settings import TrainSettings
from particleforge.errors import UserError
from particleforge.model.inputs import index_files, split_folders
from particleforge.provenance.record import Provenance
from particleforge.training.launch import Placement, TrainingSpec, run_training
from particleforge.training.mlflow_run import check_tracker
from particleforge.training.spec import OUT_OF_MEMORY, sources_of

log = logging.getLogger(__name__)


def train_model(
    settings: TrainSettings,
    *,
    manifest: Path,
    best_settings: Path | None,
    work_dir: Path,
    model: Path,
    last: Path,
    metrics: Path,
    tensorboard: Path,
    placement: Placement | None = None,
) -> None:
    """Train to the length that ``settings.training`` gives and hand over the files.

    Divergence and interruption are UserErrors.
    """
    check_tracker(settings.training)
    if best_settings is not None:
        settings = with_best_settings(settings, best_settings)
    own = _with_steps(settings, manifest)
    spec = TrainingSpec(
        own,
        manifest.absolute(),
        work_dir.absolute(),
        own.training.length,
        tensorboard=tensorboard.absolute(),
    )
    made = Provenance.of(  # now: what is read here may be edited while the training runs
        "train_model",
        settings.plain(),
        [
            *index_files(manifest),
            *([best_settings] if best_settings else []),
            *sources_of(settings.training),
        ],
        glanced_at=split_folders(manifest, "train", "valid"),
    )
    result = run_training(spec, settings.training.ranks, placement)
    if result.status != "complete":
        remedy = _REMEDIES[
            OUT_OF_MEMORY if result.reason.startswith(OUT_OF_MEMORY) else result.status
        ]
        raise UserError(f"{work_dir}: training {result.status}: {result.reason}; {remedy}")
    _hand_over(
        (result.best_checkpoint, model), (result.checkpoint, last), (result.metrics, metrics)
    )
    # a stored result, and the folder was removed meanwhile
    if not any(tensorboard.glob("events.out.tfevents.*")):
        from particleforge.training.metrics import ROWS_FILE, read_rows, replay

        replay(read_rows(work_dir / ROWS_FILE), tensorboard)
    log.info("trained %d steps, best validation loss %s", result.step, result.best_valid_loss)
    made.record(model, last, metrics, tensorboard)


_REMEDIES = {
    "diverged": "lower training.learning_rate or training.gradient_clip",
    "interrupted": "run it again to go on",
    OUT_OF_MEMORY: (
        "lower training.elements_per_batch or model.width, or raise resources.train_model.mem_mb"
    ),
    "failed": "see the log above; run it again to go on from the last checkpoint",
}


def _with_steps(settings: TrainSettings, manifest: Path) -> TrainSettings:
    if settings.training.in_steps:
        return settings
    # brings torch, which this process does without otherwise
    from particleforge.training.budget import with_steps

    return with_steps(settings, manifest)


def with_best_settings(settings: TrainSettings, best_settings: Path) -> TrainSettings:
    """Return the settings, overlaid with the blocks of a ``best.yaml``.

    The blocks are ``model`` and ``training``.
    """
    best = load.validate(BestConfig, read_yaml(best_settings), str(best_settings))
    return load.validate(
        TrainSettings,
        load.merge(settings.plain(), {"model": best.model, "training": best.training}),
        str(best_settings),
    )


def _hand_over(*files: tuple[Path | None, Path]) -> None:
    for source, target in files:
        assert source is not None, "a complete training has written all its files"
        with atomic_output(target) as temporary:
            shutil.copyfile(source, temporary)
