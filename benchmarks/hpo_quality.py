"""How good a search is: the mean final loss of what it finds, against random search given more.

Budgets are equal.

Inputs -> outputs: families of learning curves (``hpo_families``, or ``--family module:name``) -> a
table of mean final losses, one row per search, one column per family; last line: one JSON object.

Every search is driven through the project's own graph, sampler and promotion rule, on ``--workers``
workers whose trainings take as long as their budget; slots start in the workflow's order. Random
search evaluates as many random configurations at the full budget as the search's epochs pay for, 1
to 20 times over. Of what a search chose the loss at the full budget is measured anew, so nobody
profits from lucky noise. ``random_epochs_ratio`` is the multiple of the search's own epochs at
which random search reaches the same mean, interpolated on a logarithmic scale between the measured
multiples; that of the worst family comes first. (``rasda`` spends the same epochs on the same
trials as ``asha``, with other workers, and is left out.)
"""

import argparse
import heapq
import importlib
import json
import math
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, get_args

import numpy as np
from hpo_families import FAMILIES

from particleforge.config.hpo import HpoConfig
from particleforge.config.space import ParameterConfig
from particleforge.hpo import dag
from particleforge.hpo.promotion import promote
from particleforge.hpo.sampling import propose
from particleforge.hpo.space import encoded_width, unit_points_to_params
from particleforge.hpo.trials import SearchTrial

MULTIPLES = 1, 2, 3, 5, 10, 20
EPOCHS = 9.0  # full trainings that random search x1 spends
RANDOM_SEEDS = 200  # it costs nothing, and sets the scale
MEASURED_ANEW = 32  # evaluations that a chosen configuration is judged by
SHAPE = {"eta": 3, "n_rungs": 4, "n_brackets": 3, "min_steps": 1, "include_default": False}
# so many that all spend about 9 full trainings
SLOTS = {"asha": 81, "sha": 81, "hyperband": 27, "none": 9}
DEFAULT = f"{HpoConfig().scheduler}/{HpoConfig().sampler}/{HpoConfig().promotion}"
Params = dict[str, Any]


def loss_of(family: Any, config: Params, budget: float, rng: np.random.Generator) -> float:
    """Return a value, not finite if the training failed."""
    try:
        return float(family.loss(config, budget, rng))
    except (ArithmeticError, ValueError, RuntimeError):
        return math.nan


def final_loss(family: Any, config: Params, rng: np.random.Generator) -> float:
    """Return what a configuration reaches at the full budget, averaged over trainings.

    Trainings that fail do not count.
    """
    values = np.array(
        [loss_of(family, config, family.max_budget, rng) for _ in range(MEASURED_ANEW)]
    )
    return float(values[np.isfinite(values)].mean())


def settings_for(family: Any, **changes: Any) -> HpoConfig:
    """Return the settings of a search in a family's space.

    Its names are none of the project's settings.
    """
    space = {name: ParameterConfig(**parameter) for name, parameter in family.space.items()}
    chosen = {**SHAPE, **changes}
    slots = {"first_rung_slots": SLOTS[chosen.get("scheduler", HpoConfig().scheduler)]}
    return HpoConfig(**{**slots, **chosen}).model_copy(update={"space": space})


def random_search(family: Any, n: float, seed: int) -> float:
    """Return the final loss of the best of ``n`` random configurations."""
    rng = np.random.default_rng(seed)
    space = settings_for(family).space
    configs = unit_points_to_params(space, rng.random((max(1, int(n)), encoded_width(space))))
    values = [loss_of(family, config, family.max_budget, rng) for config in configs]
    if not np.isfinite(values).any():
        return math.nan
    return final_loss(family, configs[int(np.nanargmin(values))], rng)


def budget_of(hpo: HpoConfig, rung: int) -> float:
    """Return a rung's budget as a share of the full one."""
    return dag.budget(hpo, rung) / dag.budget(hpo, dag.n_rungs(hpo) - 1)


