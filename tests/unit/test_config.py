"""The configuration: order of precedence, and one clear line for every kind of mistake."""

import shutil
from pathlib import Path

import pytest
import yaml

from particleforge.config.detector import DetectorConfig
from particleforge.config.document import documents
from particleforge.config.load import load_detector, load_run, merge
from particleforge.config.settings import (
    FetchSettings,
    SimulateSettings,
    StageSettings,
    n_shards,
    simulate_settings,
)
from particleforge.errors import UserError

ROOT = Path(__file__).parents[2]
DETECTORS = sorted(path.stem for path in (ROOT / "config/detectors").glob("*.yaml"))


@pytest.fixture
def config_dir(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path / "config"


def rewrite(path, **changes):
    path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), changes)))


def test_order_of_precedence(config_dir):
    default = load_run(config_dir, {"preset": "smoke"}).training.gradient_clip
    assert default == 1.0  # from the model
    rewrite(config_dir / "config.yaml", training={"gradient_clip": 2.0, "max_steps": 7})
    run = load_run(config_dir, {"preset": "smoke"})
    assert run.training.gradient_clip == 2.0  # config.yaml over the model
    assert run.training.max_steps == 20  # preset over config.yaml
    run = load_run(config_dir, {"preset": "smoke", "training": {"max_steps": 3}})
    # --config over all, merged deeply
    assert (run.training.max_steps, run.training.gradient_clip) == (3, 2.0)


@pytest.mark.parametrize("detector", DETECTORS)
def test_shipped_detectors_are_valid_and_self_consistent(detector):
    config = load_detector(ROOT / "config", detector)
    assert config.calorimeter.ecal.barrel_inner_radius_mm >= config.tracker.radius_mm
    assert (
        config.calorimeter.hcal.barrel_inner_radius_mm
        >= config.calorimeter.ecal.barrel_outer_radius_mm
    )
    assert (
        max(layer.radius_mm for layer in config.tracker.barrel_layers) <= config.tracker.radius_mm
    )


@pytest.mark.parametrize("preset", ["smoke", "demo", "reference", "large"])
def test_shipped_presets_are_valid(preset):
    assert load_run(ROOT / "config", {"preset": preset}).preset == preset


@pytest.mark.fault("unknown configuration key")
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"trainign": {}}, ["--config", "trainign", "unknown key", "did you mean 'training'"]),
        (
            {"training": {"learning_rte": 1}},
            ["training.learning_rte", "allowed", "did you mean 'learning_rate'"],
        ),
        (
            {"training": {"learning_rate": -1.0}},
            ["training.learning_rate", "greater than 0", "-1.0"],
        ),
        ({"training": {"max_steps": "many"}}, ["training.max_steps", "integer", "'many'"]),
        (
            {"training": {"optimiser": "adam"}},
            ["training.optimiser", "'adam'", "did you mean 'adamw'"],
        ),
        ({"model": {"width": 30, "n_heads": 4}}, ["model", "must divide", "30"]),
        ({"selection": {"test_fraction": 0.5}}, ["selection", "must be 1"]),
        (
            {"hpo": {"first_rung_slots": 2, "eta": 3, "n_rungs": 3}},
            ["hpo", "first_rung_slots", "9"],
        ),
        (
            {"hpo": {"space": {"a": {"type": "float", "low": 2, "high": 1}}}},
            ["hpo.space.a", "low < high"],
        ),
        ({"preset": "smok"}, ["presets/smok.yaml", "did you mean 'smoke'"]),
        ({"detector": ["no-name!"]}, ["detector", "no-name!"]),
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_remedy(overrides, words):
    with pytest.raises(UserError) as caught:
        load_run(ROOT / "config", overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.fault("unknown configuration key")
def test_a_password_is_refused_and_not_repeated(config_dir):
    with pytest.raises(
        UserError, match=r"hpo\.storage_url: holds a password, .*~/\.pgpass"
    ) as refused:
        load_run(
            config_dir,
            {"hpo": {"storage_url": "postgresql+psycopg2://me:hunter2@host:5432/studies"}},
        )
    assert "hunter2" not in str(refused.value)
    assert load_run(
        config_dir, {"hpo": {"storage_url": "postgresql+psycopg2://me@host/studies"}}
    ).hpo.storage_url


def test_a_mistake_is_laid_to_its_file(config_dir):
    rewrite(config_dir / "presets/demo.yaml", model={"depth": 3})
    with pytest.raises(UserError, match=r"presets/demo\.yaml: model\.depth: unknown key"):
        load_run(config_dir)
    (config_dir / "config.yaml").write_text("training: [1, 2")
    with pytest.raises(UserError, match=r"config\.yaml: not readable as YAML"):
        load_run(config_dir)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tracker": {"radius_mm": -1}}, ["tracker.radius_mm", "greater than 0"]),
        ({"elements": {"track": [{"name": "ptt"}]}}, ["elements.track", "'ptt'"]),
        (
            {
                "particle_classes": [
                    {"name": "a", "label": "a", "pdg": 1, "charged": True, "mass_gev": 0}
                ]
            },
            ["one neutral class"],
        ),
        ({"plots": {"eta_edges": [1, 0]}}, ["plots.eta_edges", "rise"]),
        ({"colour": "red"}, ["colour", "unknown key"]),
    ],
)
def test_a_mistake_in_a_detector_file(config_dir, changes, words):
    rewrite(config_dir / "detectors/cld.yaml", **changes)
    with pytest.raises(UserError) as caught:
        load_detector(config_dir, "cld")
    message = str(caught.value)
    assert "cld.yaml" in message
    for word in words:
        assert word in message


