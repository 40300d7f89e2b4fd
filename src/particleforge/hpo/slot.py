"""One job of the search: one slot of one rung is one Optuna trial is one training.

Inputs -> outputs: the shared study and the training shards -> the trial's record in the study, its
checkpoints in the work folder, and a JSON file that says what happened.

A first-rung slot trains a new configuration from scratch; a slot above it promotes a trial and goes
on from that trial's checkpoint, which stays where it is. A job that was killed finds its own
unfinished trial by its slot and goes on from that trial's last checkpoint; one whose trial has
ended writes its file again. A training that diverges or fails is a failed trial, not a failed job.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from particleforge.artefacts import explaining, write_json
from particleforge.config.settings import HpoSettings
from particleforge.errors import UserError
from particleforge.hpo.budgets import lengths_of
from particleforge.hpo.dag import Slot
from particleforge.hpo.objectives import INFERENCE_GFLOP, inference_gflop
from particleforge.hpo.space import trial_settings
from particleforge.hpo.study import Study, open_study
from particleforge.hpo.transfer import configurations
from particleforge.hpo.trials import SearchTrial, failed_fraction, succeeded
from particleforge.model.inputs import index_files, split_folders
from particleforge.provenance.record import Provenance
from particleforge.stored import Stored, read_stored
from particleforge.training.launch import TrainingResult, TrainingSpec, run_training
from particleforge.training.spec import last_saved, newest_step, sources_of

log = logging.getLogger(__name__)


class SlotFile(Stored):
    """What is read of the result of a slot."""

    KIND = "slot"
    REMEDY = "delete it and run the slot again"
    MAY_LACK_KIND: ClassVar[bool] = True
    study: str
    rung: int
    slot: int
    trial: int | None
    config: str | None

    @property
    def slot_id(self) -> tuple[int, int]:
        """Rung and slot."""
        return self.rung, self.slot


Train = Callable[[TrainingSpec, int], TrainingResult]
NO_CONTENDER = "no_contender"
LOST = "lost"  # how the reason of such a failure begins


def run_hpo_slot(
    settings: HpoSettings,
    slot: Slot,
    *,
    manifest: Path,
    work_dir: Path,
    output: Path,
    parents: Sequence[Path] = (),
    warm_start: Sequence[Path] = (),
    train: Train = run_training,
) -> None:
    """Run one slot of a search and write its result to ``output``.

    ``train`` is called as ``train(spec, ranks)``.

    ``parents`` are the results that the slot has waited for; they go into its record of provenance,
    as does ``warm_start``, results of other searches to begin with
    (:mod:`particleforge.hpo.transfer`). UserError if nothing can be promoted because too many
    trials failed, and if the training was interrupted (a signal, the end of the job's time): the
    job is to be run again and goes on where it stopped.
    """
    rung, number = slot
    with explaining(work_dir):  # Optuna's journal names no file when the disk is full
        study = open_study(settings, manifest, work_dir)
        told = [(path, read_stored(path, SlotFile)) for path in parents]
        check_trials_are_there([one for one in told if one[1].study == study.name], study)
        trial = study.claim(rung, number, configurations(warm_start, settings))
        if trial is None:
            _check_failures(study, rung)
            write_json(output, _empty_slot(study, rung, number))
        else:
            log.info("%s: configuration %s: %s", output, trial.config, dict(trial.params))
            if not trial.finished:
                trial = _train(study, trial, manifest, train)
            write_json(output, _result(study, trial))
    made = Provenance.of(
        "run_hpo_slot",
        settings.plain(),
        [*index_files(manifest), *parents, *warm_start, *sources_of(settings.training)],
        glanced_at=split_folders(manifest, "train", "valid"),
        part={"rung": rung, "slot": number},
    )
    made.record(output)


def _train(study: Study, trial: SearchTrial, manifest: Path, train: Train) -> SearchTrial:
    """Train to the end of the trial's rung and record how it went.

    Jobs that were lost too often at one step are a failure.
    """
    hpo = study.settings.hpo
    try:
        lengths = lengths_of(study.settings, trial.params, manifest)
        own = trial_settings(study.settings, trial.params, trial.rung, lengths)
    except ValidationError as error:
        reason = f"settings refused: {error.errors()[0]['msg']}"
        return study.finish(trial, status="failed", reason=reason)
    spec = TrainingSpec(
        settings=own,
        manifest=manifest,
        work_dir=study.folder(trial),
        until_step=lengths.ends[trial.rung],
        parent_checkpoint=_parent_checkpoint(study, trial),
        time_limit_s=hpo.slot_minutes_max and 60 * hpo.slot_minutes_max,
    )
    done, lost_s = newest_step(spec.work_dir), _lost_s(trial, spec)
    if trial.starts[-hpo.attempts_max :] == (done,) * hpo.attempts_max:
        reason = (
            f"{LOST}: {hpo.attempts_max} jobs ended without a word after step {done}; their logs"
            " and the cluster's may say why"
        )
        return study.finish(trial, status="failed", reason=reason, seconds=lost_s)
    trial = study.begin(trial, spec.until_step, done, lost_s)
    started = time.monotonic()
    try:
        result = train(replace(spec, spent_s=trial.spent_s), own.training.ranks)
    except (Exception, KeyboardInterrupt):
        study.stopped(trial, time.monotonic() - started)
        raise
    if result.status == "interrupted":
        study.stopped(trial, result.seconds)
        where = f"{spec.work_dir}: training interrupted at step {result.step} of {trial.steps}"
        raise UserError(f"{where}: {result.reason}; run it again to go on from there")
    asked = INFERENCE_GFLOP in study.settings.hpo.objectives
    return study.finish(
        trial,
        status=result.status,
        reason=result.reason,
        value=result.valid_loss,
        curve={int(step): loss for step, loss in result.valid_curve},
        seconds=result.seconds,
        checkpoint=result.checkpoint,
        objectives={INFERENCE_GFLOP: inference_gflop(own.model, manifest)} if asked else None,
    )


def _lost_s(trial: SearchTrial, spec: TrainingSpec) -> float:
    """Return the seconds to the last checkpoint of the trial's last job if killed, else 0."""
    saved = last_saved(spec.work_dir)
    if trial.began is None or saved is None:
        return 0.0
    stored = TrainingResult.read(spec.work_dir, spec.identity(), spec.until_step)
    if stored is not None and stored.status in ("complete", "diverged"):
        return 0.0  # killed after its training: what is stored tells the seconds once more
    return max(0.0, saved - trial.began)


def _parent_checkpoint(study: Study, trial: SearchTrial) -> Path | None:
    if trial.parent is None:
        return None
    parent = next(t for t in study.trials() if t.number == trial.parent)
    assert parent.checkpoint is not None
    path = study.work_dir / parent.checkpoint
    if not path.exists():
        raise UserError(
            f"{path}: the checkpoint that trial {trial.number} goes on from is gone; remove"
            f" {study.work_dir} to search anew"
        )
    return path


def _check_failures(study: Study, rung: int) -> None:
    """Raise a UserError if a slot is left empty by more failures than the configuration accepts."""
    below = [t for t in study.trials() if t.rung == rung - 1]
    failed, allowed = failed_fraction(below), study.settings.hpo.failed_fraction_max
    if failed > allowed:
        raise UserError(
            f"hpo: {failed:.0%} of the trials of rung {rung - 1} failed, more than"
            f" hpo.failed_fraction_max = {allowed:.0%}, and none is left to promote; last reason:"
            f" {next((t.reason for t in reversed(below) if t.reason), 'unknown')}; narrow hpo.space"
        )


def _result(study: Study, trial: SearchTrial) -> dict[str, Any]:
    return {
        "kind": SlotFile.KIND,
        "study": study.name,
        "rung": trial.rung,
        "slot": trial.slot,
        "status": trial.status,
        "reason": trial.reason,
        "trial": trial.number,
        "config": trial.config,
        "parent": trial.parent,
        "params": dict(trial.params),
        "steps": trial.steps,
        "value": trial.value,
        "seconds": trial.seconds,
    }


def _empty_slot(study: Study, rung: int, slot: int) -> dict[str, Any]:
    below = [t for t in study.trials() if t.rung == rung - 1]
    n_good = len(succeeded(below, rung - 1))
    reason = (
        f"of {len(below)} trials of rung {rung - 1}, {n_good} ended well, and none of those is left"
        " to promote"
    )
    log.warning("rung %d, slot %d stays empty: %s", rung, slot, reason)
    absent = dict.fromkeys(("trial", "config", "parent", "params", "steps", "value", "seconds"))
    at = {"rung": rung, "slot": slot}
    return {
        "kind": SlotFile.KIND,
        "study": study.name,
        **at,
        "status": NO_CONTENDER,
        "reason": reason,
        **absent,
    }


def check_slots(slots: Sequence[Path], study: Study) -> None:
    """Raise a UserError unless the results of all slots belong to a study, which has their trials.

    A study that lacks them has lost its journal.
    """
    found = [(path, read_stored(path, SlotFile)) for path in slots]
    for path, told in found:
        if told.study != study.name:
            raise UserError(
                f"{path}: made by study {told.study}, but the settings and data belong to study"
                f" {study.name}; run the slots again"
            )
    check_trials_are_there([one for one in found if one[1].study == study.name], study)


def check_trials_are_there(found: Sequence[tuple[Path, SlotFile]], study: Study) -> None:
    """Raise a UserError if a study lacks trials that results of its slots tell of."""
    known = {(*trial.slot_id, trial.config) for trial in study.trials()}
    for path, told in found:
        if told.trial is not None and (*told.slot_id, told.config) not in known:
            raise UserError(
                f"{study.where}: lacks the trial that {path} tells of, so it was emptied, lost or"
                f" exchanged; put it back from a copy, or remove {study.work_dir} and the slots'"
                " results to search anew"
            )
