"""Finished searches in memory: trials with curves, times and failures, as if some workers had
trained them.
"""

import heapq
import math
from typing import Any

import numpy as np

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings
from particleforge.config.training import TrainingConfig
from particleforge.hpo import dag
from particleforge.hpo.trials import SearchTrial, config_name

SPACE = {
    "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "training.weight_decay": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "training.loss.momentum": {"type": "float", "low": 0.5, "high": 8.0, "log": True},
    "training.optimiser": {"type": "categorical", "choices": ["adamw", "lamb"]},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.3},
    "model.n_layers": {"type": "int", "low": 1, "high": 6},
    "model.width": {"type": "categorical", "choices": [32, 64, 128]},
}


def search_settings(first_rung_slots: int, **hpo: Any) -> HpoSettings:
    rungs = 1 + round(math.log(first_rung_slots, 3))
    block = {
        "scheduler": "asha",
        "sampler": "random",
        "first_rung_slots": first_rung_slots,
        "eta": 3,
        "n_rungs": rungs,
        "min_steps": 60,
        "space": SPACE,
        **hpo,
    }
    return HpoSettings(
        seed=7, model=ModelConfig(), training=TrainingConfig(), hpo=HpoConfig(**block)
    )


def finished_search(
    settings: HpoSettings, n_workers: int, *, failing: float = 0.1, seed: int = 1
) -> list[SearchTrial]:
    """Return the trials of a whole search: each slot starts once its parents have ended and a
    worker is free.
    """
    rng, hpo = np.random.default_rng(seed), settings.hpo
    ended: dict[tuple[int, ...], float] = {}
    trials: list[SearchTrial] = []
    workers = [1.7e9 + rng.uniform(0, 20) for _ in range(n_workers)]
    heapq.heapify(workers)
    waiting = list(dag.all_slots(hpo))
    while waiting:
        now = heapq.heappop(workers)
        place = next(
            (
                p
                for p in reversed(waiting)
                if all(ended.get(q, math.inf) <= now for q in dag.parents_of(hpo, *p))
            ),
            None,
        )
        if place is None:
            heapq.heappush(workers, min(end for end in ended.values() if end > now))
            continue
        if not dag.parents_of(hpo, *place):
            place = next(p for p in waiting if p[0] == place[0])
        waiting.remove(place)
        trial = _trial(settings, trials, place, now, rng, failing)
        ended[place] = now + 5 if trial is None else trial.ended or now
        heapq.heappush(workers, ended[place])
        if trial is not None:
            trials.append(trial)
    return trials


def _trial(
    settings: HpoSettings,
    trials: list[SearchTrial],
    place: tuple[int, ...],
    now: float,
    rng: np.random.Generator,
    failing: float,
) -> SearchTrial | None:
    rung, slot = place
    steps, parent = dag.budget_steps(settings.hpo, rung), None
    if dag.parents_of(settings.hpo, *place):
        taken = {t.parent for t in trials}
        below = [
            t
            for t in trials
            if t.rung == rung - 1 and t.value is not None and (t.ended or 0.0) <= now
        ]
        parent = min(
            (t for t in below if t.number not in taken), key=lambda t: t.order_key, default=None
        )
        if parent is None:
            return None
    params = dict(parent.params) if parent else _sampled(rng) if place != (0, 0) else _default()
    config = parent.config if parent else config_name(slot)
    curve = {step: _loss(params, step) for step in range(steps // 6, steps + 1, steps // 6)}
    curve = {step: loss for step, loss in curve.items() if parent is None or step > parent.steps}
    made = steps - (parent.steps if parent else 0)
    seconds = made * 0.02 * params["model.n_layers"] ** 0.5 * rng.uniform(0.9, 1.2)
    fails = rng.uniform() < failing and config != config_name(0)
    killed = 0.4 * seconds if rng.uniform() < 0.03 else 0.0
    outcome = (
        ("diverged", None, f"loss is nan at step {made // 2}")
        if fails
        else ("complete", curve[steps], "")
    )
    seconds = seconds / 2 if fails else seconds
    return SearchTrial(
        number=len(trials),
        config=config,
        rung=rung,
        slot=slot,
        parent=parent.number if parent else None,
        steps=steps,
        params=params,
        status=outcome[0],
        value=outcome[1],
        reason=outcome[2],
        seconds=seconds,
        curve={} if fails else curve,
        started=now,
        ended=now + seconds + killed + 4.0,
    )


def _default() -> dict[str, Any]:
    values = (2e-3, 1e-2, 1.0, "adamw", 0.0, 3, 64)
    return dict(zip(SPACE, values, strict=True))


def _sampled(rng: np.random.Generator) -> dict[str, Any]:
    params = {
        "training.learning_rate": float(10 ** rng.uniform(-4, -1)),
        "training.weight_decay": float(10 ** rng.uniform(-4, -1)),
        "training.loss.momentum": float(0.5 * 16 ** rng.uniform()),
        "training.optimiser": str(rng.choice(["adamw", "lamb"])),
        "model.dropout": float(rng.uniform(0, 0.3)),
        "model.n_layers": int(rng.integers(1, 7)),
        "model.width": int(rng.choice([32, 64, 128])),
    }
    if params["training.optimiser"] == "lamb":  # as a parameter that only another's value brings in
        del params["training.weight_decay"]
    return params


def _loss(params: dict[str, Any], step: int) -> float:
    at_end = (
        0.2
        + 0.1 * math.log10(params["training.learning_rate"] / 5e-3) ** 2
        + 0.3 / params["model.n_layers"]
    )
    return (
        at_end
        + 0.02 * math.log2(128 / params["model.width"])
        + 0.5 * params["model.n_layers"] ** 0.5 / (step / 60) ** 0.6
    )
