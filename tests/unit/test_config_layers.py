"""Layers are merged first and validated once; a mistake is laid to the layer that made it."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from particleforge.config.load import load_detector, load_published, load_run
from particleforge.config.model import ModelConfig
from particleforge.config.renamed import REMOVED_KEYS, RENAMED_KEYS
from particleforge.errors import UserError

from .simulation_fixtures import CONFIG

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that makes config.yaml and a preset ``mine``, and returns their folder."""
    folder = Path(shutil.copytree(CONFIG, tmp_path / "config"))

    def written(config: dict[str, Any], preset: dict[str, Any] | None = None) -> Path:
        whole = {"detector": "clic", "preset": "mine", **config}
        (folder / "config.yaml").write_text(yaml.safe_dump(whole))
        (folder / "presets/mine.yaml").write_text(yaml.safe_dump(preset or {}))
        return folder

    return written


def test_a_range_of_the_shipped_space_is_changed_alone(write: Write) -> None:
    part = {"training.learning_rate": {"high": 0.01}}
    folder = write({"hpo": {"space_from": "small", "space": part}})
    assert load_run(folder).hpo.space["training.learning_rate"].high == 0.01
    assert load_run(folder).hpo.space["training.learning_rate"].low == 5e-4
    folder = write({"hpo": {"space_from": "small"}}, {"hpo": {"space": part}})
    assert load_run(folder).hpo.space["training.learning_rate"].high == 0.01
    over = {"hpo": {"space": {"training.learning_rate": {"high": 0.02}}}}
    assert load_run(folder, over).hpo.space["training.learning_rate"].high == 0.02


def test_what_a_later_layer_mends_is_no_mistake(write: Write) -> None:
    folder = write(
        {"training": {"schedule_steps": 3000, "max_steps": 3000}}, {"training": {"max_steps": 4000}}
    )
    assert load_run(folder, {"training": {"max_steps": 3000}}).training.schedule_length == 3000
    with pytest.raises(
        UserError, match=r"presets/mine\.yaml: training: training\.schedule_steps = 3000"
    ):
        load_run(folder)


SPACE = {"model.width": {"type": "categorical", "choices": [32, 64]}}


