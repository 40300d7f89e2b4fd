"""How files come into being: under a temporary name, synced, renamed; with a record of what made them.

Two records exist, because data files must be byte-identical whenever the same configuration makes them:

* *provenance*, inside the file: stage, its version, the settings that shaped it, their hash, checksums of the inputs,
  versions of the packages that matter;
* *circumstances*, in ``<file>.provenance.json`` beside it: git commit and whether the tree was dirty, host, Slurm job,
  start and duration.
"""

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

_PACKAGES = ("particleforge", "numpy", "awkward", "pyarrow", "uproot", "pythia8mc", "torch", "optuna", "onnx", "onnxruntime", "fastjet")
_STARTED = time.time()


@contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it to disk and rename it, on failure remove it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that replaces it on success and vanishes on failure.

    What a killed run left behind is removed first: a path has one writer at a time.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, keys sorted, NaN refused."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_yaml(path: str | Path, content: Any) -> None:
    """Write YAML atomically."""
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a short hash of plain settings, independent of key order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def provenance(stage: str, settings: Mapping[str, Any], inputs: Sequence[str | Path] = ()) -> dict[str, Any]:
    """Return what made a file, all of it reproducible: see the module's docstring.

    Inputs are named by file name and checksum, not by folder, so that moving the results changes nothing.
    """
    return {
        "stage": stage,
        "settings": dict(settings),
        "settings_hash": settings_hash(settings),
        "inputs": {"/".join(Path(path).parts[-2:]): sha256(path) for path in inputs},
        "packages": package_versions(),
    }


@cache
def _git_state() -> tuple[str, bool]:
    """Return commit and dirty flag of the checkout that holds this package, or ``("unknown", False)``."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown", False


def record_circumstances(path: str | Path, made: Mapping[str, Any]) -> None:
    """Write ``<path>.provenance.json``: the file's provenance plus commit, host, job and times of this process."""
    commit, dirty = _git_state()
    circumstances = {
        "git_commit": commit,
        "git_dirty": dirty,
        "host": socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "command": Path(sys.argv[0]).name,
        "started_unix_s": _STARTED,
        "wall_time_s": round(time.time() - _STARTED, 3),
    }
    write_json(f"{path}.provenance.json", {**made, "circumstances": circumstances})
