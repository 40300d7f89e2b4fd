"""Record validation curves of many short trainings of random configurations.

Inputs -> outputs: the manifest of training shards -> a Parquet file with one row per training: its
configuration (one column per dotted path of ``SPACE``), ``status``, and the lists
``steps`` and ``valid_loss``. Trainings run one after another in each of ``--jobs`` processes, on
one thread each. Run again, it goes on with the trainings that the file lacks.
"""

import argparse
import json
import logging
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import QMCSampler
from optuna.study import create_study

from particleforge.artefacts import atomic_output
from particleforge.config.settings import TrainSettings
from particleforge.config.space import ParameterConfig, apply_parameters
from particleforge.hpo.space import distribution
from particleforge.model.inputs import ModelInputs
from particleforge.training.distributed import Workers
from particleforge.training.metrics import MetricsLog
from particleforge.training.spec import TrainingSpec
from particleforge.training.trainer import Trainer

SPACE: dict[str, dict[str, Any]] = {
    "model.width": {"type": "categorical", "choices": [16, 32, 48, 64]},
    "model.n_layers": {"type": "int", "low": 1, "high": 3},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.3},
    "training.learning_rate": {"type": "float", "low": 2e-4, "high": 5e-2, "log": True},
    "training.weight_decay": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "training.warmup_steps": {"type": "int", "low": 1, "high": 100, "log": True},
    "training.beta2": {"type": "categorical", "choices": [0.9, 0.98, 0.999]},
    "training.loss.momentum": {"type": "float", "low": 0.2, "high": 20.0, "log": True},
}
MAX_STEPS, N_VALIDATIONS = 324, 27
FIXED = {
    "max_steps": MAX_STEPS,
    "valid_every_steps": MAX_STEPS // N_VALIDATIONS,
    "checkpoint_every_steps": MAX_STEPS,
    "elements_per_batch": 512,
    "device": "cpu",
}
log = logging.getLogger("record_curves")


def configurations(n: int) -> list[dict[str, Any]]:
    """Return the first ``n`` points of a scrambled Sobol sequence over the space."""
    where: dict[str, BaseDistribution] = {
        path: distribution(ParameterConfig(**parameter)) for path, parameter in SPACE.items()
    }
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
    settings = TrainSettings(seed=number, model=model, training=training)
    folder = Path(tempfile.mkdtemp(prefix="record_curves"))
    try:
        spec = TrainingSpec(settings, manifest, folder, MAX_STEPS)
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
        "steps": list(steps),
        "valid_loss": list(losses),
    }


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, help="manifest.json of training shards")
    parser.add_argument("output", type=Path, help="Parquet file, continued if it exists")
    parser.add_argument("--trainings", type=int, default=256)
    parser.add_argument(
        "--repeats", type=int, default=16, help="trainings made a second time, from another seed"
    )
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows: list[dict[str, Any]] = []
    if options.output.exists():
        rows = cast("list[dict[str, Any]]", pd.read_parquet(options.output).to_dict("records"))
    configs = configurations(options.trainings)
    configs += configs[: options.repeats]
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
    print(
        json.dumps(
            {"trainings": len(rows), "complete": sum(row["status"] == "complete" for row in rows)}
        )
    )


if __name__ == "__main__":
    main()