@pytest.mark.parametrize(
    ("config", "preset", "overrides", "source", "words"),
    [
        # a key: the last that set it
        ({"seed": -1}, {}, {"training": {"max_steps": 5}}, "config.yaml", "seed"),
        ({"seed": -1}, {"seed": -2}, {"model": {}}, "mine.yaml", "got -2"),
        ({"seed": 1}, {}, {"seed": -3}, "--set", "got -3"),
        ({"hpo": {"pin_trial": [1]}}, {"hpo": {}}, {}, "config.yaml", "hpo.pin_trial: Input"),
        # an unknown key: the one that has it
        ({"training": {"steps": 1}}, {"training": {"max_steps": 5}}, {}, "config.yaml", "unknown"),
        # several keys: the last that set one of them
        (
            {"model": {"n_heads": 3}},
            {"model": {"width": 64}},
            {"model": {"n_layers": 2}},
            "mine.yaml",
            "n_heads = 3",
        ),
        (
            {"model": {"n_heads": 3}},
            {"model": {"n_layers": 2}},
            {"seed": 3},
            "config.yaml",
            "n_heads = 3",
        ),
        (
            {"training": {"schedule_steps": 5}},
            {},
            {"training": {"ranks": 2}},
            "config.yaml",
            "ends the cosine",
        ),
        (
            {"training": {"events_seen": 500}},
            {"training": {"max_steps": 5}},
            {},
            "mine.yaml",
            "max_steps = 5 and training.events_seen = 500 are given; keep one",
        ),
        # of several blocks
        (
            {"hpo": {"min_steps": 5}},
            {"training": {"events_seen": 500}},
            {},
            "mine.yaml",
            "hpo.min_steps = 5, but training.events_seen = 500; give hpo.min_events",
        ),
        (
            {"training": {"compile": True, "ranks": 2}},
            {"training": {"parallelism": "fsdp"}},
            {"model": {"width": 64}},
            "mine.yaml",
            "training.compile",
        ),
        (
            {"hpo": {"space": SPACE}},
            {"model": {"n_heads": 5, "width": 40}},
            {"training": {"ranks": 1}},
            "mine.yaml",
            "model.width = 32",
        ),
        # in a space
        (
            {"hpo": {"space": {"model.widht": SPACE["model.width"]}}},
            {"model": {"width": 64}},
            {"hpo": {"eta": 3}},
            "config.yaml",
            "no setting 'model.widht'",
        ),
        (
            {"hpo": {"space_from": "small"}},
            {"hpo": {"space": {"model.n_layers": {"low": 9}}}},
            {"hpo": {"eta": 3}},
            "mine.yaml",
            "low < high",
        ),
        (
            {},
            {"hpo": {"space": {"model.n_layers": {"low": 9}}}},
            {"hpo": {"eta": 3}},
            "mine.yaml",
            "model.n_layers.type: required",
        ),
        # a block that is none, which a later layer would hide
        (
            {"training": 5},
            {"training": {"max_steps": 5}},
            {},
            "config.yaml",
            "training: must hold keys",
        ),
        (
            {"training": {"loss": None}},
            {"training": {"loss": {}}},
            {},
            "config.yaml",
            "training.loss: must hold keys",
        ),
    ],
)
def test_a_mistake_is_laid_to_the_last_layer_that_made_it(
    write: Write,
    config: dict[str, Any],
    preset: dict[str, Any],
    overrides: dict[str, Any],
    source: str,
    words: str,
) -> None:
    with pytest.raises(UserError) as refused:
        load_run(write(config, preset), overrides, "--set")
    laid, _, rest = str(refused.value).partition(": ")
    assert laid.endswith(source)
    assert words in rest
    assert "\n" not in rest


def test_a_missing_key_is_laid_to_config_yaml(write: Write) -> None:
    folder = write({"hpo": {"space_from": "small"}})
    (folder / "config.yaml").write_text("hpo: {space_from: small}\npreset: mine\n")
    with pytest.raises(UserError, match=r"config\.yaml: detector: required key is missing"):
        load_run(folder, {"seed": 1})


def test_a_detector_that_extends_another_is_blamed_for_what_it_set(write: Write) -> None:
    folder = write({})
    (folder / "detectors/mine.yaml").write_text("extends: clic\ntracker: {radius_mm: -1}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: tracker\.radius_mm"):
        load_detector(folder, "mine")
    base = folder / "detectors/clic.yaml"
    base.write_text(base.read_text().replace("b_field_tesla:", "b_field_tesla: -1 #"))
    (folder / "detectors/mine.yaml").write_text("extends: clic\ntitle: Mine\n")
    with pytest.raises(UserError, match=r"clic\.yaml: b_field_tesla"):
        load_detector(folder, "mine")


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_old_keys_say_their_new_name(write: Write, old: str, new: str) -> None:
    content: Any = ["scaling_law"] if old == "report.studies" else {"ranks": 1}
    for name in reversed(old.split(".")):
        content = {name: content}
    for config, overrides in ((content, {}), ({}, content)):
        with pytest.raises(UserError, match=rf": {old}: is renamed to {new}; write that$"):
            load_run(write(config), overrides)


@pytest.mark.parametrize("old", REMOVED_KEYS)
def test_keys_that_are_gone_say_what_to_do(write: Write, old: str) -> None:
    content: Any = 0.4
    for name in reversed(old.split(".")):
        content = {name: content}
    with pytest.raises(UserError, match=rf": {old}: is gone; take it out: {REMOVED_KEYS[old]}$"):
        load_run(write({}), content, "--set")


