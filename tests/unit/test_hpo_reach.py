"""Every parameter of the shipped search spaces reaches a training: other values make other
networks, batches or weights.

Trials get their settings as the search gives them, and are built and trained for a few steps. All
else is small, so that the widest and deepest networks of a space take no time.
"""

import hashlib
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from particleforge.config.hpo import HpoConfig
from particleforge.config.load import load_run
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings
from particleforge.config.space import ParameterConfig
from particleforge.config.training import TrainingConfig
from particleforge.hpo.budgets import lengths_of
from particleforge.hpo.space import trial_settings
from particleforge.model.inputs import ModelInputs
from particleforge.training.distributed import Workers
from particleforge.training.metrics import MetricsLog
from particleforge.training.spec import TrainingSpec
from particleforge.training.trainer import Trainer

from .synthetic_shards import write_synthetic

CONFIG = Path(__file__).parents[2] / "config"
STEPS = 2
SETTINGS = HpoSettings(
    seed=3,
    model=ModelConfig(width=32, n_heads=8, n_layers=1, local_attention=False),
    training=TrainingConfig(max_steps=4000, warmup_steps=250, device="cpu"),
    hpo=HpoConfig(
        scheduler="asha",
        sampler="random",
        n_rungs=1,
        first_rung_slots=1,
        min_steps=STEPS,
    ),
)

# the same with lengths in events, for parameters that are
IN_EVENTS = SETTINGS.model_copy(
    update={
        "training": TrainingConfig(events_seen=40_000_000, warmup_events=0, device="cpu"),
        "hpo": HpoConfig(n_rungs=1, first_rung_slots=1, min_events=800),
    }
)


@cache
def space_of(preset: str) -> dict[str, ParameterConfig]:
    return load_run(CONFIG, {"preset": preset}).hpo.space


PARAMETERS = [(preset, path) for preset in ("smoke", "demo", "large") for path in space_of(preset)]
CONDITIONAL = [(preset, path) for preset, path in PARAMETERS if space_of(preset)[path].when]


def trained(space: dict[str, ParameterConfig], path: str) -> list[Any]:
    """Values that must differ in what they do: the ends of a range, all names."""
    values = space[path].values()
    return list(values) if isinstance(values[0], str) else [values[0], values[-1]]


def around(space: dict[str, ParameterConfig], path: str, *, holds: bool) -> dict[str, Any]:
    """Values of other parameters with which the conditions of the one at ``path`` hold, or none of
    them does.
    """
    found: dict[str, Any] = {}
    for parent, values in space[path].when.items():
        others = [value for value in space[parent].values() if value not in values]
        found |= {**around(space, parent, holds=True), parent: values[0] if holds else others[0]}
    return found


class Trials:
    """Trains on events that fill several windows and bins.

    Plans batches on more events than the largest batch takes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.few = write_synthetic(folder / "few", train=(4,), valid=1, test=1, longest=450)
        self._known: dict[str, str] = {}

    @cached_property
    def many(self) -> Path:
        return write_synthetic(self.folder / "many", train=(1500,), valid=1, test=1, longest=450)

    def trainer(self, params: dict[str, Any], manifest: Path) -> Trainer:
        work_dir = self.folder / str(len(self._known))
        work_dir.mkdir(exist_ok=True)
        settings = IN_EVENTS if any(path.endswith("_events") for path in params) else SETTINGS
        own = trial_settings(settings, params, lengths=lengths_of(settings, params, manifest))
        spec = TrainingSpec(own, manifest, work_dir, STEPS)
        trainer = Trainer(
            spec,
            Workers(0, 1, torch.device("cpu")),
            ModelInputs.from_manifest(manifest),
            lambda: False,
        )
        trainer.metrics = MetricsLog(work_dir, 0, None)
        return trainer

    def weights(self, params: dict[str, Any]) -> str:
        """Return a hash of what the search would judge after the last step: names, shapes and
        values of the weights.
        """
        key = repr(sorted(params.items()))
        if key not in self._known:
            trainer = self.trainer(params, self.few)
            assert trainer.run()[0] == "complete"
            trainer.metrics.close()
            digest = hashlib.sha256()
            for name, tensor in trainer.parallelism.weights(trainer.scored).items():
                digest.update(
                    f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes()
                )
            self._known[key] = digest.hexdigest()
        return self._known[key]

    def batches(self, params: dict[str, Any]) -> int:
        """Return the number of batches of an epoch."""
        trainer = self.trainer(params, self.many)
        trainer.metrics.close()
        return sum(1 for _ in trainer.train_loader.plan(0))


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for sums in one order
    yield Trials(tmp_path_factory.mktemp("trials"))
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("preset", "path"), PARAMETERS)
def test_a_parameter_changes_what_is_trained(trials: Trials, preset: str, path: str) -> None:
    space = space_of(preset)
    judged = trials.batches if path == "training.elements_per_batch" else trials.weights
    outcomes = [
        judged({**around(space, path, holds=True), path: value}) for value in trained(space, path)
    ]
    assert len(set(outcomes)) == len(outcomes) >= 2


@pytest.mark.parametrize(("preset", "path"), CONDITIONAL)
def test_a_parameter_changes_nothing_where_its_conditions_do_not_hold(
    trials: Trials, preset: str, path: str
) -> None:
    space = space_of(preset)
    outcomes = {
        trials.weights({**around(space, path, holds=False), path: value})
        for value in trained(space, path)
    }
    assert len(outcomes) == 1
