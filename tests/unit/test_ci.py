"""The forge's definition of CI: it calls ``.ci/run``, and knows no more than that."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".github/workflows/ci.yml"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["jobs"]
    return found


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_one_job_calls_what_everybody_calls(jobs: dict[str, Any]) -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    (call,) = [command for command in commands(jobs["run"]) if ".ci/" in command]
    assert call.split()[0] == ".ci/run"
    assert jobs["run"]["defaults"]["run"]["shell"] == "bash"  # so that tee hides no failure
    (kept,) = [step for step in jobs["run"]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert kept["if"] == "always()"
    assert call.split()[-1] in kept["with"]["path"].split()


def test_its_python_is_the_oldest_that_the_package_allows(jobs: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    assert jobs["run"]["container"]["image"].startswith(f"python:{oldest}-")


def test_newer_pythons_are_resolved_and_nothing_is_installed(jobs: dict[str, Any]) -> None:
    assert jobs["resolve"]["strategy"]["matrix"]["python"] == ["3.12", "3.13"]
    (command,) = commands(jobs["resolve"])
    assert {"--dry-run", "requirements.in"} <= set(command.split())


def test_it_names_no_index_of_packages(jobs: dict[str, Any]) -> None:
    assert "://" not in FILE.read_text(encoding="utf-8")
    assert "index" not in " ".join(commands(jobs["run"]) + commands(jobs["resolve"]))
