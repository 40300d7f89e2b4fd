"""Choose the winner of a search and write down how it was found.

Inputs -> outputs: the study, once all slots have run -> ``best.yaml`` (the winning trial, how it compares with the configured
settings, and its searched values as ``model`` and ``training`` blocks to lay over those of the final training),
``trials.csv`` (one row per trial), plots.

The winner is the best trial of the highest rung that has a success. It is compared with the default configuration, where
the search included it, at the highest rung that both reached: at equal budget. Ranks are by value, ties by the name of the
configuration, so the outcome depends on the trials and not on the order in which they ended.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from particleforge.artefacts import atomic_output, write_yaml
from particleforge.config.settings import HpoSettings
from particleforge.config.space import apply_parameters
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.plots import write_plots
from particleforge.hpo.study import open_study
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial, failed_fraction, succeeded
from particleforge.model.inputs import index_files, split_folders
from particleforge.provenance import Provenance

log = logging.getLogger(__name__)


def select_best_trial(
    settings: HpoSettings,
    slots: Sequence[Path],
    work_dir: Path,
    manifest: Path,
    best: Path,
    trials: Path,
    plots: Mapping[str, Path],
) -> None:
    """Write ``best`` (YAML), ``trials`` (CSV) and ``plots`` (PNG, and a PDF beside each) of a finished search.

    ``slots`` are the results of all slots; they must belong to the study in ``work_dir``. UserError if they do not, if all
    trials failed, or if more failed than ``hpo.failed_fraction_max``.
    """
    study = open_study(settings, manifest, work_dir)
    _check_slots(slots, study.name)
    found = [t for t in study.trials() if t.finished]
    winner = _winner(found, settings)
    comparison = compare_with_default(found, winner) if settings.hpo.include_default else None
    apply_parameters(winner.params, settings.model, settings.training)  # refuses what the final training would
    write_yaml(
        best,
        {
            "study": study.name,
            "trial": winner.number,
            "config": winner.config,
            "value": winner.value,
            "steps": winner.steps,
            "against_default": comparison,
            **nested(winner.params),
        },
    )
    with atomic_output(trials) as temporary:
        trials_table(found, settings).to_csv(temporary, index=False)
    write_plots(found, settings, winner, plots)
    made = Provenance.of(
        "select_best_trial",
        settings.plain(),
        [*index_files(manifest), *slots],
        glanced_at=split_folders(manifest, "train", "valid"),
    )
    made.record(best, trials, *plots.values(), *(plot.with_suffix(".pdf") for plot in plots.values()))
    log.info("best: configuration %s, validation loss %.6g after %d steps", winner.config, winner.loss, winner.steps)


def trials_table(trials: Sequence[SearchTrial], settings: HpoSettings) -> pd.DataFrame:
    """Return one row per trial, rung by rung: what it was, what came of it, its parameters by dotted path.

    ``rank`` counts from 1 within the rung; ``default_value`` is the value of the configured settings in the same rung,
    empty where they did not get that far.
    """
    promoted = {t.parent for t in trials}
    ranks = {t.number: rank for rung in {t.rung for t in trials} for rank, t in enumerate(succeeded(trials, rung), start=1)}
    defaults = {t.rung: t.value for t in trials if t.config == DEFAULT_CONFIG and settings.hpo.include_default}
    rows = [
        {
            "trial": t.number,
            "config": t.config,
            "bracket": t.bracket,
            "rung": t.rung,
            "slot": t.slot,
            "parent": t.parent,
            "steps": t.steps,
            "status": t.status,
            "value": t.value,
            "rank": ranks.get(t.number),
            "promoted": t.number in promoted,
            "default_value": defaults.get(t.rung),
            "seconds": t.seconds,
            "reason": t.reason,
            **{path: t.params.get(path) for path in sorted(settings.hpo.space)},
        }
        for t in sorted(trials, key=lambda t: (t.rung, t.bracket, t.slot))
    ]
    whole = dict.fromkeys(("parent", "rank"), "Int64")
    return pd.DataFrame(rows).astype(whole)


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return values keyed by dotted path as the blocks ``model`` and ``training``, which may be empty."""
    blocks: dict[str, Any] = {"model": {}, "training": {}}
    for path, value in sorted(params.items()):
        *parents, leaf = path.split(".")
        holder = blocks
        for name in parents:
            holder = holder.setdefault(name, {})
        holder[leaf] = value
    return blocks


def compare_with_default(trials: Sequence[SearchTrial], winner: SearchTrial) -> dict[str, Any]:
    """Return the winner's configuration against the default one at the highest rung where both have a value."""
    values = {(t.config, t.rung): t for t in trials if t.status == "complete"}
    common = [rung for config, rung in values if config == DEFAULT_CONFIG and (winner.config, rung) in values]
    if not common:
        return {"rung": None, "reason": "the default configuration failed in the first rung"}
    default, own = values[DEFAULT_CONFIG, max(common)], values[winner.config, max(common)]
    return {
        "rung": max(common),
        "steps": own.steps,
        "default_value": default.loss,
        "best_value": own.loss,
        "relative_change": own.loss / default.loss - 1 if default.loss else None,
        "at_full_budget": own.number == winner.number,
    }


def _winner(trials: Sequence[SearchTrial], settings: HpoSettings) -> SearchTrial:
    failed, allowed = failed_fraction(trials), settings.hpo.failed_fraction_max
    reasons = sorted({t.reason for t in trials if t.reason})
    if failed > allowed or not any(t.status == "complete" for t in trials):
        raise UserError(
            f"hpo: {failed:.0%} of {len(trials)} trials failed, hpo.failed_fraction_max allows {allowed:.0%}; reasons: "
            f"{'; '.join(reasons[:3]) or 'none recorded'}; narrow hpo.space (often: a lower learning rate)"
        )
    top = dag.n_rungs(settings.hpo) - 1
    rung = max(t.rung for t in trials if t.status == "complete")
    if rung < top:
        log.warning("no trial of the top rung %d ended well; the best comes from rung %d", top, rung)
    return succeeded(trials, rung)[0]


def _check_slots(slots: Sequence[Path], study: str) -> None:
    for path in slots:
        made_by = json.loads(path.read_text(encoding="utf-8"))["study"]
        if made_by != study:
            raise UserError(f"{path}: made by study {made_by}, but the settings and data belong to study {study}; run the slots again")