def epochs_of(hpo: HpoConfig) -> float:
    """Return what a search spends, in full trainings."""
    spent = {rung: budget_of(hpo, rung) for rung in range(dag.n_rungs(hpo))}
    return sum(
        spent[rung] - (spent[rung - 1] if dag.parents_of(hpo, *slot) else 0)
        for slot in dag.all_slots(hpo)
        for rung in [slot[1]]
    )


def run_search(family: Any, hpo: HpoConfig, seed: int, workers: int) -> list[SearchTrial]:
    """Return the trials of a search."""
    rng = np.random.default_rng(seed)
    centre = unit_points_to_params(hpo.space, np.full((1, encoded_width(hpo.space)), 0.5))[0]
    waiting = list(dag.starting_order(hpo))
    trials: list[SearchTrial] = []
    ended: set[tuple[int, int, int]] = set()
    running: list[tuple[float, int, int]] = []
    now = 0.0
    while waiting or running:
        while len(running) < workers and (
            slot := next((s for s in waiting if ended.issuperset(dag.parents_of(hpo, *s))), None)
        ):
            waiting.remove(slot)
            bracket, rung, number = slot
            attrs: Params = {
                "bracket": bracket,
                "rung": rung,
                "slot": number,
                "steps": int(dag.budget(hpo, rung)),
            }
            before = 0.0
            if dag.parents_of(hpo, *slot):
                parent = promote(hpo, seed, centre, trials, bracket, rung)
                if parent is None:
                    ended.add(slot)
                    continue
                trial = SearchTrial(
                    len(trials), parent.config, parent=parent.number, params=parent.params, **attrs
                )
                before = budget_of(hpo, rung - 1)
            else:
                params = propose(hpo, seed, bracket, number, centre, trials)
                trial = SearchTrial(
                    len(trials), f"{bracket}-{number:05d}", parent=None, params=params, **attrs
                )
            trials.append(trial)
            spread = math.exp(0.1 * rng.standard_normal())  # machines and shapes of networks differ
            heapq.heappush(
                running, (now + (budget_of(hpo, rung) - before) * spread, trial.number, number)
            )
        if running:
            now, done, _ = heapq.heappop(running)
            trial = trials[done]
            value = loss_of(
                family, dict(trial.params), family.max_budget * budget_of(hpo, trial.rung), rng
            )
            ok = math.isfinite(value)
            trials[done] = replace(
                trial, status="complete" if ok else "diverged", value=value if ok else None
            )
            ended.add((trial.bracket, trial.rung, trial.slot))
    return trials


def search(family: Any, hpo: HpoConfig, seed: int, workers: int) -> float:
    """Return the final loss of the winner of a search."""
    done = [t for t in run_search(family, hpo, seed, workers) if t.status == "complete"]
    best = min(done, key=lambda t: (-t.rung, t.order_key))
    return final_loss(family, dict(best.params), np.random.default_rng(seed))


def ratio(value: float, random: dict[int, float]) -> float:
    """Return at which multiple random search reaches a mean loss, interpolated.

    0 if below the first, the last if not even there.
    """
    multiples = np.array(sorted(random))
    means = np.minimum.accumulate([random[m] for m in sorted(random)])
    if value > means[0]:
        return 0.0
    return float(np.exp(np.interp(-value, -means, np.log(multiples))))


def load(name: str) -> Any:
    """Return a built-in family, or one given as ``module:name``.

    The name is that of an object, or of a class to make it of.
    """
    if ":" not in name:
        return FAMILIES[name]()
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    found = getattr(importlib.import_module(module), attribute)
    return found() if isinstance(found, type) else found


