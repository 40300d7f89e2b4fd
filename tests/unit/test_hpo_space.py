"""The search space: its mistakes are found when the configuration is read, and each of its
parameters reaches model or training.
"""

from pathlib import Path
from typing import Any

import pytest

from particleforge.config.hpo import HpoConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.model import ModelConfig
from particleforge.config.run import RunConfig
from particleforge.config.settings import HpoSettings
from particleforge.config.space import ParameterConfig, active_parameters, apply_parameters
from particleforge.config.space_checks import DECIDED_BY_SEARCH, check_space
from particleforge.config.training import TrainingConfig
from particleforge.errors import UserError
from particleforge.hpo import dag
from particleforge.hpo.space import configured, contains, distributions, trial_settings

CONFIG = Path(__file__).parents[2] / "config"
PRESETS = ("smoke", "demo", "large")
WINDOW: dict[str, Any] = {"type": "int", "low": 16, "high": 64}


def settings_of(run: RunConfig) -> HpoSettings:
    return HpoSettings(seed=run.seed, model=run.model, training=run.training, hpo=run.hpo)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            {"model.widht": {"type": "int", "low": 1, "high": 4}},
            "'model.widht'.*did you mean 'model.width'",
        ),
        ({"model": {"type": "int", "low": 1, "high": 4}}, "no setting 'model'"),
        (
            {"training.max_steps": {"type": "int", "low": 1, "high": 4}},
            "no setting 'training.max_steps'",
        ),
        (
            {"model.n_layers": {"type": "float", "low": 1, "high": 4}},
            "n_layers.*must be int or categorical",
        ),
        (
            {"model.activation": {"type": "int", "low": 1, "high": 4}},
            "activation.*must be categorical",
        ),
        (
            {"model.activation": {"type": "categorical", "choices": ["gelu", "tanh"]}},
            "activation = 'tanh' is not allowed",
        ),
        (
            {"training.beta2": {"type": "float", "low": 0.5, "high": 1.5}},
            "beta2 = 1.5 is not allowed.*less than 1",
        ),
        ({"training.learning_rate": {"type": "float", "low": 0.1, "high": 0.01}}, "low < high"),
        (
            {"training.learning_rate": {"type": "float", "low": 0, "high": 0.01, "log": True}},
            "log needs low > 0",
        ),
        (
            {"training.warmup_steps": {"type": "int", "low": 1, "high": 10, "step": 2}},
            "multiple of step",
        ),
        ({"training.warmup_steps": {"type": "int", "low": 1.5, "high": 10}}, "whole numbers"),
        (
            {"model.n_heads": {"type": "categorical", "choices": [2, 3]}},
            "n_heads = 3 must divide model.width = 64",
        ),
        ({"model.n_heads": {"type": "categorical", "choices": []}}, "needs choices"),
        ({"model.n_heads": {"type": "categorical", "choices": [2, 2]}}, "given twice"),
        (
            {"training.beta2": {"type": "float", "low": 0.5, "high": 0.9, "step": 0}},
            "step.*greater than 0",
        ),
        (
            {"training.beta2": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.3}},
            "multiple of step",
        ),
        ({"training.beta2": {"type": "float", "low": 0.5, "high": 0.5}}, "low < high"),
        (
            {
                "training.beta2": {
                    "type": "float",
                    "low": 0.5,
                    "high": 0.9,
                    "when": {"training.optimiser": []},
                }
            },
            "at least one value",
        ),
        (
            WINDOW | {"when": {"model.backbon": ["windowed_attention"]}},
            "when: no setting 'model.backbon'; did you mean 'model.backbone'",
        ),
        (
            WINDOW | {"when": {"model.backbone": ["windowed"]}},
            "when: model.backbone can never be 'windowed'",
        ),
        (WINDOW | {"when": {"model.n_layers": [0]}}, "when: model.n_layers can never be 0"),
        (
            {
                "model.backbone": {"type": "categorical", "choices": ["attention", "gnn_lsh"]},
                "model.window_elements": (
                    WINDOW | {"when": {"model.backbone": ["windowed_attention"]}}
                ),
            },
            "model.window_elements.when: model.backbone can never be 'windowed_attention'",
        ),
        (
            {
                "model.n_layers": {
                    "type": "int",
                    "low": 1,
                    "high": 2,
                    "when": {"model.n_heads": [4]},
                },
                "model.n_heads": {
                    "type": "categorical",
                    "choices": [4, 8],
                    "when": {"model.n_layers": [1]},
                },
            },
            "conditions go in a circle: model.n_",
        ),
        (
            {
                "model.backbone": {"type": "categorical", "choices": ["attention", "gnn_lsh"]},
                "model.n_heads": {
                    "type": "categorical",
                    "choices": [4, 6],
                    "when": {"model.backbone": ["gnn_lsh"]},
                },
            },
            "model.n_heads = 6 is not allowed: .* must divide model.width = 64",
        ),
        (
            {
                "model.width": {"type": "categorical", "choices": [48, 64]},
                "model.n_heads": {"type": "categorical", "choices": [4, 6]},
                "model.n_layers": {"type": "int", "low": 1, "high": 3},
            },
            "model.width = 64, model.n_heads = 6 is not allowed",
        ),
    ],
)
def test_mistakes_are_explained_in_one_line(
    tmp_path: Path, space: dict[str, Any], expected: str
) -> None:
    if "type" in space:
        space = {"model.window_elements": space}
    (tmp_path / "config.yaml").write_text("preset: none\ndetector: any\n")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "none.yaml").write_text("")
    with pytest.raises(UserError, match=expected) as caught:
        load_run(tmp_path, {"hpo": {"space": space}})
    assert "\n" not in str(caught.value)


