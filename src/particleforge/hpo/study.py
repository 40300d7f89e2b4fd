"""The record that all jobs of a search share: an Optuna study with a trial per slot.

A slot is one of (rung, slot).

By default the study is an Optuna journal, an append-only file in the search's work folder. Its
lock, and the one that makes a claim atomic, are those of :mod:`particleforge.hpo.lock`. Any other
Optuna storage can be named in ``hpo.storage_url``; the work folder, with checkpoints and the
claim's lock, must be shared by all jobs anyway.

Invariants:

* A trial is created by one record of the journal that already holds its slot, its parent and its
  parameters, while the claim's lock is held: a job killed at any moment leaves either no trial or a
  complete claim, and no two jobs claim one.
* The study is named after what its values depend on (:func:`identity`); of several studies of that
  name the first whose space the present one contains is continued. So more slots, more rungs (at a
  fixed ``hpo.schedule_steps``), added or widened parameters go on with what is there, and anything
  else starts anew.
"""

import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from particleforge.artefacts import settings_hash
from particleforge.config.settings import HpoSettings
from particleforge.config.space import ParameterConfig
from particleforge.config.space_checks import DECIDED_BY_SEARCH
from particleforge.config.training import STEPS_FOR
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.budgets import Lengths
from particleforge.hpo.journal import JOURNAL, open_journal
from particleforge.hpo.lock import SharedLock, holding
from particleforge.hpo.sampling import propose
from particleforge.hpo.space import configured, contains, distributions, trial_settings
from particleforge.hpo.transfer import Params, next_configuration
from particleforge.hpo.trials import SearchTrial, config_name, contenders
from particleforge.preprocessing.manifest import Manifest
from particleforge.stored import read_json
from particleforge.training.spec import checksum_of_source

_RECORD = 3  # form of a trial's record; a study of another form is left alone
CLAIM_LOCK = "claim.lock"

optuna.logging.set_verbosity(optuna.logging.WARNING)


def identity(settings: HpoSettings, manifest: Path) -> dict[str, Any]:
    """Return what the values of a study's trials depend on.

    Another value of any of it is another study.

    Of the data its content counts, not its provenance. Neither ranks nor devices count, nor how
    often a training reports. Of a file that trainings start from its content counts.
    """
    data = read_json(manifest, Manifest.REMEDY)
    if not isinstance(data, dict):
        raise UserError(f"{manifest}: holds no object with keys; {Manifest.REMEDY}")
    data = {key: value for key, value in data.items() if key not in ("kind", "provenance")}
    hpo = settings.hpo
    final = settings.training
    # where they are in events, steps depend on the trial
    lengths = (
        None
        if hpo.min_steps is not None
        else Lengths((1,), final.schedule_length or final.length, final.warmup)
    )
    default = trial_settings(settings, {}, lengths=lengths)
    immaterial = {path.removeprefix("training.") for path in DECIDED_BY_SEARCH} - {
        "max_steps",
        "max_train_events",
    }
    source = checksum_of_source(default.training)
    return {
        "record": _RECORD,
        "manifest": settings_hash(data),
        "seed": settings.seed,
        "training_version": default.version,
        "model": default.model.model_dump(mode="json"),
        "training": (
            default.training.model_dump(mode="json", exclude=immaterial)
            | ({"init_from": source} if source else {})
        ),
        "budget": {hpo.budget_unit: dag.budget(hpo, 0)},
        "schedule": dag.schedule_budget(hpo),
        "eta": hpo.eta if hpo.scheduler != "none" else None,
        "growth": dag.growth(hpo, 1),
        "in_events": [name for name in STEPS_FOR if getattr(final, name) is not None],
    }