def test_the_old_preset_says_its_new_name_unless_a_user_has_one_of_it(write: Write) -> None:
    folder = write({})
    with pytest.raises(UserError, match=r"study\.yaml: no such file; preset study is renamed to"):
        load_run(folder, {"preset": "study"})
    (folder / "presets/study.yaml").write_text("seed: 5\n")
    assert load_run(folder, {"preset": "study"}).seed == 5


def test_published_data_sets_of_old_say_where_they_belong(write: Write) -> None:
    folder = write({})
    (folder / "cards").mkdir()
    (folder / "cards/mine.yaml").write_text("published: https://example.org\n")
    with pytest.raises(UserError, match=r"cards/mine\.yaml: config/cards is renamed to config/pub"):
        load_published(folder, "mine")
    (folder / "cards/mine.yaml").rename(folder / "published/mine.yaml")
    with pytest.raises(
        UserError, match=r"published/mine\.yaml: published: is renamed to reference"
    ):
        load_published(folder, "mine")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"seed": True}, "seed"),
        ({"training": {"learning_rate": True}}, "training.learning_rate"),
        ({"training": {"max_train_events": False}}, "training.max_train_events"),
        (
            {"scans": {"scaling_law": {"train_events": [True, 100]}}},
            "scans.scaling_law.train_events",
        ),
        (
            {"scans": {"scaling_batch": {"learning_rates": {"adamw": True}}}},
            "scans.scaling_batch.learning_rates",
        ),
    ],
)
def test_a_boolean_is_no_number(given: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"--config: {key}: must not be a boolean"):
        load_run(CONFIG, given)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"results_dir": math.nan}, "results_dir"),
        ({"hpo": {"warm_start": [math.inf]}}, "hpo.warm_start"),
        ({"hpo": {"warm_start": [[math.inf]]}}, "hpo.warm_start"),
        (
            {"resources": {"train_model": {"partition": math.nan}}},
            "resources.train_model.partition",
        ),
        ({"training": {"learning_rate": math.nan}}, "training.learning_rate"),
    ],
)
def test_what_is_no_number_becomes_no_text(given: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"--config: {key}: Input should be a finite number"):
        load_run(CONFIG, given)


def test_booleans_stay_where_they_belong() -> None:
    space = {"model.local_attention": {"type": "categorical", "choices": [True, False]}}
    run = load_run(CONFIG, {"model": {"momentum_uncertainty": True}, "hpo": {"space": space}})
    assert run.model.momentum_uncertainty
    assert run.hpo.space["model.local_attention"].choices == (True, False)
    assert ModelConfig(local_attention=False).local_attention is False


def test_the_results_folder_is_expanded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load_run(CONFIG, {"results_dir": "~/x"}).results_dir == "/home/me/x"
    assert load_run(CONFIG, {"results_dir": "a/~b/"}).results_dir == "a/~b/"
    with pytest.raises(UserError, match=r"results_dir: Could not determine home"):
        load_run(CONFIG, {"results_dir": "~nobody_of_this_name/x"})


