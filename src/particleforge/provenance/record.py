"""What made a file: recorded by every stage, in two places.

Data files must be byte-identical between runs, so what differs from run to run lies beside them.

Inputs -> outputs: stage, settings and input files of a job -> ``plain``, which stages store inside
their files, and ``<output>.provenance.json`` beside each output, written by ``record``.

* ``plain`` is reproducible: stage, settings and their hash, names and checksums of the inputs,
  package versions.
* The record beside an output adds the circumstances: where the inputs lay (relative to the record,
  so that a results folder can be moved), the output's own checksum, git commit and whether the tree
  was dirty, a hash of all installed packages, host, Slurm job, start, duration, core time and
  memory.

An output that is a folder has its record beside it; its checksum is that of the list of its files
(``sha256sum`` format). ``lineage`` reads the records back.
"""

import hashlib
import logging
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil
from pydantic import BaseModel, ConfigDict

from particleforge.artefacts import settings_hash, sha256, write_json
from particleforge.errors import UserError
from particleforge.stored import Stored, read_stored

log = logging.getLogger(__name__)

RECORD_SUFFIX = ".provenance.json"
# itself and what requirements.in names
PACKAGES = (
    "particleforge",
    "awkward",
    "cmaes",
    "fastjet",
    "filelock",
    "fsspec",
    "hist",
    "jinja2",
    "matplotlib",
    "mmh3",
    "mplhep",
    "numba",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "psutil",
    "psycopg2-binary",
    "pyarrow",
    "pydantic",
    "pythia8mc",
    "pyyaml",
    "requests",
    "rich",
    "scipy",
    "scikit-learn",
    "snakemake",
    "snakemake-executor-plugin-slurm",
    "sqlalchemy",
    "tensorboard",
    "torch",
    "tqdm",
    "typer",
    "uproot",
)
_SLURM_VARIABLES = {
    "job_id": "SLURM_JOB_ID",
    "array_job_id": "SLURM_ARRAY_JOB_ID",
    "array_task_id": "SLURM_ARRAY_TASK_ID",
    "node": "SLURMD_NODENAME",
    "cluster": "SLURM_CLUSTER_NAME",
}
_SLURM_FIELDS = {"node_list": "NodeList", "restart_count": "Restarts"}
_TIMEOUT_S = 20
_LONG_S = 600  # from here on minutes tell enough