class Study:
    """One search's study; open it with :func:`open_study`."""

    def __init__(
        self, settings: HpoSettings, work_dir: Path, storage: BaseStorage, name: str
    ) -> None:
        self.settings = settings
        self.name = name
        self.work_dir = work_dir
        self._storage = storage
        self._study = optuna.load_study(study_name=name, storage=storage)
        self._study_id = storage.get_study_id_from_name(name)

    def trials(self) -> list[SearchTrial]:
        """Return all trials, in order of their numbers."""
        frozen = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return [search_trial(trial) for trial in frozen if "slot" in trial.user_attrs]

    def trial_of(self, rung: int, slot: int) -> SearchTrial | None:
        """Return a slot's trial, if it has one."""
        return next((t for t in self.trials() if t.slot_id == (rung, slot)), None)

    @property
    def where(self) -> str:
        """What the study lies in, as a user knows it."""
        return "hpo.storage_url" if self.settings.hpo.storage_url else str(self.work_dir / JOURNAL)

    def folder(self, trial: SearchTrial) -> Path:
        """Return where a trial's checkpoints lie."""
        return self.work_dir / self.name / f"{trial.rung}-{trial.slot:05d}"

    def claim(self, rung: int, slot: int, warm_start: Sequence[Params] = ()) -> SearchTrial | None:
        """Return the slot's trial, created if need be: sampled in the first rung, else promoted.

        ``warm_start`` are configurations to try before the sampler is asked. None if nothing of the
        rung below can be promoted.
        """
        with holding(self.work_dir / CLAIM_LOCK):
            known = self.trial_of(rung, slot)
            if known is not None:
                return known
            trials = self.trials()
            hpo, seed = self.settings.hpo, self.settings.seed
            defaults = configured(hpo.space, self.settings.model, self.settings.training)
            if not rung:
                known_good = next_configuration(
                    warm_start, trials, slot, defaults, default_first=hpo.include_default
                )
                params = (
                    known_good
                    if known_good is not None
                    else propose(hpo, seed, slot, defaults, trials)
                )
                attrs: dict[str, Any] = {
                    "config": config_name(slot),
                    "parent": None,
                    "params": params,
                }
            else:
                parent = next(iter(contenders(trials, rung)), None)
                if parent is None:
                    return None
                attrs = {
                    "config": parent.config,
                    "parent": parent.number,
                    "params": dict(parent.params),
                }
            # the trial's first job counts them
            steps = dag.budget_steps(hpo, rung) if hpo.min_steps is not None else 0
            attrs |= {"rung": rung, "slot": slot, "steps": steps}
            self._add(attrs)
        return self.trial_of(rung, slot)

    def _add(self, attrs: dict[str, Any]) -> None:
        """Create a running trial in one record.

        Optuna's own parameters hold only what lies in the space.
        """
        where = {
            path: dist
            for path, dist in distributions(self.settings.hpo).items()
            if contains(dist, attrs["params"].get(path))
        }
        params = {path: attrs["params"][path] for path in where}
        trial = create_trial(
            state=TrialState.RUNNING, params=params, distributions=where, user_attrs=attrs
        )
        self._study.add_trial(trial)

    def begin(self, trial: SearchTrial, steps: int, done: int, lost_s: float) -> SearchTrial:
        """Record that a job begins to train from ``done`` to ``steps`` steps; return the trial.

        ``lost_s`` are the seconds that the job before it trained, if that ended without a word.
        """
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, trial.number
        )
        if trial.steps != steps:
            self._storage.set_trial_user_attr(trial_id, "steps", steps)
        self._record_jobs(trial_id, [*trial.starts, done], time.time(), trial.spent_s + lost_s)
        return search_trial(self._storage.get_trial(trial_id))

    def stopped(self, trial: SearchTrial, seconds: float) -> None:
        """Record that a trial's last job ended well after ``seconds``: no attempt that failed."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, trial.number
        )
        self._record_jobs(trial_id, trial.starts[:-1], None, trial.spent_s + seconds)

    def _record_jobs(
        self, trial_id: int, starts: Sequence[int], began: float | None, spent_s: float
    ) -> None:
        """Write all that is known of a trial's jobs as one record: no kill leaves a half of it."""
        self._storage.set_trial_user_attr(
            trial_id, "jobs", {"starts": list(starts), "began": began, "spent_s": round(spent_s, 3)}
        )

    def finish(
        self,
        trial: SearchTrial,
        status: str,
        reason: str = "",
        value: float | None = None,
        curve: Mapping[int, float] | None = None,
        seconds: float = 0.0,
        checkpoint: Path | None = None,
        objectives: Mapping[str, float] | None = None,
    ) -> SearchTrial:
        """Record how a trial ended (complete, pruned below the top rung, failed); return it.

        ``value`` is the validation loss at the rung's budget, ``curve`` those before it by step;
        ``status`` is "complete", "diverged" or "failed"; ``seconds`` are those of the last job;
        ``objectives`` are values other than the loss.
        """
        losses = dict(curve or {})
        if status == "complete" and (value is None or not math.isfinite(value)):
            status, reason = "diverged", f"validation loss is {value}"
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, trial.number
        )
        if status == "complete" and value is not None:
            losses[trial.steps] = value
        for step, loss in sorted(losses.items()):
            if math.isfinite(loss):
                self._storage.set_trial_intermediate_value(trial_id, step, loss)
        outcome = {
            "status": status,
            "reason": reason,
            "seconds": round(trial.spent_s + seconds, 3),
            "checkpoint": (
                None if checkpoint is None else os.path.relpath(checkpoint, self.work_dir)
            ),
            "objectives": dict(objectives or {}),
        }
        self._storage.set_trial_user_attr(trial_id, "outcome", outcome)
        if status != "complete":
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif trial.rung == dag.n_rungs(self.settings.hpo) - 1:
            self._study.tell(trial.number, value)
        else:  # Optuna takes the last reported value as a pruned trial's own
            self._study.tell(trial.number, state=TrialState.PRUNED)
        return search_trial(self._storage.get_trial(trial_id))