@pytest.mark.parametrize(
    "given",
    [
        {"results_dir": "out/{x}"},
        {"training": {"init_from": "a}.pt"}},
        {"hpo": {"warm_start": ["a{b}/trials.csv"]}},
    ],
)
def test_braces_in_paths_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"must have no { or }, which would be wildcards"):
        load_run(CONFIG, given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hpo": {"n_rungs": 10**30}}, "hpo.n_rungs: Input should be less than or equal to 16"),
        ({"hpo": {"schedule_rungs": 10**30}}, "hpo.schedule_rungs: Input should be less"),
        ({"hpo": {"first_rung_slots": 10**6}}, "hpo.first_rung_slots: Input should be less"),
        ({"hpo": {"grid_points": 10**12, "sampler": "grid"}}, "hpo.grid_points: Input should be"),
        (
            {"hpo": {"first_rung_slots": 10_000, "confirm_seeds": 100, "confirm_trials": 50}},
            "results, at most 1000000 can be planned; lower them",
        ),
        (
            {"hpo": {"confirm_seeds": 100, "confirm_trials": 1000}},
            "jobs, at most 20000 can be planned; lower them",
        ),
        (
            {"simulation": {"events_per_sample": 10**12}},
            "simulation.events_per_sample: Input should be less",
        ),
        (
            {"simulation": {"events_per_sample": 10**9}},
            "makes 2000000 files of a sample, at most 100000 can be; raise",
        ),
    ],
)
def test_a_plan_that_would_explode_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        load_run(CONFIG, given)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_large_searches_and_samples_are_planned() -> None:
    hpo = {"scheduler": "asha", "first_rung_slots": 10_000, "n_rungs": 5}
    simulation = {"events_per_sample": 10**9, "events_per_shard": 10_000}
    run = load_run(CONFIG, {"hpo": hpo, "simulation": simulation})
    assert run.hpo.first_rung_slots == 10_000


def test_the_largest_space_costs_little() -> None:
    """Every job of a cluster reads the configuration: 0.8 CPU s once went into checking a space."""

    def cpu_seconds(preset: str) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            load_run(CONFIG, {"preset": preset})
            times.append(time.process_time() - start)
        return min(times)

    assert cpu_seconds("large") - cpu_seconds("demo") < 0.3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": None}, r"--set: preset: must be the name of a preset \(got None\)$"),
        ({"preset": ["smoke"]}, r"--set: preset: must be the name of a preset"),
        ({"results_dir": "a\0b"}, r"--set: results_dir: must have no control characters"),
        ({"hpo": {"sampler": "grid", "grid_points": 1}}, r"^--set: .*hpo\.grid_points = 1 has "),
        ({"training": {"learning_rte": 1, "optimiser": 5}}, "learning_rte: unknown key"),
    ],
)
def test_odd_values_are_one_line(write: Write, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_run(write({}), given, "--set")


def test_values_mean_what_a_user_writes(write: Write) -> None:
    folder = write({}, {"selection": {"drop_columns": "track_links"}})
    (folder / "presets/10k-events.yaml").write_text("simulation: {events_per_sample: 1e4}\n")
    run = load_run(folder, {"results_dir": 2026, "hpo": {"pin_trial": "17"}})
    assert (run.results_dir, run.hpo.pin_trial) == ("2026", 17)
    assert run.selection.drop_columns == ("track_links",)
    assert load_run(folder, {"hpo": {"pin_trial": "c00012"}}).hpo.pin_trial == "c00012"
    assert load_run(folder, {"preset": "10k-events"}).simulation.events_per_sample == 10_000
    (folder / "presets/bools.yaml").write_text("simulation: {fetch: {keep: no}}\n")
    assert load_run(folder, {"preset": "bools"}).simulation.fetch.keep is False
    assert load_run(folder, {"detector": ["clic", "clic"]}).detector == ("clic",)
    (folder / "presets/mine.yaml").write_text("preset: smoke\n")
    with pytest.raises(UserError, match=r"mine\.yaml: preset: a preset names no other"):
        load_run(folder)


@pytest.mark.parametrize("base", ["../detectors/clic", "/clic", 5])
def test_a_detector_extends_one_beside_it(write: Write, base: object) -> None:
    folder = write({})
    (folder / "detectors/mine.yaml").write_text(f"extends: {base}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: extends: .*: must be the name of a detector"):
        load_detector(folder, "mine")


def test_a_space_of_many_values_is_checked_in_a_moment() -> None:
    steps = {"type": "float", "low": 0.5, "high": 3.0, "step": 0.05, "log": False}
    losses = ("presence", "classification", "charge", "momentum", "event", "huber_delta")
    space = {f"training.loss.{name}": steps for name in losses}
    start = time.process_time()
    load_run(CONFIG, {"preset": "large", "hpo": {"space": space}})
    assert time.process_time() - start < 2