@dataclass(frozen=True)
class Provenance:
    """What made the outputs of one job.

    ``inputs`` maps absolute paths to checksums; ``part`` says which part of the stage's work this
    is, where neither settings nor inputs do (a shard of the simulation, a slot of the search).
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[Path, str]
    part: Mapping[str, str | int]

    @classmethod
    def of(
        cls,
        stage: str,
        settings: Mapping[str, Any],
        inputs: Iterable[str | Path] = (),
        *,
        glanced_at: Iterable[str | Path] = (),
        known: Mapping[Path, str] | None = None,
        part: Mapping[str, str | int] | None = None,
    ) -> Self:
        """Take down stage, settings and inputs.

        The checksum of ``inputs`` is computed where it is not ``known``, and another than that of
        their record is told in the log; that of inputs ``glanced_at``, of which the stage
        reads little or which it reads through another input that has their checksums, is taken from
        their record, where there is one.
        """
        told = {_absolute(path): digest for path, digest in (known or {}).items()}
        checksums = {
            path: told.get(path) or checksum(path) for path in dict.fromkeys(map(_absolute, inputs))
        }
        for path, found in checksums.items():
            if path not in told:
                _tell_change(path, found)
        checksums |= {
            path: _recorded_checksum(path) for path in dict.fromkeys(map(_absolute, glanced_at))
        }
        return cls(stage, dict(settings), checksums, dict(part or {}))

    def plain(self) -> dict[str, Any]:
        """Return what is reproducible, as plain values.

        Inputs are named by the end of their path, at least folder and file, so that moving the
        results changes nothing.
        """
        return {
            "stage": self.stage,
            **({"part": dict(self.part)} if self.part else {}),
            "settings": dict(self.settings),
            "settings_hash": settings_hash(self.settings),
            "inputs": dict(zip(_short_names(list(self.inputs)), self.inputs.values(), strict=True)),
            "packages": dict(package_versions()),
        }

    def refuse_repeats(self, inputs: Sequence[Path]) -> None:
        """Refuse inputs of which two are one, or copies of each other; UserError."""
        seen: dict[str, Path] = {}
        for path in inputs:
            digest = self.inputs[_absolute(path)]
            if digest in seen:
                raise UserError(
                    f"{path}: given twice, or a copy of {seen[digest]}: its events would be counted"
                    " twice; give each file once"
                )
            seen[digest] = path

    def record(
        self,
        *outputs: str | Path,
        known: Mapping[Path, str] | None = None,
        n_events: int | None = None,
    ) -> None:
        """Write the record beside each output, and say in the log what was made.

        ``known`` are outputs too, whose checksums need not be computed; all together hold
        ``n_events``.
        """
        reproducible, circumstances = self.plain(), _circumstances()
        for output, digest in [*((path, None) for path in outputs), *(known or {}).items()]:
            folder = Path(output).parent
            inputs = [
                {"file": os.path.relpath(path, folder), "sha256": found}
                for path, found in self.inputs.items()
            ]
            content = {
                "kind": RecordFile.KIND,
                **reproducible,
                "inputs": inputs,
                "seed": self.settings.get("seed"),
                "output": {"sha256": digest or checksum(Path(output))},
                "circumstances": circumstances,
            }
            write_json(record_of(output), content)
        made = [Path(output) for output in (*outputs, *(known or {}))]
        log.info("%s", _summary(made, n_events, circumstances["wall_time_s"]))


class InputEntry(BaseModel):
    """An input, in a record."""

    model_config = ConfigDict(extra="allow")
    file: str
    sha256: str


class OutputEntry(BaseModel):
    """The output, in its record."""

    model_config = ConfigDict(extra="allow")
    sha256: str


class Circumstances(BaseModel):
    """What is read of a record's circumstances; old ones tell neither core time nor memory."""

    model_config = ConfigDict(extra="allow")
    git_commit: str
    git_dirty: bool
    host: str
    slurm: dict[str, str]
    pid: int
    started_unix_s: float
    wall_time_s: float
    cpu_time_s: float | None = None
    memory_peak_gb: float | None = None


class RecordFile(Stored):
    """What is read of a record."""

    KIND = "provenance"
    REMEDY = "rerun the stage that wrote the file beside it"
    MAY_LACK_KIND: ClassVar[bool] = True
    stage: str
    settings: dict[str, Any]
    inputs: list[InputEntry]
    packages: dict[str, str]
    output: OutputEntry
    circumstances: Circumstances


def record_of(output: str | Path) -> Path:
    """Return the path of an output's record."""
    return Path(f"{output}{RECORD_SUFFIX}")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's list of files."""
    if not path.is_dir():
        return sha256(path)
    files = (file for file in path.rglob("*") if file.is_file())
    return list_checksum(
        {
            str(name): sha256(path / name)
            for file in files
            if not _hidden(name := file.relative_to(path))
        }
    )


def _tell_change(path: Path, found: str) -> None:
    """Say in the log that a file is not what its stage wrote: damaged, exchanged, or edited."""
    record = record_of(path)
    if not record.is_file():
        return
    try:
        recorded = read_record(record)["output"]["sha256"]
    except UserError as error:
        log.warning("%s", error)
        return
    if recorded != found:
        log.warning(
            "%s: is not what its stage wrote: its sha256 is %s, its record says %s; rerun the stage"
            " that writes it, unless you changed it",
            path,
            found,
            recorded,
        )


def _recorded_checksum(path: Path) -> str:
    record = record_of(path)
    return read_record(record)["output"]["sha256"] if record.is_file() else checksum(path)


