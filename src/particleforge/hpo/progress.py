"""How a search stands: the answer of ``particleforge hpo-status``, in one screen.

Inputs -> outputs: the study as it is at this moment -> slots per rung, the best
configuration so far against the configured settings, what runs, what ended last, what failed and
why, and the cost so far.

Invariants: nothing is written and no lock is taken, so slots go on meanwhile; of a record that a
slot is just writing nothing is seen. Whether a training that counts as running still does is not
known here; the age of its last checkpoint tells.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import make_url

from particleforge.artefacts import settings_hash
from particleforge.config.hpo import HpoConfig
from particleforge.config.settings import HpoSettings
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.journal import JOURNAL, open_journal
from particleforge.hpo.standing import (
    LISTED,
    BestSoFar,
    EndedTrial,
    Progress,
    RungProgress,
    RunningTrial,
)
from particleforge.hpo.study import identity, search_trial
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial, furthest_of, in_order
from particleforge.training.spec import last_saved, newest_step


def read_progress(
    settings: HpoSettings, manifest: Path, work_dir: Path, study: str | None = None
) -> Progress:
    """Return how the search of these settings stands: the newest study of its name.

    If there is none of this name the study begun last in this storage is shown, with a note.
    UserError if there is none.
    """
    url = settings.hpo.storage_url
    storage, where = _open_to_read(url, work_dir), url if url else str(work_dir / JOURNAL)
    notes = []
    try:
        expected: str | None = settings_hash(identity(settings, manifest))
    except UserError:
        expected = None
    chosen = _choose(storage, study or expected, where, named=study is not None)
    own = expected is not None and chosen.startswith(expected)
    if expected is None:
        notes.append(
            f"{manifest} is not there, so whether this study is that of the present settings is"
            " unknown"
        )
    elif not own:
        notes.append(
            "this study belongs to other data or settings than the present ones, which have"
            " none yet"
        )
    return _progress(storage, chosen, work_dir, where, settings.hpo if own else None, notes)


def read_work_folder(work_dir: Path, study: str | None = None) -> Progress:
    """Return how the study begun last in a work folder's journal stands, or that of the given name.

    Its settings are not known.
    """
    storage = _open_to_read(None, work_dir)
    where = str(work_dir / JOURNAL)
    return _progress(
        storage, _choose(storage, study, where, named=study is not None), work_dir, where, None, []
    )


def _open_to_read(url: str | None, work_dir: Path) -> BaseStorage:
    """Open a storage that is there, without creating anything in it."""
    if url is None:
        journal = work_dir / JOURNAL
        there = journal.is_file() and journal.stat().st_size
        if not there and any(work_dir.glob("*-*/*-*")):
            raise UserError(
                f"{journal}: emptied or lost, while the folders of its trials are there; put it"
                f" back from a copy, or remove {work_dir} to search anew"
            )
        if not journal.is_file():
            raise UserError(f"{journal}: no study here yet; the search's first slot begins one")
        return open_journal(journal)
    try:
        parsed = make_url(url)
        if (
            parsed.get_backend_name() == "sqlite"
            and parsed.database
            and not Path(parsed.database).is_file()
        ):
            raise UserError(
                f"hpo.storage_url: {url}: no study here yet; the search's first slot begins one"
            )
        return RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    except UserError:
        raise
    except Exception as error:
        # SQLAlchemy raises many kinds, from a misspelt URL to a missing driver
        raise UserError(f"hpo.storage_url: {url} cannot be opened: {error}") from error


def _choose(storage: BaseStorage, prefix: str | None, where: str, *, named: bool) -> str:
    """Return the study begun last among those whose name begins with ``prefix``.

    If there is none, choose among all, unless it was ``named``.
    """
    try:
        found = {
            s.study_name: storage.get_study_id_from_name(s.study_name)
            for s in storage.get_all_studies()
            if "identity" in s.user_attrs
        }
    except Exception as error:  # a database without Optuna's tables, or one that cannot be reached
        raise UserError(f"{where}: no study can be read: {str(error).splitlines()[0]}") from error
    matching = [name for name in found if prefix is not None and name.startswith(prefix)]
    if named and not matching:
        raise UserError(f"--study {prefix}: {where} has {', '.join(found) or 'no study'}")
    if not found:
        raise UserError(f"{where}: no study here yet; the search's first slot begins one")
    return max(matching or found, key=lambda name: found[name])


def _progress(
    storage: BaseStorage,
    study: str,
    work_dir: Path,
    where: str,
    hpo: HpoConfig | None,
    notes: Sequence[str],
) -> Progress:
    now, study_id = time.time(), storage.get_study_id_from_name(study)
    frozen = storage.get_all_trials(study_id, deepcopy=False)
    trials = [search_trial(trial) for trial in frozen if "slot" in trial.user_attrs]
    ended = sorted((t for t in trials if t.finished), key=lambda t: (-(t.ended or 0.0), -t.number))
    running = [t for t in trials if not t.finished]
    failures: dict[str, list[int]] = {}
    for trial in trials:
        if trial.finished and trial.value is None:
            failures.setdefault(trial.reason or trial.status, []).append(trial.number)
    started = [t.started for t in trials if t.started is not None]
    until = now if running or not ended else max(t.ended or 0.0 for t in ended)
    return Progress(
        study=study,
        storage=where,
        search=f" ({hpo.scheduler}, {hpo.sampler})" if hpo else "",
        rungs=_rungs(trials, hpo),
        best=_best_so_far(trials, storage.get_study_user_attrs(study_id)["identity"]),
        running=[_running(t, work_dir / study, now) for t in running],
        last=[
            EndedTrial(
                t.number,
                t.config,
                t.rung,
                t.steps,
                t.value,
                t.reason,
                None if t.ended is None else max(0.0, now - t.ended),
            )
            for t in ended[:LISTED]
        ],
        failures=failures,
        elapsed_s=max(0.0, until - min(started)) if started else 0.0,
        rank_hours=(
            sum(dag.ranks(hpo, t.rung) * (t.seconds or 0.0) for t in ended) / 3600 if hpo else None
        ),
        notes=[f"in {where}", *notes],
    )


def _rungs(trials: Sequence[SearchTrial], hpo: HpoConfig | None) -> list[RungProgress]:
    """Return one row per rung that the search has, or of which there is a trial."""
    slots = Counter(rung for rung, _ in dag.all_slots(hpo)) if hpo else Counter()
    budgets = {t.rung: f"{t.steps} steps" for t in trials}
    if hpo:
        budgets |= {
            rung: f"{dag.budget_text(hpo, rung)} {hpo.budget_unit}" for rung in {*slots, *budgets}
        }
    rows = []
    for rung in sorted(budgets):
        here = [t for t in trials if t.rung == rung]
        best = min(
            (t for t in here if t.value is not None), key=lambda t: t.order_key, default=None
        )
        n_running = sum(not t.finished for t in here)
        n_complete = sum(t.value is not None for t in here)
        rows.append(
            RungProgress(
                rung=rung,
                budget=budgets[rung],
                slots=slots[rung] if hpo else None,
                complete=n_complete,
                running=n_running,
                failed=len(here) - n_running - n_complete,
                best_loss=best.loss if best else None,
                best_config=best.config if best else None,
            )
        )
    return rows


def _best_so_far(trials: Sequence[SearchTrial], made_for: Mapping[str, Any]) -> BestSoFar | None:
    order = in_order(furthest_of(trials))
    if not order:
        return None
    best = order[0]
    known = {path: _configured(made_for, path) for t in trials for path in t.params}
    losses = {(t.config, t.rung): t for t in trials if t.value is not None}
    default = next(
        (
            t
            for t in trials
            if t.config == DEFAULT_CONFIG and all(known[p] == v for p, v in t.params.items())
        ),
        None,
    )
    common = [
        rung
        for config, rung in losses
        if default is not None and config == default.config and (best.config, rung) in losses
    ]
    at = max(common, default=None)
    return BestSoFar(
        trial=best.number,
        config=best.config,
        steps=best.steps,
        loss=best.loss,
        params=dict(sorted(best.params.items())),
        configured={path: known[path] for path in sorted(best.params)},
        default_steps=None if at is None else losses[best.config, at].steps,
        default_loss=None if at is None else losses[DEFAULT_CONFIG, at].loss,
        loss_at_default_steps=None if at is None else losses[best.config, at].loss,
    )


def _configured(made_for: Mapping[str, Any], path: str) -> Any:
    """Return the configured value of a setting, as the study's record has it.

    The record says what the study was made for.
    """
    value: Any = made_for
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _running(trial: SearchTrial, folder: Path, now: float) -> RunningTrial:
    """Look for the trial's newest checkpoint."""
    own = folder / f"{trial.rung}-{trial.slot:05d}"
    saved = last_saved(own)
    step, age = (None, None) if saved is None else (newest_step(own), max(0.0, now - saved))
    since = None if trial.started is None else max(0.0, now - trial.started)
    return RunningTrial(
        trial.number,
        trial.config,
        trial.rung,
        trial.slot,
        trial.steps,
        step,
        since,
        age,
    )
