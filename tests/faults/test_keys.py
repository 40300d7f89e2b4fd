"""An unknown key in any place that holds configuration is one line that names the place, the key
and the nearest known one.
"""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from particleforge import cli
from particleforge.config.load import load_detector, load_run
from particleforge.errors import UserError

from ..unit.simulation_fixtures import CONFIG


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONFIG, tmp_path / "config"))


def add(path: Path, block: str, key: str) -> None:
    content = yaml.safe_load(path.read_text()) or {}
    content.setdefault(block, {})[key] = 1
    path.write_text(yaml.safe_dump(content))


@pytest.mark.fault("unknown configuration key")
@pytest.mark.parametrize(
    ("file", "block", "key", "meant"),
    [
        ("config.yaml", "training", "max_stepz", "max_steps"),
        ("presets/demo.yaml", "hpo", "n_rung", "n_rungs"),
        ("presets/smoke.yaml", "dataset", "on_bad_files", "on_bad_file"),
        ("detectors/clic.yaml", "tracker", "radius_cm", "radius_mm"),
    ],
)
def test_in_a_file(config_dir: Path, file: str, block: str, key: str, meant: str) -> None:
    add(config_dir / file, block, key)
    with pytest.raises(
        UserError,
        match=rf"{file}: {block}\.{key}: unknown key; allowed: .*; did you mean '{meant}'\?$",
    ):
        load_run(config_dir, {"preset": Path(file).stem} if "presets" in file else {})
        load_detector(config_dir, "clic")


@pytest.mark.fault("unknown configuration key")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "training.max_stepz=5"], "--set: training.max_stepz: unknown key; allowed: "),
        (["--set", "trainign.max_steps=5"], "--set: trainign: unknown key; allowed: "),
        (["--set", "model.width=0"], "--set: model.width: "),
        (["--set", "training.max_steps"], "--set training.max_steps: must read key=value"),
        (["--set", "model.width=[1"], "--set model.width=[1: not readable as YAML"),
        (["--set", "training=5"], "--set: training: "),
        (["--preset", "smok"], "presets/smok.yaml: no such file"),
    ],
)
def test_on_the_command_line(
    config_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "particleforge",
            "show-config",
            "--detector",
            "clic",
            "--config-dir",
            str(config_dir),
            *arguments,
        ],
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = str(ended.value.code)
    assert said.startswith("error: ")
    assert message in said
    assert "\n" not in said
    assert capsys.readouterr().out == ""
