"""Choose the winner of a search and write down how it was found.

Inputs -> outputs: the study, once all slots have run, and the trainings from further seeds, if any
-> ``best.yaml`` (``config.best``: the winner's searched values as ``model`` and ``training`` blocks
for the final training, and why it won), ``trials.csv`` (one row per trial), plots.

The winner is the trial that ``hpo.pick`` prefers (:mod:`particleforge.hpo.objectives`) in the
highest rung that has a success, or the one that ``hpo.pin_trial`` names. Values are those that were
measured: noise of single trainings is averaged by further seeds (``hpo.confirm_seeds``), never
modelled away. The winner is compared with the default configuration, where the search included it,
at the highest rung that both reached: at equal budget. The order is by value, ties by the name of
the configuration, so the outcome depends on the trials and not on the order in which they ended.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from particleforge.artefacts import atomic_output, write_text
from particleforge.config.best import (
    HEADER,
    BestConfig,
    DefaultConfig,
    FrontConfig,
    SearchedConfig,
    SeedsConfig,
)
from particleforge.config.hpo import HpoConfig
from particleforge.config.settings import SelectBestSettings
from particleforge.config.space import apply_parameters
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.against_random import compare_with_random
from particleforge.hpo.confirm import check_confirmations, with_further_seeds
from particleforge.hpo.objectives import (
    INFERENCE_GFLOP,
    Contender,
    pareto_front,
    preferred,
    top_contenders,
    with_costs,
)
from particleforge.hpo.pin import Pinnable, check_pin
from particleforge.hpo.plots import write_plots
from particleforge.hpo.slot import check_slots
from particleforge.hpo.study import open_study
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial, failed_fraction, succeeded
from particleforge.model.inputs import index_files, split_folders
from particleforge.provenance.record import Provenance

log = logging.getLogger(__name__)


def select_best_trial(
    settings: SelectBestSettings,
    *,
    slots: Sequence[Path],
    work_dir: Path,
    manifest: Path,
    best: Path,
    trials: Path,
    plots: Mapping[str, Path],
    confirmations: Sequence[Path] = (),
) -> None:
    """Write ``best`` (YAML), ``trials`` (CSV) and ``plots`` (PNG and PDF) of a finished search.

    ``slots`` are the results of all slots, ``confirmations`` those of further seeds; they must
    belong to the study in ``work_dir``. UserError if they do not, if all trials failed, if more
    failed than ``hpo.failed_fraction_max``, or if the trial that ``hpo.pin_trial`` names cannot be
    trained.
    """
    study = open_study(settings, manifest, work_dir)
    check_slots(slots, study)
    check_confirmations(confirmations, study)
    found = with_costs([t for t in study.trials() if t.finished], settings, manifest)
    _check_failures(found, settings)
    contenders = preferred(with_further_seeds(top_contenders(found), confirmations), settings.hpo)
    winner, why = (
        _pinned(found, settings, contenders)
        if settings.hpo.pin_trial is not None
        else _chosen(contenders, settings)
    )
    content = best_config(study.name, found, contenders, winner, why, settings)
    told = {
        key: value
        for key, value in content.model_dump(mode="json").items()
        if key == "against_default" or value not in (None, [])
    }
    write_text(best, HEADER + yaml.safe_dump(told, sort_keys=False, width=120))
    with atomic_output(trials) as temporary:
        trials_table(found, settings).to_csv(temporary, index=False)
    write_plots(found, settings, winner, plots)
    made = Provenance.of(
        "select_best_trial",
        settings.plain(),
        [*index_files(manifest), *slots, *confirmations],
        glanced_at=split_folders(manifest, "train", "valid"),
    )
    log.info(
        "best: configuration %s, validation loss %.6g after %d steps: %s",
        winner.config,
        winner.loss,
        winner.steps,
        why,
    )
    made.record(
        best, trials, *plots.values(), *(plot.with_suffix(".pdf") for plot in plots.values())
    )


def best_config(
    study: str,
    trials: Sequence[SearchTrial],
    contenders: Sequence[Contender],
    winner: SearchTrial,
    why: str,
    settings: SelectBestSettings,
) -> BestConfig:
    """Return the content of ``best.yaml``; ``contenders`` in order of preference."""
    hpo = settings.hpo
    # refuses what the final training would
    apply_parameters(winner.params, settings.model, settings.training)
    by_number = {t.number: t for t in trials}
    done = [
        (t, by_number.get(-1 if t.parent is None else t.parent))
        for t in trials
        if t.status == "complete"
    ]
    budgets = sum(
        dag.budget(hpo, t.rung) - (dag.budget(hpo, parent.rung) if parent else 0)
        for t, parent in done
    )
    return BestConfig(
        study=study,
        trial=winner.number,
        config=winner.config,
        value=winner.value,
        steps=winner.steps,
        why=why,
        inference_gflop=winner.objectives.get(INFERENCE_GFLOP),
        search=SearchedConfig(
            scheduler=hpo.scheduler,
            sampler=hpo.sampler,
            configurations=len({t.config for t in trials}),
            trials=dict(sorted(Counter(t.status for t in trials).items())),
            trained_steps=sum(t.steps - (parent.steps if parent else 0) for t, parent in done),
            full_trainings=round(budgets / dag.budget(hpo, dag.n_rungs(hpo) - 1), 3),
        ),
        against_default=(
            compare_with_default(trials, winner, hpo) if hpo.include_default else None
        ),
        against_random=compare_with_random(trials, winner, hpo),
        seeds=tuple(
            SeedsConfig(
                config=c.trial.config,
                values=c.losses,
                mean=c.loss,
                standard_deviation=c.spread,
                failures=c.failures,
            )
            for c in contenders
            if c.losses
        ),
        pareto_front=tuple(
            FrontConfig(
                trial=c.trial.number, config=c.trial.config, value=c.loss, inference_gflop=c.gflop
            )
            for c in pareto_front(contenders)
            if c.gflop is not None
        ),
        **nested(winner.params),
    )


def trials_table(trials: Sequence[SearchTrial], settings: SelectBestSettings) -> pd.DataFrame:
    """Return one row per trial, rung by rung: what it was, what came of it, its parameters.

    Parameters are columns by dotted path.

    ``place`` counts from 1 within the rung; ``default_value`` is the value of the configured
    settings in the same rung, empty where they did not get that far.
    """
    promoted = {t.parent for t in trials}
    places = {
        t.number: place
        for rung in {t.rung for t in trials}
        for place, t in enumerate(succeeded(trials, rung), start=1)
    }
    defaults = {
        t.rung: t.value
        for t in trials
        if t.config == DEFAULT_CONFIG and settings.hpo.include_default
    }
    rows = [
        {
            "trial": t.number,
            "config": t.config,
            "rung": t.rung,
            "slot": t.slot,
            "parent": t.parent,
            "steps": t.steps,
            "status": t.status,
            "value": t.value,
            "place": places.get(t.number),
            "promoted": t.number in promoted,
            "default_value": defaults.get(t.rung),
            "ranks": dag.ranks(settings.hpo, t.rung),
            "seconds": t.seconds,
            **{
                name: t.objectives.get(name)
                for name in settings.hpo.objectives
                if name != "valid_loss"
            },
            "reason": t.reason,
            **{path: t.params.get(path) for path in sorted(settings.hpo.space)},
        }
        for t in sorted(trials, key=lambda t: (t.rung, t.slot))
    ]
    whole = dict.fromkeys(("parent", "place"), "Int64")
    return pd.DataFrame(rows).astype(whole)


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return values keyed by dotted path as the blocks ``model`` and ``training``.

    Either may be empty.
    """
    blocks: dict[str, Any] = {"model": {}, "training": {}}
    for path, value in sorted(params.items()):
        *parents, leaf = path.split(".")
        holder = blocks
        for name in parents:
            holder = holder.setdefault(name, {})
        holder[leaf] = value
    return blocks


