"""Find out what a cluster gets wrong before a workflow does, with one small job of each kind.

Inputs -> outputs: a Snakemake profile, the configuration and a kind of jobs (``cpu``, ``gpu``,
``nodes``) -> ``Finding`` lines. The jobs go through Snakemake with that profile and carry the names
and resources of rules of the workflow, so that partition, account, limits and the way into a node's
Python are those of a real run. What the jobs see comes back as JSON (``probe``); where none comes
back, Slurm's answer to the submission, its reason for keeping a job waiting, or the end of the
job's log tells why.
"""

import getpass
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from particleforge.artefacts import write_json
from particleforge.config.load import merge
from particleforge.config.reader import read_yaml
from particleforge.errors import UserError, did_you_mean
from particleforge.orchestration.cluster.exchange import LOGIN_FILE, Finding, answer
from particleforge.orchestration.workflow import Workflow

log = logging.getLogger(__name__)
# a job of this kind is named after that rule
KINDS = {"cpu": "simulate_events", "gpu": "run_hpo_slot", "nodes": "train_model"}
_RUNTIME_MIN = 10
_POLL_S = 0.1
_STOP_TIMEOUT_S = 60
_LOG_LINES = 3
_OVERRIDES = (
    *("--retries", "0"),
    *("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"),
)
# what Slurm says when it refuses a job -> what to do
_REFUSED = {
    r"[Ii]nvalid partition": "correct the names in partitions.yaml; `sinfo -s` lists what there is",
    r"account": (
        "set slurm_account in the profile; `sacctmgr show associations user=$USER` lists yours"
    ),
    r"[Qq][Oo][Ss]": (
        "set slurm-qos in the profile; `sacctmgr show associations user=$USER format=account,qos`"
        " lists yours"
    ),
    r"[Tt]ime limit": "lower max_runtime in partitions.yaml to what `sinfo -o '%P %l'` says",
    r"node configuration|[Nn]ode count|[Mm]emory spec|[Gg][Rr][Ee][Ss]": (
        "no node of the partition offers that: correct resources.yaml "
        "and partitions.yaml; `sinfo -o '%P %c %m %G'` lists processors, memory and GPUs of nodes"
    ),
}
# what the log of a failed job says -> what to do
_FAILED = {
    r"srun: (command )?not found|No such file or directory: 'srun'": (
        "add Slurm's folder to PATH in your shell's start-up file"
    ),
    r"No module named": (
        "the node's Python lacks the package: install the environment on a file system that nodes"
        " share"
    ),
    r"python\S*: (No such file|not found|Permission denied)": (
        "this Python is not on the node: install the environment on a file system that nodes share"
    ),
}


