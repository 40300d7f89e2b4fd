"""The wheel and the source distribution, built and used as by somebody without a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from particleforge.config.home import PARTS

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
_BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('..'))"
_COMMAND = "from particleforge.cli import main; main()"


def run(cwd: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        **{"cwd": cwd, "env": {**os.environ, **environment}},
        **{"capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, what: str) -> Path:
    """Build the wheel or source distribution of a folder, beside it."""
    return source.parent / run(source, "-c", _BUILD, what).splitlines()[-1]


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from a source distribution, which must hold all that a wheel needs."""
    checkout = tmp_path_factory.mktemp("build") / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PARTS, "src"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        checkout.mkdir(exist_ok=True)
        copy(source, checkout / name, **({"ignore": ignored} if source.is_dir() else {}))
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy2(path, checkout)
    direct = build(checkout, "build_wheel")
    shutil.unpack_archive(build(checkout, "build_sdist"), checkout.parent / "unpacked")
    (source,) = (checkout.parent / "unpacked").iterdir()
    found = build(source, "build_wheel")
    assert names_of(found) == names_of(direct)
    return found


def test_a_wheel_lays_out_a_folder_that_runs(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    installed = {"PYTHONPATH": str(tmp_path / "site")}
    run(tmp_path, "-c", _COMMAND, "init", "mine", **installed)
    made = tmp_path / "mine"
    assert {path.name for path in made.iterdir()} == set(PARTS)
    for path in (path for path in made.rglob("*") if path.is_file()):
        assert path.read_bytes() == (ROOT / path.relative_to(made)).read_bytes()
    plan = run(
        made,
        *("-m", "snakemake", "--profile", "profiles/local", "--dry-run"),
        *("--config", "preset=smoke", "detector=cld"),
        **installed,
    )
    assert "build_report" in plan
    assert "results/cld/report.html" in plan


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "init", str(tmp_path)],
        **{"capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 1
    assert f"{tmp_path}: is no empty folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