def compare_with_default(
    trials: Sequence[SearchTrial], winner: SearchTrial, hpo: HpoConfig
) -> DefaultConfig:
    """Return the winner against the configured settings at the largest budget that both reached."""
    done = {(t.config, t.rung): t.loss for t in trials if t.status == "complete"}
    common = [
        rung
        for config, rung in done
        if config == DEFAULT_CONFIG and rung <= winner.rung and (winner.config, rung) in done
    ]
    if not common:
        return DefaultConfig(reason="the configured settings failed")
    rung = max(common)
    default, own = done[DEFAULT_CONFIG, rung], done[winner.config, rung]
    return DefaultConfig(
        budget=dag.budget(hpo, rung),
        budget_unit=hpo.budget_unit,
        default_value=default,
        best_value=own,
        relative_change=own / default - 1 if default else None,
        at_full_budget=rung == winner.rung,
    )


def _check_failures(trials: Sequence[SearchTrial], settings: SelectBestSettings) -> None:
    failed, allowed = failed_fraction(trials), settings.hpo.failed_fraction_max
    reasons = sorted({t.reason for t in trials if t.reason})
    if failed > allowed or not any(t.status == "complete" for t in trials):
        raise UserError(
            f"hpo: {failed:.0%} of {len(trials)} trials failed, hpo.failed_fraction_max allows"
            f" {allowed:.0%}; reasons: {'; '.join(reasons[:3]) or 'none recorded'}; narrow"
            " hpo.space (often: a lower learning rate)"
        )


