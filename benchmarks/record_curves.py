"""Record validation curves of many short trainings of random configurations, and what mattered.

    python benchmarks/record_curves.py MANIFEST OUTPUT [--trainings N] [--jobs N]

MANIFEST is that of a detector's training shards. OUTPUT is a Parquet file with one row per
training: its configuration (one column per dotted path of ``SPACE``), ``status``, ``seconds``, and
the lists ``events_seen`` and ``valid_loss``. All see equally many events. Trainings run one after
another in each of ``--jobs`` processes, on one thread each. Run again, it goes on with those that
OUTPUT lacks.

Prints the share of each parameter in the variance of the last loss (fANOVA: Hutter et al., ICML
2014); the last line is one JSON object.
"""

import argparse
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from optuna.distributions import BaseDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.samplers import QMCSampler
from optuna.study import create_study
from optuna.trial import create_trial

from particleforge.artefacts import atomic_output
from particleforge.config.settings import TrainSettings
from particleforge.config.space import ParameterConfig, apply_parameters
from particleforge.hpo.space import distribution
from particleforge.model.inputs import ModelInputs
from particleforge.training.budget import events_after_steps, train_loader, with_steps
from particleforge.training.distributed import Workers
from particleforge.training.metrics import MetricsLog
from particleforge.training.spec import TrainingSpec
from particleforge.training.trainer import Trainer

SPACE: dict[str, dict[str, Any]] = {
    "training.elements_per_batch": {"type": "categorical", "choices": [1024, 2048, 4096, 8192]},
    "training.learning_rate": {"type": "float", "low": 5e-4, "high": 2e-2, "log": True},
    "training.weight_decay": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "training.warmup_events": {"type": "int", "low": 50, "high": 1000, "log": True},
    "model.width": {"type": "categorical", "choices": [32, 48, 64, 96]},
    "model.n_layers": {"type": "int", "low": 2, "high": 4},
    "training.loss.momentum": {"type": "float", "low": 0.5, "high": 8.0, "log": True},
    "training.loss.event": {"type": "float", "low": 0.2, "high": 5.0, "log": True},
    "training.loss.shares": {"type": "float", "low": 0.2, "high": 5.0, "log": True},
}
EVENTS_SEEN, N_VALIDATIONS = 5000, 5
FIXED = {"events_seen": EVENTS_SEEN, "warmup_events": 0, "device": "cpu"}
log = logging.getLogger("record_curves")


def distributions() -> dict[str, BaseDistribution]:
    """Return Optuna's form of the space."""
    return {path: distribution(ParameterConfig(**parameter)) for path, parameter in SPACE.items()}


def configurations(n: int) -> list[dict[str, Any]]:
    """Return the first ``n`` points of a scrambled Sobol sequence over the space."""
    where = distributions()
    study = create_study(
        sampler=QMCSampler(
            scramble=True, seed=1, warn_independent_sampling=False, warn_asynchronous_seeding=False
        )
    )
    study.ask(where)  # the sampler takes its space from a first trial
    study.tell(0, 0.0)
    return [dict(study.ask(where).params) for _ in range(n)]


def train(number: int, config: dict[str, Any], manifest: Path) -> dict[str, Any]:
    """Train one configuration and return its row."""
    torch.set_num_threads(1)
    base = TrainSettings(seed=number, model={}, training=FIXED)
    model, training = apply_parameters(config, base.model, base.training)
    in_events = TrainSettings(seed=number, model=model, training=training)
    settings = with_steps(in_events, manifest)
    n_steps = settings.training.length
    every = {
        "valid_every_steps": -(-n_steps // N_VALIDATIONS),
        "checkpoint_every_steps": n_steps,
    }
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=every)})
    seen = events_after_steps(train_loader(in_events, manifest), EVENTS_SEEN)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="record_curves"))
    try:
        spec = TrainingSpec(settings, manifest, folder, n_steps)
        trainer = Trainer(
            spec,
            Workers(0, 1, torch.device("cpu")),
            ModelInputs.from_manifest(manifest),
            lambda: False,
        )
        trainer.metrics = MetricsLog(folder, 0, None)
        status, _ = trainer.run()
        trainer.metrics.close()
    finally:
        shutil.rmtree(folder)
    steps, losses = zip(*trainer.valid_curve, strict=True) if trainer.valid_curve else ((), ())
    return {
        "number": number,
        **config,
        "status": status,
        "seconds": time.monotonic() - started,
        "events_seen": [int(seen[int(step) - 1]) for step in steps],
        "valid_loss": list(losses),
    }


def importances(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return each parameter's share in the variance of the last loss of trainings that ended."""
    study = create_study()
    for row in rows:
        if row["status"] == "complete":
            params = {path: row[path] for path in SPACE}
            study.add_trial(
                create_trial(
                    params=params, distributions=distributions(), value=float(row["valid_loss"][-1])
                )
            )
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=1))
    return {path: round(share, 3) for path, share in found.items()}


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, help="manifest.json of training shards")
    parser.add_argument("output", type=Path, help="Parquet file, continued if it exists")
    parser.add_argument("--trainings", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows: list[dict[str, Any]] = []
    if options.output.exists():
        rows = cast("list[dict[str, Any]]", pd.read_parquet(options.output).to_dict("records"))
    configs = configurations(options.trainings)
    missing = sorted(set(range(len(configs))) - {row["number"] for row in rows})
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        for row in pool.map(
            train,
            missing,
            [configs[number] for number in missing],
            [options.manifest] * len(missing),
        ):
            rows.append(row)
            rows.sort(key=lambda row: row["number"])
            table = pd.DataFrame(rows)
            with atomic_output(options.output) as temporary:
                table.to_parquet(temporary, index=False)
            log.info(
                "training %d: %s, loss %s", row["number"], row["status"], row["valid_loss"][-1:]
            )
    shares = importances(rows)
    for path, share in shares.items():
        print(f"{share:6.3f}  {path}")
    complete = sum(row["status"] == "complete" for row in rows)
    print(json.dumps({"trainings": len(rows), "complete": complete, "importances": shares}))


if __name__ == "__main__":
    main()
