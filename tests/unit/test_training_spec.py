"""What a training is asked for: its identity, its stored result, its settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from particleforge.config.training import EXECUTION
from particleforge.errors import UserError
from particleforge.training.launch import run_training
from particleforge.training.spec import TrainingResult, TrainingSpec
from particleforge.training.train import with_best_settings

from .synthetic_shards import write_synthetic
from .test_training_loop import settings_of


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


def test_spec_and_result_survive_json(manifest: Path, tmp_path: Path) -> None:
    spec = TrainingSpec(settings_of(), manifest, tmp_path, 7, parent_checkpoint=Path("x/step_1.pt"))
    assert TrainingSpec.read(spec.write()) == spec
    result = TrainingResult(
        "complete",
        "7 steps done",
        7,
        1.5,
        1.25,
        [[7, 1.5]],
        tmp_path / "checkpoints" / "a.pt",
        None,
        None,
        3.0,
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a.pt").write_text("state")
    result.write(tmp_path, spec.identity(), 7)
    assert TrainingResult.read(tmp_path, spec.identity(), 7) == result
    assert TrainingResult.read(tmp_path, spec.identity(), 8) is None
    assert TrainingResult.read(tmp_path, "other", 7) is None


def test_identity_is_that_of_the_state_not_of_how_far(manifest: Path, tmp_path: Path) -> None:
    one = TrainingSpec(settings_of(), manifest, tmp_path, 7)
    assert (
        one.identity() == TrainingSpec(settings_of(), manifest, tmp_path / "other", 12).identity()
    )
    assert (
        one.identity()
        != TrainingSpec(settings_of(weight_decay=0.5), manifest, tmp_path, 7).identity()
    )


def test_identity_does_not_know_how_steps_are_computed(manifest: Path, tmp_path: Path) -> None:
    changed = {
        "ranks": 4,
        "accumulation_steps": 2,
        "device": "auto",
        "compile": True,
        "activation_checkpointing": True,
        "tracker": "mlflow",
    }
    changed |= {"checkpoint_every_steps": 3}
    assert set(changed) <= EXECUTION
    one, other = (TrainingSpec(settings_of(**own), manifest, tmp_path, 7) for own in ({}, changed))
    assert one.identity() == other.identity()


def test_identity_knows_the_content_of_a_file_to_start_from(manifest: Path, tmp_path: Path) -> None:
    source, moved = tmp_path / "best.pt", tmp_path / "moved.pt"
    spec, same, plain = (
        TrainingSpec(
            settings_of(**({"init_from": str(path)} if path else {})), manifest, tmp_path, 7
        )
        for path in (source, moved, None)
    )
    with pytest.raises(
        UserError,
        match=r"^training\.init_from: .*best\.pt: No such file or directory; give the best\.pt",
    ):
        spec.identity()
    source.write_bytes(b"one")
    moved.write_bytes(b"one")
    first = spec.identity()
    assert first == same.identity() != plain.identity()
    source.write_bytes(b"other")
    assert spec.identity() != first


@pytest.mark.parametrize(
    ("own", "equal"),
    [({}, False), ({"schedule_steps": 30}, True), ({"schedule": "constant"}, True)],
)
def test_identity_knows_max_steps_only_as_the_schedules_end(
    manifest: Path, tmp_path: Path, own: dict[str, Any], equal: bool
) -> None:
    short, long = (
        TrainingSpec(settings_of(max_steps=steps, **own), manifest, tmp_path, 7)
        for steps in (12, 24)
    )
    assert (short.identity() == long.identity()) is equal


def test_a_stored_result_is_that_of_a_run_that_would_end_there(
    manifest: Path, tmp_path: Path
) -> None:
    TrainingResult("complete", "early stopping", 7, 1.5, 1.25).write(tmp_path, "same", 20)
    found = {
        until: TrainingResult.read(tmp_path, "same", until) is not None for until in (6, 7, 20, 21)
    }
    assert found == {6: False, 7: True, 20: True, 21: False}


def test_best_settings_replace_what_they_name(tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    best.write_text(json.dumps({"model": {"width": 32}, "training": {"loss": {"momentum": 7.0}}}))
    merged = with_best_settings(settings_of(), best)
    assert (merged.model.width, merged.model.n_layers, merged.training.loss.momentum) == (
        32,
        1,
        7.0,
    )
    assert merged.training.loss.presence == settings_of().training.loss.presence
    best.write_text(json.dumps({"model": {"widht": 32}}))
    with pytest.raises(UserError, match=r"best\.yaml: model\.widht: unknown key"):
        with_best_settings(settings_of(), best)


def test_more_steps_than_configured_are_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.max_steps: is 12, but 13"):
        run_training(TrainingSpec(settings_of(), manifest, tmp_path, 13), 1)