def test_heads_and_widths_that_fit_only_each_other_are_accepted() -> None:
    """Six heads do not divide the configured width of 64, but every width of the space."""
    space = {
        "model.width": ParameterConfig(type="categorical", choices=(48, 96)),
        "model.n_heads": ParameterConfig(type="categorical", choices=(6, 12)),
    }
    check_space(space, ModelConfig(width=64, n_heads=4), TrainingConfig())


def test_a_pair_that_conditions_keep_apart_is_no_mistake() -> None:
    """Six heads would not divide a width of 64, but are tried with 96 only."""
    space = {
        "model.width": ParameterConfig(type="categorical", choices=(64, 96)),
        "model.n_heads": ParameterConfig(
            type="categorical", choices=(4, 6), when={"model.width": (96,)}
        ),
    }
    check_space(space, ModelConfig(), TrainingConfig())
    with pytest.raises(ValueError, match="n_heads = 6 is not allowed"):
        check_space(
            space | {"model.n_heads": ParameterConfig(type="categorical", choices=(4, 6))},
            ModelConfig(),
            TrainingConfig(),
        )


def test_a_condition_on_a_setting_outside_the_space_asks_for_its_configured_value() -> None:
    space = {
        "model.window_elements": ParameterConfig(
            **WINDOW, when={"model.backbone": ("windowed_attention",)}
        )
    }
    for backbone, active in (
        ("attention", set()),
        ("windowed_attention", {"model.window_elements"}),
    ):
        model = ModelConfig(backbone=backbone)
        check_space(space, model, TrainingConfig())
        defaults = configured(space, model, TrainingConfig())
        assert set(active_parameters(space, [{"model.window_elements": 32}], defaults)[0]) == active


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model.width": {"choices": [16, 48]}}, ("categorical", (16, 48))),
        ({"model.width": None}, None),
    ],
)
def test_a_shipped_space_is_changed_key_by_key(changes: dict[str, Any], expected: Any) -> None:
    run = load_run(CONFIG, {"preset": "demo", "hpo": {"space": changes}})
    width = run.hpo.space.get("model.width")
    assert (width and (width.type, width.choices)) == expected
    assert "training.learning_rate" in run.hpo.space