def check_cluster(
    profile: Path,
    overrides: Mapping[str, Any],
    config_dirs: list[Path],
    kinds: list[str],
    timeout_s: float,
) -> list[Finding]:
    """Submit a job of each kind and return what was found.

    Raises UserError for a profile or configuration that cannot be read.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(
                f"--kind {kind}: must be one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}"
            )
    options = _read_profile(profile)
    found = commands_here(options)
    if any(finding.state == "WRONG" for finding in found):
        return found
    jobs = _jobs(kinds, merge(_site_resources(profile, options), overrides), config_dirs)
    folder = Path(tempfile.mkdtemp(prefix="check-cluster-", dir=Path.cwd()))
    write_json(
        folder / "check.json",
        {"jobs": jobs, "latency_wait_s": float(options.get("latency-wait", 5))},
    )
    (folder / LOGIN_FILE).touch()
    over = _run(profile, folder, jobs, timeout_s)
    for kind, asked in jobs.items():
        answered = folder / f"{kind}.json"
        if answered.exists():
            items = [Finding(**item) for item in json.loads(answered.read_text(encoding="utf-8"))]
        else:
            items = [_why_no_answer(folder, kind, asked["rule"], over)]
        found += [
            Finding(f"{kind} job: {item.what}", item.state, item.seen, item.remedy)
            for item in items
        ]
    if all(finding.state == "OK" for finding in found):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        log.info("logs are in %s", folder)
    return found


def commands_here(options: Mapping[str, Any]) -> list[Finding]:
    """Return whether this machine can submit jobs and learn of their end."""
    missing = [
        name
        for name in ("sbatch", "squeue", "sinfo", "scontrol", "scancel")
        if shutil.which(name) is None
    ]
    if missing:
        remedy = "work on a login node, and load the module of Slurm if the site has one"
        return [Finding("login node", "WRONG", f"no {', '.join(missing)} in PATH", remedy)]
    found = [
        Finding(
            "login node",
            "OK",
            f"{_said('sbatch', '--version')[0]}, Snakemake's Python is {sys.executable}",
        )
    ]
    if options.get("slurm-status-command") == "squeue":
        return found
    said, well = _said("sacct", "--noheader", "--allocations", f"--user={getpass.getuser()}")
    if well:
        return [*found, Finding("accounting", "OK", "sacct answers")]
    remedy = (
        "set `slurm-status-command: squeue` in the profile, else Snakemake does not see jobs end"
    )
    return [*found, Finding("accounting", "WRONG", f"sacct says: {said}", remedy)]


def _jobs(
    kinds: list[str], overrides: Mapping[str, Any], config_dirs: list[Path]
) -> dict[str, dict[str, Any]]:
    """Return what the job of each kind asks for: what the workflow would, for a short time.

    Its kind may add a GPU or a second node.
    """
    asked = Workflow(config_dirs, overrides).run.resources
    forms = {
        "cpu": {},
        "gpu": {"gpus": max(1, asked.run_hpo_slot.gpus, asked.train_model.gpus), "nodes": 1},
        "nodes": {"gpus": 0, "nodes": max(2, asked.train_model.nodes)},
    }
    found = {}
    for kind in kinds:
        rule, form = KINDS[kind], forms[kind]
        ranks = {"hpo": {"ranks": 1}, "training": {"ranks": form.get("nodes", 1)}}
        changed = merge(
            overrides, {**ranks, "resources": {rule: {**form, "runtime_min": _RUNTIME_MIN}}}
        )
        workflow = Workflow(config_dirs, changed)
        resources = {
            key: value(None, 1) if callable(value) else value
            for key, value in workflow.resources(rule).items()
        }
        found[kind] = {"rule": rule, "threads": workflow.threads(rule), "resources": resources}
    return found


def _run(profile: Path, folder: Path, jobs: Mapping[str, Any], timeout_s: float) -> dict[str, str]:
    """Run the jobs to their end or the timeout, answering their questions.

    Return Slurm's reason for jobs that had to be given up.
    """
    command = [
        *(
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(Path(__file__).with_name("check.smk")),
        ),
        *("--profile", str(profile.absolute()), "--configfile", "check.json"),
        *("--latency-wait", "5", *_OVERRIDES, *(f"{kind}.done" for kind in jobs)),
    ]
    waiting: dict[str, str] = {}
    deadline = time.monotonic() + timeout_s
    with (folder / "snakemake.log").open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        with _ended(process):
            while process.poll() is None and time.monotonic() < deadline:
                answer(folder)
                time.sleep(_POLL_S)
            if process.poll() is None:
                for state, comment in _queued(folder, "%T %r", "%k"):
                    waiting[comment.split("_wildcards_")[0].removeprefix("rule_")] = state
    left = [job for (job,) in _queued(folder, "%i")]
    if left:  # by a Snakemake that had to be killed before it had cancelled them
        _said("scancel", *left)
    return waiting


def _queued(folder: Path, *fields: str) -> list[list[str]]:
    """Return these fields of squeue for this user's jobs whose working folder is ``folder``."""
    lines = _said(
        "squeue",
        "--noheader",
        f"--user={getpass.getuser()}",
        f"--format={'|'.join(('%Z', *fields))}",
    )[0].splitlines()
    found = [line.split("|") for line in lines if line.count("|") == len(fields)]
    return [values for work_dir, *values in found if Path(work_dir) == folder]


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no Snakemake behind: told to stop, it cancels its jobs."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
                try:
                    process.wait(_STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    continue


def _why_no_answer(folder: Path, kind: str, rule: str, waiting: Mapping[str, str]) -> Finding:
    """Return what kept a job from answering."""
    if rule in waiting:
        state, _, reason = waiting[rule].partition(" ")
        if state == "PENDING":
            remedy = (
                "wait for other jobs and raise --timeout-s, or ask for less in resources.yaml (man"
                " squeue lists the reasons)"
            )
            return Finding("start", "WRONG", f"still pending, Slurm's reason is {reason}", remedy)
        return Finding(
            "end",
            "WRONG",
            f"did not end in time, its state is {state}",
            f"raise --timeout-s, and see {folder}/{kind}.log",
        )
    told = (folder / "snakemake.log").read_text(encoding="utf-8", errors="replace")
    errors = [block for block in told.split("Error in rule ")[1:] if block.startswith(f"{rule}:")]
    refused = re.search(r"The error message was '(.*?)'\.\n", "".join(errors), flags=re.DOTALL)
    if refused:
        text = " ".join(refused[1].split())
        remedy = _remedy(_REFUSED, text, "correct the profile")
        return Finding("submission", "WRONG", f"refused: {text}", remedy)
    logs = [
        folder / f"{kind}.log",
        *sorted((folder / ".snakemake/slurm_logs").glob(f"rule_{rule}/**/*.log")),
    ]
    texts = [
        path.read_text(encoding="utf-8", errors="replace").strip() for path in logs if path.exists()
    ]
    if not any(texts) and errors:
        remedy = (
            f"work in a folder that all nodes see; nodes do not share {folder.parent}, or may not"
            " write there"
        )
        return Finding(
            "shared folder",
            "WRONG",
            "the job ended, but neither its log nor its answer can be seen here",
            remedy,
        )
    lines = [
        line
        for text in (*reversed(texts), *([] if any(texts) else [told]))
        for line in text.splitlines()
        if line.strip()
    ]
    known = next(
        (line for line in lines if any(re.search(pattern, line) for pattern in _FAILED)), None
    )
    text = known or " / ".join(lines[-_LOG_LINES:])
    return Finding(
        "environment",
        "WRONG",
        f"failed: {text.strip()}",
        _remedy(_FAILED, text, f"see the logs in {folder}"),
    )


def _remedy(known: Mapping[str, str], text: str, otherwise: str) -> str:
    return next(
        (remedy for pattern, remedy in known.items() if re.search(pattern, text)), otherwise
    )


def _read_profile(profile: Path) -> dict[str, Any]:
    """Return the profile's options."""
    path = profile / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"--profile {profile}: has no config.yaml; name a folder like profiles/slurm"
        )
    options: dict[str, Any] = read_yaml(path)
    if options.get("executor") != "slurm":
        raise UserError(
            f"{path}: executor is {options.get('executor')}, but this check is for Slurm; name a"
            " profile with executor: slurm"
        )
    return options


def _site_resources(profile: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that comes with the profile."""
    path = profile / str(options.get("configfile", ""))
    return read_yaml(path) if path.is_file() else {}


def _said(*command: str) -> tuple[str, bool]:
    """Return what a command printed, and whether it ended well."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), False
    return (done.stdout or done.stderr).strip(), done.returncode == 0
