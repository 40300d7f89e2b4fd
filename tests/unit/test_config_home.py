"""Where commands find the configuration and the Snakefile, and what they say of none."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from particleforge import cli
from particleforge.config import home as homes
from particleforge.config.home import find_config_dir, find_snakefile, home
from particleforge.errors import UserError
from particleforge.orchestration.workflow import Workflow

from .simulation_fixtures import CONFIG


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["particleforge", *arguments])
    cli.main()


@pytest.fixture
def no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to an empty folder, with a package that no shipped files lie beside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(homes, "_PACKAGE", tmp_path / "src/particleforge")
    return tmp_path


def test_the_shipped_files_lie_at_home() -> None:
    for name in ("Snakefile", "workflow", "config/config.yaml", "profiles/local"):
        assert (home() / name).exists()


def test_a_wheel_has_its_home_within_the_package(no_checkout: Path) -> None:
    inside = no_checkout / "src/particleforge/home"
    (inside / "config").mkdir(parents=True)
    (inside / "Snakefile").touch()
    (inside / "config/config.yaml").touch()
    assert home() == inside
    assert find_snakefile() == inside / "Snakefile"
    assert find_config_dir() == inside / "config"


def test_config_is_looked_for_here_then_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config_dir(None) == home() / "config"
    (tmp_path / "config").mkdir()
    assert find_config_dir() == home() / "config", "a folder without config.yaml is none"
    (tmp_path / "config/config.yaml").touch()
    assert find_config_dir() == Path("config")
    assert find_config_dir(CONFIG) == CONFIG


def test_a_command_finds_the_checkouts_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "show-config", "--detector", "clic")
    assert ended.value.code == 0
    assert "b_field_tesla" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["show-config", "--detector", "clic"], ["hpo-status"]])
def test_without_configuration_every_command_says_where_it_looked(
    no_checkout: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *command)
    said = str(ended.value.code)
    assert f"none in {no_checkout}/config; run in" in said
    assert said.endswith("--config-dir")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *command, "--config-dir", "elsewhere")
    assert f"none in {no_checkout}/elsewhere; run in" in str(ended.value.code)


def test_without_configuration_status_says_where_it_looked(
    no_checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"error: Snakefile: neither here nor in .*; name it with"):
        run(monkeypatch, "status")
    (no_checkout / "Snakefile").touch()
    with pytest.raises(SystemExit, match=rf"none in {re.escape(str(no_checkout))}/config; run in"):
        run(monkeypatch, "status")


def test_without_configuration_the_workflow_says_where_it_looked(no_checkout: Path) -> None:
    with pytest.raises(UserError, match=rf"none in {no_checkout}/config or {no_checkout}/other; "):
        Workflow([Path("config"), Path("other")], {})


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "particleforge", "show-config", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--config-dir" in done.stdout


def test_a_wrong_pin_is_refused_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CONFIG, tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "results/clic/hpo/trials.csv"
    pinned = {"detector": "clic", "hpo": {"pin_trial": "17"}}
    Workflow([Path("config")], pinned)  # the first search: there is no table yet
    table.parent.mkdir(parents=True)
    table.write_text(
        "trial,config,status,reason\n0,c00000,complete,\n1,c00001,failed,out of memory\n"
    )
    for pin, words in (
        ("17", r"hpo\.pin_trial: 17: no trial has this number \(0 to 1\); results/clic/hpo/trials"),
        ("c00002", r"hpo\.pin_trial: 'c00002': no such configuration; .*; did you mean 'c0000"),
        ("1", r"hpo\.pin_trial: 1: trial 1 failed: out of memory; pin one that ended well"),
    ):
        with pytest.raises(UserError, match=words):
            Workflow([Path("config")], {"detector": "clic", "hpo": {"pin_trial": pin}})
    for pin in ("0", "c00000"):
        Workflow([Path("config")], {"detector": "clic", "hpo": {"pin_trial": pin}})
    table.write_text("trial,config,status,reason\nzero,c00000,complete,\n")
    with pytest.raises(UserError, match=r"hpo/trials\.csv: not a table of trials .*; delete it"):
        Workflow([Path("config")], pinned)