def test_a_shipped_space_lies_below_config_yaml_and_is_chosen_by_any_layer(tmp_path: Path) -> None:
    for folder in ("presets", "spaces"):
        (tmp_path / folder).mkdir()
    own = "{training.beta2: null, training.weight_decay: {type: float, low: 0.0, high: 0.5}}"
    (tmp_path / "config.yaml").write_text(f"preset: any\ndetector: any\nhpo: {{space: {own}}}\n")
    (tmp_path / "presets/any.yaml").write_text("hpo: {space_from: mine}")
    decay = "training.weight_decay: {type: float, low: 0.0, high: 0.1}"
    (tmp_path / "spaces/mine.yaml").write_text(
        f"{decay}\ntraining.beta2: {{type: float, low: 0.5, high: 0.9}}\n"
    )
    space = load_run(tmp_path).hpo.space
    assert set(space) == {"training.weight_decay"}
    assert (space["training.weight_decay"].low, space["training.weight_decay"].high) == (0.0, 0.5)
    (tmp_path / "config.yaml").write_text("preset: any\ndetector: any\n")
    assert set(load_run(tmp_path).hpo.space) == {"training.beta2", "training.weight_decay"}
    assert load_run(tmp_path, {"hpo": {"space_from": None}}).hpo.space == {}
    with pytest.raises(UserError, match=r"spaces/min\.yaml: no such file; .*did you mean 'mine'"):
        load_run(tmp_path, {"hpo": {"space_from": "min"}})
    (tmp_path / "spaces/mine.yaml").write_text("training.beta3: {type: float, low: 0.5, high: 0.9}")
    with pytest.raises(UserError, match=r"spaces/mine\.yaml: .*did you mean 'training\.beta2'"):
        load_run(tmp_path)


def test_a_grid_smaller_than_the_search_is_refused() -> None:
    small = {
        "model.width": None,
        "training.elements_per_batch": None,
        "training.learning_rate": None,
        "training.weight_decay": None,
        "training.loss.momentum": None,
    }
    # 4 * 3 * 3 * 2**3 points
    load_run(CONFIG, {"preset": "demo", "hpo": {"sampler": "grid", "grid_points": 2}})
    with pytest.raises(
        UserError, match=r"hpo\.first_rung_slots: 12 configurations .* has 3 points; lower the one"
    ):
        load_run(CONFIG, {"preset": "demo", "hpo": {"sampler": "grid", "space": small}})
    with pytest.raises(UserError, match=r"grid has more than 10000 points"):
        load_run(CONFIG, {"preset": "demo", "hpo": {"sampler": "grid", "grid_points": 50}})


def test_a_preset_takes_a_parameter_out_with_null() -> None:
    run = load_run(CONFIG, {"hpo": {"space": {"model.width": None}}})
    assert "model.width" not in run.hpo.space
    assert run.hpo.space


