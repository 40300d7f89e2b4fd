"""Confirm the best configurations of a finished search from other seeds at the full budget.

Inputs -> outputs: the study, once all slots have run -> one training per (place, seed) in the order
that ``hpo.pick`` prefers, and a JSON file that says what came of it; :func:`with_further_seeds`
adds these files' losses to the contenders.

A training is kept in a folder named after configuration and seed, so a search that has grown trains
only what newly is among the best. Nothing of it enters the study: samplers and promotions never see
it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from particleforge.artefacts import explaining, write_json
from particleforge.config.settings import SelectBestSettings
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.budgets import lengths_of
from particleforge.hpo.objectives import Contender, preferred, top_contenders, with_costs
from particleforge.hpo.slot import NO_CONTENDER, Train, check_slots
from particleforge.hpo.space import trial_settings
from particleforge.hpo.study import Study, open_study
from particleforge.hpo.trials import SearchTrial
from particleforge.model.inputs import index_files, split_folders
from particleforge.provenance.record import Provenance
from particleforge.seeds import seed_of
from particleforge.stored import Stored, read_stored
from particleforge.training.launch import TrainingResult, TrainingSpec, run_training
from particleforge.training.spec import sources_of

log = logging.getLogger(__name__)


class ConfirmationFile(Stored):
    """What is read of the result of a training from a further seed."""

    KIND = "confirmation"
    REMEDY = "delete it and run confirm_trial again"
    MAY_LACK_KIND: ClassVar[bool] = True
    study: str
    place: int
    seed: int
    config: str | None
    value: float | None


def confirm_trial(
    settings: SelectBestSettings,
    *,
    slots: Sequence[Path],
    work_dir: Path,
    manifest: Path,
    place: int,
    seed: int,
    output: Path,
    train: Train = run_training,
) -> None:
    """Train the configuration at ``place`` from a further seed and write the result.

    The best has place 0; ``seed`` counts further seeds from 1.

    A training that diverges or fails is a result, too. UserError if it was interrupted: the job is
    to be run again and goes on.
    """
    study = open_study(settings, manifest, work_dir)
    check_slots(slots, study)
    finished = with_costs([t for t in study.trials() if t.finished], settings, manifest)
    in_order = preferred(top_contenders(finished), settings.hpo)
    told = {
        "kind": ConfirmationFile.KIND,
        "study": study.name,
        "place": place,
        "seed": seed,
    }
    if place >= len(in_order):
        reason = f"configurations that reached the last budget: {len(in_order)}"
        log.warning("%s stays empty: %s", output, reason)
        told |= {"status": NO_CONTENDER, "reason": reason}
        write_json(output, told | dict.fromkeys(("config", "steps", "value", "seconds")))
    else:
        trial = in_order[place].trial
        own = settings.model_copy(update={"seed": further_seed(settings.seed, seed)})
        folder = work_dir / study.name / f"confirm-{trial.config}-{seed}"
        with explaining(folder):
            result = _train(own, trial, folder, manifest, train)
        if result.status == "interrupted":
            raise UserError(
                f"{folder}: training interrupted at step {result.step} of {trial.steps}:"
                f" {result.reason}; run it again"
            )
        value = result.valid_loss if result.status == "complete" else None
        told |= {
            "status": result.status,
            "reason": result.reason,
            "config": trial.config,
            "steps": trial.steps,
        }
        write_json(output, {**told, "value": value, "seconds": result.seconds})
    made = Provenance.of(
        "confirm_trial",
        settings.plain(),
        [*index_files(manifest), *slots, *sources_of(settings.training)],
        glanced_at=split_folders(manifest, "train", "valid"),
        part={"place": place, "seed": seed},
    )
    made.record(output)


def _train(
    settings: SelectBestSettings, trial: SearchTrial, folder: Path, manifest: Path, train: Train
) -> TrainingResult:
    """Train to the trial's budget in one go, or rung by rung with ``rasda``, whose batches grow."""
    hpo = settings.hpo
    lengths = lengths_of(settings, trial.params, manifest)
    stages = (
        [(rung, folder / str(rung)) for rung in range(trial.rung + 1)]
        if hpo.scheduler == "rasda"
        else [(trial.rung, folder)]
    )
    checkpoint = None
    for rung, stage_folder in stages:
        own = trial_settings(settings, trial.params, rung, lengths)
        limit = hpo.slot_minutes_max and 60 * hpo.slot_minutes_max
        spec = TrainingSpec(
            own, manifest, stage_folder, lengths.ends[rung], checkpoint, time_limit_s=limit
        )
        result = train(spec, dag.ranks(hpo, trial.rung))
        checkpoint = result.checkpoint
        if result.status != "complete":
            break
    return result


def check_confirmations(files: Sequence[Path], study: Study) -> None:
    """Raise a UserError unless the trainings from further seeds belong to a study."""
    for path in files:
        made_by = read_stored(path, ConfirmationFile).study
        if made_by != study.name:
            raise UserError(
                f"{path}: made by study {made_by}, but the settings and data belong to study"
                f" {study.name}; run the slots again"
            )


def further_seed(seed: int, number: int) -> int:
    """Return the ``number``-th further seed of a search whose own is ``seed``."""
    return seed_of(seed, "hpo", "confirm", number) % 2**31


def with_further_seeds(contenders: Sequence[Contender], files: Sequence[Path]) -> list[Contender]:
    """Return the contenders that were trained from further seeds, with their losses.

    All, unchanged, if there are no files.
    """
    told: dict[str, dict[int, ConfirmationFile]] = {}
    for path in files:
        found = read_stored(path, ConfirmationFile)
        if found.config is not None:
            told.setdefault(found.config, {})[found.seed] = found
    if not told:
        return list(contenders)
    confirmed = []
    for contender in contenders:
        runs = [run for _, run in sorted(told.get(contender.trial.config, {}).items())]
        if runs:
            values = [run.value for run in runs if run.value is not None]
            confirmed.append(
                replace(
                    contender,
                    losses=(contender.trial.loss, *values),
                    failures=len(runs) - len(values),
                )
            )
    return confirmed
