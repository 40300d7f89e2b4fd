"""The search over real trainings."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from particleforge.config.hpo import HpoConfig
from particleforge.config.model import ModelConfig
from particleforge.config.settings import HpoSettings, TrainSettings
from particleforge.config.space import apply_parameters
from particleforge.config.training import TrainingConfig
from particleforge.hpo import dag
from particleforge.hpo.best import select_best_trial
from particleforge.hpo.budgets import lengths_of
from particleforge.hpo.slot import run_hpo_slot
from particleforge.hpo.space import trial_settings
from particleforge.training.checkpoint import latest_state
from particleforge.training.launch import TrainingSpec, run_training
from particleforge.training.spec import CHECKPOINTS
from particleforge.training.train import with_best_settings

from ..unit.synthetic_shards import write_synthetic

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def settings() -> HpoSettings:
    space = {
        "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "training.loss.momentum": {"type": "float", "low": 0.5, "high": 8.0, "log": True},
        "model.width": {"type": "categorical", "choices": [16, 32]},
    }
    return HpoSettings(
        seed=3,
        model=ModelConfig(width=16, n_layers=1, n_heads=2),
        training=TrainingConfig(
            warmup_steps=2, elements_per_batch=512, max_steps=8, valid_every_steps=2
        ),
        hpo=HpoConfig(
            scheduler="asha",
            first_rung_slots=2,
            eta=2,
            n_rungs=2,
            min_steps=4,
            ranks=2,
            space=space,
        ),
    )


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory, manifest: Path, settings: HpoSettings) -> Path:
    folder = tmp_path_factory.mktemp("hpo")
    for rung, slot in dag.all_slots(settings.hpo):
        run_hpo_slot(
            settings,
            (rung, slot),
            manifest=manifest,
            work_dir=folder / "work",
            output=folder / f"{rung}-{slot}.json",
        )
    return folder


def test_promotion_is_bit_identical_to_never_having_stopped(
    search: Path, manifest: Path, settings: HpoSettings, tmp_path: Path
) -> None:
    promoted = json.loads((search / "1-0.json").read_text())
    assert promoted["status"] == "complete"
    spec = TrainingSpec(
        trial_settings(settings, promoted["params"]),
        manifest,
        tmp_path,
        until_step=promoted["steps"],
    )
    straight = run_training(spec, settings.hpo.ranks)
    assert straight.valid_loss == promoted["value"]


def test_workers_double_and_the_same_checkpoint_goes_on(
    manifest: Path, settings: HpoSettings, tmp_path: Path
) -> None:
    """Rasda on real processes: two workers go on from the checkpoint of one, with twice the batch,
    to twice the events.
    """
    block = {
        "scheduler": "rasda",
        "first_rung_slots": 2,
        "eta": 2,
        "n_rungs": 2,
        "min_events": 200,
        "sampler": "random",
    }
    rasda = settings.model_copy(update={"hpo": HpoConfig(**block, space=settings.hpo.space)})
    for place in dag.all_slots(rasda.hpo):
        run_hpo_slot(
            rasda,
            place,
            manifest=manifest,
            work_dir=tmp_path / "work",
            output=tmp_path / f"{place[0]}-{place[1]}.json",
        )
    promoted = json.loads((tmp_path / "1-0.json").read_text())
    assert promoted["status"] == "complete", promoted["reason"]
    ends = lengths_of(rasda, promoted["params"], manifest).ends
    assert promoted["steps"] == ends[1] < 2 * ends[0], (
        "a larger batch needs fewer steps for as many events"
    )
    (folder,) = (tmp_path / "work").glob("*/1-00000")
    state = latest_state(folder / CHECKPOINTS)
    assert state is not None
    assert [(now["from_step"], now["ranks"]) for now in state["execution"]] == [
        (0, 1),
        (ends[0], 2),
    ]
    assert (state["step"], state["elements_per_batch"]) == (
        ends[1],
        2 * settings.training.elements_per_batch,
    )


def test_a_killed_job_run_again_ends_as_if_never_killed(
    search: Path, manifest: Path, settings: HpoSettings, tmp_path: Path
) -> None:
    """SIGKILL the job, not its training processes, as soon as a checkpoint lies there."""
    often = settings.model_copy(
        update={"training": settings.training.model_copy(update={"checkpoint_every_steps": 1})}
    )
    script = (
        "import sys; from pathlib import Path; from particleforge.config.settings import"
        " HpoSettings; from particleforge.hpo.slot import run_hpo_slot;"
        " manifest, work, output = map(Path, sys.argv[2:5]);"
        " run_hpo_slot(HpoSettings.model_validate_json(sys.argv[1]), (0, 1), manifest=manifest,"
        " work_dir=work, output=output)"
    )
    work, output = tmp_path / "work", tmp_path / "0-1.json"
    job = subprocess.Popen(
        [
            sys.executable,
            "-c",
            script,
            often.model_dump_json(),
            str(manifest),
            str(work),
            str(output),
        ]
    )
    while not list(work.rglob("step_*.pt")):
        assert job.poll() is None, "the job ended before it wrote a checkpoint"
        time.sleep(0.02)
    job.kill()
    job.wait()
    assert not output.exists()
    run_hpo_slot(often, (0, 1), manifest=manifest, work_dir=work, output=output)
    again, whole = json.loads(output.read_text()), json.loads((search / "0-1.json").read_text())
    assert (again["params"], again["value"]) == (whole["params"], whole["value"])
    assert again["trial"] == 0, "the killed job's own trial was gone on with"


def test_best_feeds_the_final_training(
    search: Path, manifest: Path, settings: HpoSettings, tmp_path: Path
) -> None:
    best = tmp_path / "best.yaml"
    slots = [search / f"{rung}-{slot}.json" for rung, slot in dag.all_slots(settings.hpo)]
    select_best_trial(
        settings,
        slots=slots,
        work_dir=search / "work",
        manifest=manifest,
        best=best,
        trials=tmp_path / "trials.csv",
        plots={"rungs": tmp_path / "rungs.png"},
    )
    winner = json.loads((search / "1-0.json").read_text())
    assert yaml.safe_load(best.read_text())["value"] == winner["value"]
    final = with_best_settings(
        TrainSettings(seed=3, model=settings.model, training=settings.training), best
    )
    assert (final.model, final.training) == apply_parameters(
        winner["params"], settings.model, settings.training
    )