def read_record(record: Path) -> dict[str, Any]:
    """Return a record's content; one that ``record`` did not write is a UserError."""
    return read_stored(record, RecordFile).model_dump()


def list_checksum(checksums: Mapping[str, str]) -> str:
    """Return the SHA-256 of a folder from those of its files, by their names in it."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(checksums.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _hidden(name: Path) -> bool:
    """Whether a folder's file is none of its content: temporary, Snakemake's, or a record."""
    return any(part.startswith(".") for part in name.parts) or name.name.endswith(RECORD_SUFFIX)


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of what it needs directly."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def environment_hash() -> str:
    """Return a hash of the names and versions of all installed packages."""
    found = (distribution.metadata for distribution in distributions())
    lines = sorted({f"{told['Name'].lower()}=={told['Version']}" for told in found})
    return settings_hash({"installed": lines})


def _absolute(path: str | Path) -> Path:
    return Path(os.path.normpath(Path.cwd() / path))


def _short_names(paths: list[Path]) -> list[str]:
    """Return the paths' ends, equally long, at least folder and file, enough to tell them apart."""
    for length in count(2):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    raise AssertionError("paths differ")


def _summary(made: Sequence[Path], n_events: int | None, seconds: float) -> str:
    """Return one line: which files, how many events in how many bytes, after how long a time."""
    names = [str(made[0]), *(path.name for path in made[1:])]
    size = sum(
        file.stat().st_size
        for path in made
        for file in (path.rglob("*") if path.is_dir() else (path,))
        if file.is_file()
    )
    events = "" if n_events is None else f"{n_events:,} events, "
    taken = f"{seconds:.0f} s" if seconds < _LONG_S else f"{seconds / 60:.0f} min"
    return f"made {', '.join(names)}: {events}{size / 1e6:,.1f} MB in {taken}"


def _circumstances() -> dict[str, Any]:
    """Return what is true of this process only."""
    commit, dirty = _git_state()
    started = psutil.Process().create_time()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "environment": environment_hash(),
        "host": socket.gethostname(),
        "slurm": _slurm_job(),
        "pid": os.getpid(),
        "command": Path(sys.argv[0]).name,
        "started_unix_s": round(started, 3),
        "wall_time_s": round(time.time() - started, 3),
        **_used(),
    }


def _used() -> dict[str, float]:
    """Return what this process and its ended children used: core seconds, the largest one's memory.

    Processes that another daemon starts for it, as srun's ranks on several nodes, are not counted.
    """
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    peak = max(_own_peak(own.ru_maxrss * unit), children.ru_maxrss * unit)
    return {
        "cpu_time_s": round(sum(u.ru_utime + u.ru_stime for u in (own, children)), 3),
        "memory_peak_gb": round(peak / 1e9, 4),
    }


def _own_peak(otherwise: int) -> int:
    """Return this program's peak memory in bytes.

    What the kernel tells of the process may be that of the program that this one replaced.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return otherwise


@cache
def _slurm_job() -> dict[str, str]:
    """Return what Slurm tells of the job that this process is part of; nothing outside of one.

    Nodes and restarts are asked for, as Snakemake's executor plugin takes their variables out of a
    job's environment; a controller that does not answer leaves them out.
    """
    found = {key: os.environ[name] for key, name in _SLURM_VARIABLES.items() if name in os.environ}
    if "job_id" in found:
        with suppress(OSError, subprocess.SubprocessError):
            command = ["scontrol", "show", "job", "--oneliner", found["job_id"]]
            answer = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
            ).stdout
            told = dict(word.partition("=")[::2] for word in answer.split())
            found |= {key: told[name] for key, name in _SLURM_FIELDS.items() if name in told}
    return found


@cache
def _git_state() -> tuple[str, bool]:
    """Return commit and dirty flag of this package's checkout, or ``("unknown", False)``."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        ).stdout.strip()

    try:
        # an installed package may lie in somebody else's repository
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown", False