def test_missing_key_and_unknown_detector(config_dir):
    path = config_dir / "detectors/cld.yaml"
    content = yaml.safe_load(path.read_text())
    del content["b_field_tesla"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="b_field_tesla: required key is missing"):
        load_detector(config_dir, "cld")
    with pytest.raises(UserError, match="did you mean 'clic'"):
        load_detector(config_dir, "clci")


def stage_models(base=StageSettings):
    for model in base.__subclasses__():
        yield model
        yield from stage_models(model)


@pytest.mark.parametrize("model", list(stage_models()), ids=lambda model: model.__name__)
def test_every_stage_finds_its_settings_and_they_survive_json(model):
    run = load_run(ROOT / "config", {"preset": "smoke"})
    detector = load_detector(ROOT / "config", "clic")
    if model is SimulateSettings:
        settings = simulate_settings(run, detector, "ttbar")
    elif model is FetchSettings:
        settings = FetchSettings(url="https://host/a.root", checksum="")
    else:
        settings = model.of(
            run,
            detector,
            **({"sample_name": "ttbar"} if "sample_name" in model.model_fields else {}),
        )
    assert model.model_validate(settings.plain()) == settings
    assert settings.plain()["version"] >= 1


def test_a_detector_without_hits_is_only_read():
    run, detector = load_run(ROOT / "config"), load_detector(ROOT / "config", "fcc_delphes")
    with pytest.raises(
        UserError,
        match=(
            r"collections\.ecal_hits: is empty, so events cannot be simulated; set"
            r" simulation\.backend: files"
        ),
    ):
        simulate_settings(run, detector, next(iter(detector.samples)))


def test_samples_are_rounded_up_to_full_shards():
    run = load_run(
        ROOT / "config", {"simulation": {"events_per_sample": 1001, "events_per_shard": 250}}
    )
    sample = load_detector(ROOT / "config", "clic").samples["ttbar"]
    assert n_shards(run.simulation, sample) == 5


@pytest.mark.parametrize("path", list(documents(ROOT)))
def test_generated_files_are_current(path):
    assert (ROOT / path).read_text() == documents(ROOT)[path], "run `make docs` and commit"


def test_every_key_of_the_detector_file_is_described_with_its_unit():
    units = ("_gev", "_mev", "_mm", "_tesla", "_rad", "_min", "_mb")
    for name, field in DetectorConfig.model_fields.items():
        assert (
            not isinstance(field.annotation, type)
            or field.annotation is not float
            or name.endswith(units)
        )
