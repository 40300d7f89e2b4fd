"""Start a search with the best configurations of other searches.

These may be of another detector or older.

Inputs -> outputs: ``trials.csv`` or ``best.yaml`` of other searches -> configurations of this
search's space, best first (:func:`configurations`), which slots of the first rung take before they
ask the sampler (:func:`next_configuration`).

Rules: a configuration counts with the trial of its largest budget; larger budgets come first, then
lower losses; files take turns. Of a configuration the parameters of this space are taken; what it
lacks has the configured value, what only the other search varied is left. One with a value outside
of this space is passed over, not clipped: nobody has tried what clipping would make of it. Losses
of other searches are used for this order only, so the samplers learn from own trials alone. Warm
starts of this kind: Feurer et al., AAAI 2015 (initialising Bayesian optimisation with what did best
on similar data).
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from particleforge.artefacts import dotted
from particleforge.config.best import BestConfig
from particleforge.config.load import validate
from particleforge.config.reader import read_yaml
from particleforge.config.settings import HpoSettings
from particleforge.config.space import active_parameters, apply_parameters
from particleforge.errors import UserError
from particleforge.hpo.space import configured
from particleforge.hpo.trials import SearchTrial

log = logging.getLogger(__name__)

Params = dict[str, Any]


def configurations(files: Sequence[Path], settings: HpoSettings) -> list[Params]:
    """Return the best distinct configurations of other searches that lie in this search's space.

    There are at most ``hpo.warm_start_trials``.

    The default configuration is none of them where the search begins with it anyway. UserError if a
    file is none of a search's results, or if none of its configurations lies in this space.
    """
    lists = [_fitting(path, settings) for path in files]
    tried_anyway = [_own({}, settings)] if settings.hpo.include_default else []
    found: list[Params] = []
    for params in chain.from_iterable(zip_longest(*lists)):
        if params is not None and params not in [*tried_anyway, *found]:
            found.append(params)
    return found[: settings.hpo.warm_start_trials]


def next_configuration(
    known: Sequence[Params],
    trials: Sequence[SearchTrial],
    slot: int,
    defaults: Mapping[str, Any],
    *,
    default_first: bool,
) -> Params | None:
    """Return what a new slot of a first rung takes from ``known``, None to ask the sampler.

    The k-th goes to the k-th slot after that of the default, so that the order of jobs
    decides nothing. Where an older trial has that slot already, because the search has grown, the
    next new slots take what is left. ``defaults`` are the values of what trials do not record.
    """
    if slot < int(default_first):
        return None
    tried = [t.params for t in trials if t.parent is None]
    taken = {t.slot for t in trials if t.parent is None}
    for home, params in enumerate(known, start=int(default_first)):
        unrecorded = {name: defaults[name] for name in params}
        if (home == slot or home in taken) and not any(
            {**unrecorded, **own} == params for own in tried
        ):
            return params
    return None


def _fitting(path: Path, settings: HpoSettings) -> list[Params]:
    """Return a file's configurations that lie in the space, best first."""
    read = _rows_in_order(path)
    outcomes = [_own(row, settings) for row in read]
    fitting = [params for params in outcomes if isinstance(params, dict)]
    refused = [reason for reason in outcomes if isinstance(reason, str)]
    if not fitting:
        raise UserError(
            f"hpo.warm_start: {path}: none of {len(read)} configurations lies in hpo.space; the"
            f" best: {refused[0] if refused else 'no trial ended well'}; widen the space or take"
            " the file out"
        )
    if refused:
        log.warning(
            "%s: %d of %d configurations lie outside of hpo.space, e.g. %s",
            path,
            len(refused),
            len(read),
            refused[0],
        )
    return fitting


def _rows_in_order(path: Path) -> list[Mapping[str, Any]]:
    """Return the settings of a file's configurations by dotted path, best first."""
    if path.suffix in (".yaml", ".yml"):
        best = validate(BestConfig, read_yaml(path), str(path))
        return [dotted({"model": best.model, "training": best.training})]
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"config": str})
        done = table[table["status"] == "complete"].sort_values(
            ["rung", "value", "config"], ascending=[False, True, True]
        )
        best_of_each = done.drop_duplicates("config")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"hpo.warm_start: {path}: not a trials.csv or best.yaml of a search: {error!r}"
        ) from error
    names = [name for name in table.columns if "." in name]
    return [
        {str(name): value for name, value in row.items() if not pd.isna(value)}
        for row in best_of_each[names].to_dict("records")
    ]


def _own(row: Mapping[str, Any], settings: HpoSettings) -> Params | str:
    """Return a configuration as one of this search, or the reason why it is none."""
    space = settings.hpo.space
    defaults = configured(space, settings.model, settings.training)
    found: Params = {}
    for name in space.keys() & row.keys():
        parameter, value = space[name], row[name]
        if parameter.choices is not None:
            value = next((choice for choice in parameter.choices if choice == value), value)
        elif parameter.type == "int" and float(value).is_integer():
            value = int(value)  # a column of a table with gaps holds floats
        if not parameter.contains(value):
            return f"{name} = {value!r}"
        found[name] = value
    (params,) = active_parameters(space, [found], defaults)
    try:
        apply_parameters(params, settings.model, settings.training)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return params