def _chosen(
    contenders: Sequence[Contender], settings: SelectBestSettings
) -> tuple[SearchTrial, str]:
    """Return the trial that the rule prefers, and why."""
    hpo, first = settings.hpo, contenders[0]
    rung, top = first.trial.rung, dag.n_rungs(hpo) - 1
    if rung < top:
        log.warning(
            "no trial of the top rung %d ended well; the best comes from rung %d", top, rung
        )
    loss = (
        f"mean validation loss over {len(first.losses)} seeds"
        if first.losses
        else "validation loss"
    )
    reached = (
        "trained from further seeds" if first.losses else f"that reached {first.trial.steps} steps"
    )
    all_of = f"{len(contenders)} configurations {reached}"
    if hpo.pick == "lowest_loss":
        return first.trial, f"lowest {loss} of the {all_of}"
    lowest = min(c.loss for c in contenders)
    within = f"{loss} is within {hpo.pick_loss_tolerance:.3g} of the lowest, {lowest:.6g}"
    return (
        first.trial,
        f"cheapest ({first.gflop:.4g} GFLOP per event) of the {all_of} whose {within}",
    )


def _pinned(
    trials: Sequence[SearchTrial], settings: SelectBestSettings, contenders: Sequence[Contender]
) -> tuple[SearchTrial, str]:
    """Return the trial that the user names, by number or by configuration.

    Of a configuration it is the trial of the largest budget.
    """
    pin = settings.hpo.pin_trial
    assert pin is not None
    check_pin(pin, [Pinnable(t.number, t.config, t.status, t.reason) for t in trials])
    done = [t for t in trials if pin in (t.number, t.config) and t.status == "complete"]
    pinned = max(done, key=lambda t: t.rung)
    rule = contenders[0].trial
    if pinned.rung < rule.rung:
        log.warning(
            "hpo.pin_trial: trial %d was trained for %d steps only, the best for %d",
            pinned.number,
            pinned.steps,
            rule.steps,
        )
    return (
        pinned,
        (
            f"pinned by hpo.pin_trial; hpo.pick = {settings.hpo.pick} prefers {rule.config} with"
            f" validation loss {rule.loss:.6g}"
        ),
    )