@pytest.mark.parametrize(
    ("hpo", "expected"),
    [
        ({"first_rung_slots": 8, "eta": 3, "n_rungs": 3}, "need at least eta"),
        (
            {"schedule_steps": 50, "min_steps": 10, "eta": 3, "n_rungs": 3},
            "ends before the top rung",
        ),
    ],
)
def test_rungs_must_fit(hpo: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        HpoConfig(**hpo)


@pytest.mark.parametrize(
    ("older", "newer", "widens"),
    [
        ({"type": "float", "low": 1, "high": 2}, {"type": "float", "low": 0.5, "high": 2}, True),
        ({"type": "float", "low": 1, "high": 2}, {"type": "float", "low": 1.5, "high": 2}, False),
        (
            {"type": "float", "low": 1, "high": 2},
            {"type": "float", "low": 1, "high": 2, "log": True},
            False,
        ),
        (
            {"type": "int", "low": 2, "high": 8, "step": 2},
            {"type": "int", "low": 0, "high": 8, "step": 2},
            True,
        ),
        (
            {"type": "int", "low": 2, "high": 8, "step": 2},
            {"type": "int", "low": 1, "high": 9, "step": 2},
            False,
        ),
        (
            {"type": "categorical", "choices": [1, 2]},
            {"type": "categorical", "choices": [3, 2, 1]},
            True,
        ),
        (
            {"type": "categorical", "choices": [1, 2]},
            {"type": "categorical", "choices": [1]},
            False,
        ),
        (
            {**WINDOW, "when": {"model.n_layers": [1]}},
            {**WINDOW, "when": {"model.n_layers": [1, 2]}},
            True,
        ),
        (
            {**WINDOW, "when": {"model.n_layers": [1, 2]}},
            {**WINDOW, "when": {"model.n_layers": [1]}},
            False,
        ),
        ({**WINDOW, "when": {"model.n_layers": [1]}}, WINDOW, True),
        (WINDOW, {**WINDOW, "when": {"model.n_layers": [1]}}, False),
    ],
)
def test_widening(older: dict[str, Any], newer: dict[str, Any], widens: bool) -> None:
    assert ParameterConfig(**newer).widens(ParameterConfig(**older)) is widens


@pytest.mark.parametrize("preset", PRESETS)
def test_the_default_configuration_of_each_preset_lies_in_its_space(preset: str) -> None:
    settings = settings_of(load_run(CONFIG, {"preset": preset}))
    where = distributions(settings.hpo)
    for path, value in configured(settings.hpo.space, settings.model, settings.training).items():
        assert contains(where[path], value), f"{path} = {value}"


def test_what_the_search_decides() -> None:
    settings = HpoSettings(
        seed=1,
        model=ModelConfig(),
        training=TrainingConfig(
            valid_every_steps=200,
            early_stopping_patience=3,
            max_steps=5400,
            ranks=4,
            warmup_steps=100,
        ),
        hpo=HpoConfig(min_steps=60, eta=3, n_rungs=3, ranks=2),
    )
    training = trial_settings(settings, {}).training
    assert (
        training.ranks,
        training.max_steps,
        training.warmup_steps,
        training.early_stopping_patience,
    ) == (2, 540, 10, 0)
    assert all(
        dag.budget_steps(settings.hpo, rung) % training.valid_every_steps == 0 for rung in range(3)
    )
    changed = {
        f"training.{name}" for name, value in training if value != getattr(settings.training, name)
    }
    assert changed <= DECIDED_BY_SEARCH | {"training.warmup_steps"}


IN_STEPS = {"events_seen": None, "warmup_events": None}


@pytest.mark.parametrize(
    ("fixed", "changed", "same"),
    [
        ({"schedule_events": 900_000}, {"events_seen": 800_000}, True),
        ({"schedule": "constant"}, {"events_seen": 800_000}, True),
        # the trials' warm-up is as large a part of their schedule
        ({}, {"events_seen": 800_000}, False),
        (IN_STEPS | {"schedule_steps": 9000}, {"max_steps": 8000}, True),
        (IN_STEPS | {"schedule": "constant"}, {"max_steps": 8000}, True),
        (IN_STEPS, {"max_steps": 8000}, False),
        ({}, {"ranks": 3}, True),
        ({}, {"early_stopping_patience": 3}, True),
        ({}, {"learning_rate": 0.1}, False),
    ],
    ids=str,
)
def test_what_only_the_final_training_sees_is_the_same_search(
    fixed: dict[str, Any], changed: dict[str, Any], same: bool
) -> None:
    detector = load_detector(CONFIG, "clic")
    runs = (load_run(CONFIG, {"training": {**fixed, **more}}) for more in ({}, changed))
    before, after = (HpoSettings.of(run, detector).plain() for run in runs)
    assert (before == after) is same


def test_apply_leaves_the_rest_alone() -> None:
    model, training = apply_parameters(
        {"training.loss.momentum": 7.0, "model.width": 32}, ModelConfig(), TrainingConfig()
    )
    assert model == ModelConfig(width=32)
    assert training.loss.momentum == 7.0
    assert training.model_copy(update={"loss": TrainingConfig().loss}) == TrainingConfig()