def open_study(settings: HpoSettings, manifest: Path, work_dir: Path) -> Study:
    """Open the search's study, creating it if it is new."""
    work_dir.mkdir(parents=True, exist_ok=True)
    made_for = identity(settings, manifest)
    space = settings.hpo.space
    storage = _open_storage(settings.hpo.storage_url, work_dir)
    with holding(work_dir / CLAIM_LOCK):
        existing = {study.study_name: study for study in storage.get_all_studies()}
        for generation in itertools.count():
            name = f"{settings_hash(made_for)}-{generation}"
            if name not in existing:
                study = optuna.create_study(study_name=name, storage=storage, direction="minimize")
                study.set_user_attr("identity", made_for)
                _record_space(study, space)
                break
            recorded = existing[name].user_attrs.get("space")
            # its maker was killed before it could write it: no trial can depend on it
            if recorded is None:
                _record_space(optuna.load_study(study_name=name, storage=storage), space)
                break
            older = _recorded_space(recorded, name)
            if all(
                path in space and space[path].widens(parameter) for path, parameter in older.items()
            ):
                if older != space:
                    _record_space(optuna.load_study(study_name=name, storage=storage), space)
                break
    return Study(settings, work_dir, storage, name)


def _recorded_space(recorded: Any, name: str) -> dict[str, ParameterConfig]:
    try:
        return {path: ParameterConfig(**parameter) for path, parameter in recorded.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"study {name}: its record of hpo.space is damaged; put the study back from a copy, or"
            " remove it to search anew"
        ) from error


def _record_space(study: optuna.Study, space: dict[str, ParameterConfig]) -> None:
    study.set_user_attr(
        "space", {path: parameter.model_dump(mode="json") for path, parameter in space.items()}
    )


def search_trial(trial: FrozenTrial) -> SearchTrial:
    """Return what Optuna's trial says; it must be one of a slot.

    A UserError if it lacks what a trial of this package has.
    """
    try:
        return _search_trial(trial)
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"trial {trial.number} of the search: its record is damaged ({error!r}); put the study"
            " back from a copy, or remove it to search anew"
        ) from error


def _search_trial(trial: FrozenTrial) -> SearchTrial:
    attrs = trial.user_attrs
    outcome, jobs = attrs.get("outcome", {}), attrs.get("jobs", {})
    return SearchTrial(
        number=trial.number,
        config=attrs["config"],
        rung=attrs["rung"],
        slot=attrs["slot"],
        parent=attrs["parent"],
        steps=attrs["steps"],
        starts=tuple(jobs.get("starts", ())),
        began=jobs.get("began"),
        spent_s=jobs.get("spent_s", 0.0),
        params=attrs["params"],
        status=outcome["status"] if trial.state.is_finished() else "running",
        value=trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        reason=outcome.get("reason", ""),
        seconds=outcome.get("seconds"),
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        checkpoint=outcome.get("checkpoint"),
        objectives=outcome.get("objectives", {}),
        curve=trial.intermediate_values,
    )


class _MendingLock(JournalFileOpenLock):
    """The journal's lock.

    Whoever takes it removes the half line that a writer killed in mid-write has left.

    Without this the next record would be appended to that half line, and no reader could pass it.
    The half record was never acknowledged, so nothing is lost. Optuna's own locks would let all
    others wait for half a minute when a holder was killed; the file has the name that they give it,
    so that other programs which write to the journal wait for it.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._lock = SharedLock(Path(self._lock_file))

    def acquire(self) -> bool:
        """Take the lock, then mend the journal's end."""
        self._lock.acquire()
        with self._journal.open("rb+") as journal:
            if journal.seek(0, os.SEEK_END):
                journal.seek(-1, os.SEEK_END)
                if journal.read(1) != b"\n":
                    journal.seek(0)
                    journal.truncate(journal.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()


def _open_storage(url: str | None, work_dir: Path) -> BaseStorage:
    if url is None:
        journal = work_dir / JOURNAL
        return open_journal(journal, _MendingLock(journal))
    try:
        # of jobs that meet an empty database only one may make its tables
        with holding(work_dir / CLAIM_LOCK):
            return RDBStorage(url)
    except Exception as error:
        # SQLAlchemy raises many kinds, from a misspelt URL to a missing driver
        raise UserError(f"hpo.storage_url: {url!r} cannot be opened: {error}") from error