def one(task: tuple[str, dict[str, Any] | None, int, int, int]) -> tuple[float, float]:
    """Return what one search found, and the seconds it took.

    Random search with ``multiple`` times the epochs if it has no settings.
    """
    name, changes, multiple, seed, workers = task
    if name not in _FAMILIES:
        _FAMILIES[name] = load(name)
    family, started = _FAMILIES[name], time.process_time()
    if changes is None:
        value = random_search(family, multiple * EPOCHS, seed)
    else:
        value = search(family, settings_for(family, **changes), seed, workers)
    return value, time.process_time() - started


_FAMILIES: dict[str, Any] = {}  # made once per process


def values_of(
    pool: Pool,
    family: str,
    changes: dict[str, Any] | None,
    multiple: int,
    options: argparse.Namespace,
) -> tuple[Any, float]:
    """Return the final losses by seed, and the mean seconds that one search took."""
    seeds = range(options.seeds if changes is not None else max(RANDOM_SEEDS, options.seeds))
    tasks = [(family, changes, multiple, seed, options.workers) for seed in seeds]
    values, seconds = zip(
        *pool.imap(one, tasks, chunksize=1 if changes is not None else 25), strict=True
    )
    return np.array(values), float(np.mean(seconds))


def compare(
    family: str, names: list[str], pool: Pool, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Print and return what searches reach on one family."""
    random: dict[int, float] = {}
    for multiple in MULTIPLES:
        values, _ = values_of(pool, family, None, multiple, options)
        random[multiple] = float(np.nanmean(values))
        print(
            f"{family:12} {f'random search x{multiple}':32} {random[multiple]:.4f} +-"
            f" {standard_error(values):.4f}",
            flush=True,
        )
    found = {}
    for name in names:
        changes = dict(zip(("scheduler", "sampler", "promotion"), name.split("/"), strict=True))
        values, seconds = values_of(pool, family, changes, 1, options)
        mean = float(np.nanmean(values))
        times = ratio(mean, random) * EPOCHS / epochs_of(settings_for(load(family), **changes))
        found[name] = {
            "mean": round(mean, 5),
            "standard_error": round(standard_error(values), 5),
            "random_epochs_ratio": round(times, 2),
        }
        print(
            f"{family:12} {name:32} {mean:.4f} +- {standard_error(values):.4f}  random"
            f" x{times:5.2f}  {seconds:.1f} s",
            flush=True,
        )
    return found


def standard_error(values: Any) -> float:
    """Return the standard error of the mean of the values that are numbers."""
    return float(np.nanstd(values) / math.sqrt(np.isfinite(values).sum()))


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--family",
        action="append",
        help="built-in family, or module:name; default: all built-in ones",
    )
    parser.add_argument(
        "--search",
        action="append",
        help="scheduler/sampler/promotion; default: the default search alone",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help=(
            "every scheduler with random, and the default's sampler; every sampler with the"
            " default's scheduler and with asha"
        ),
    )
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    compared = options.search or (every_search() if options.all else [DEFAULT])
    with get_context("spawn").Pool(options.jobs) as pool:
        families = {
            family: compare(family, compared, pool, options)
            for family in options.family or FAMILIES
        }
    judged = DEFAULT if DEFAULT in compared else compared[0]
    own = {family: rows[judged] for family, rows in families.items()}
    worst = min(row["random_epochs_ratio"] for row in own.values())
    print(
        json.dumps(
            {
                "random_epochs_ratio": worst,
                "search": judged,
                "seeds": options.seeds,
                "families": own,
                "all": families,
            }
        )
    )


def every_search() -> list[str]:
    """Return the combinations of scheduler, sampler and promotion that are compared."""
    samplers = get_args(HpoConfig.model_fields["sampler"].annotation)
    searches = {DEFAULT: None}
    for scheduler in SLOTS:
        for sampler in samplers:
            if sampler != "grid" and (
                scheduler in (HpoConfig().scheduler, "asha")
                or sampler in ("random", HpoConfig().sampler)
            ):
                searches[f"{scheduler}/{sampler}/measured"] = None
        searches[f"{scheduler}/joint_gp/predicted"] = None
    return list(searches)


if __name__ == "__main__":
    main()
