"""A job that is killed leaves nothing half-written, and running again ends in the result of a run
that was never killed.
"""

import contextlib
import csv
import difflib
import hashlib
import json
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from chain import PATIENCE_S, environment

# rule -> the target to ask for, below the detector's folder or a stage, and what the rule writes
JOBS = {
    "simulate_events": ("sim/ttbar/00000.root", ["sim/ttbar/00000.root"]),
    "build_dataset": ("dataset/ttbar/00000.parquet", ["dataset/ttbar/00000.parquet"]),
    "select_events": (
        "select/ttbar/00000.parquet",
        ["select/ttbar/00000.parquet", "select/ttbar/00000.cutflow.json"],
    ),
    "gather_cutflows": ("select/cutflow.csv", ["select/cutflow.csv", "select/cutflow.png"]),
    "write_shards": ("shards/manifest.json", ["shards"]),
    "run_hpo_slot": ("hpo/slots/1/0.json", ["hpo/slots/1/0.json"]),
    "select_best_trial": ("hpo/best.yaml", ["hpo/best.yaml", "hpo/trials.csv"]),
    "train_model": ("train/best.pt", ["train"]),
    "export_onnx": ("export/model.onnx", ["export"]),
    "reconstruct_events": (
        "reco/ttbar/00000.parquet",
        ["reco/ttbar/00000.parquet", "reco/ttbar/00000.root"],
    ),
    "validate_model": ("validate/metrics.json", ["validate"]),
    "build_report": ("report.html", ["report.html"]),
}
TIMES = {
    "seconds",
    "wall_time_s",
    "cpu_time_s",
    "memory_peak_gb",
    "events_per_second",
    "elements_per_second",
    "events_per_s",
    "elements_per_s",
}


def digest(path):
    """Return what must be equal: bytes, or content without times for records of a training."""
    if path.suffix == ".json":
        return json.dumps(without_times(json.loads(path.read_text())), sort_keys=True, indent=1)
    if path.name == "trials.csv":
        with path.open() as handle:
            return [
                {k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(handle)
            ]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(content):
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key not in TIMES}
    return [without_times(item) for item in content] if isinstance(content, list) else content


def compared(results, names):
    """Return the files under ``names`` that must come out equal."""
    found = {}
    for name in names:
        path = results / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            relative = str(file.relative_to(results))
            volatile = (
                "work/",
                "tensorboard/",
                "metrics.parquet",
                ".provenance.json",
                "parity.json",
                "model_card.md",
                "report.html",
            )
            # temporary names
            hidden = any(part.startswith(".") for part in file.relative_to(results).parts)
            if file.is_file() and not hidden and not any(part in relative for part in volatile):
                found[relative] = digest(file)
    return found


def unlike(found, expected, names):
    """Return the lines in which the files under ``names`` differ; of bytes, the digests."""
    lines = {
        name: [str(side.get(name)).splitlines() for side in (found, expected)] for name in names
    }
    return {
        name: list(difflib.unified_diff(*pair, n=0, lineterm=""))
        for name, pair in sorted(lines.items())
        if pair[0] != pair[1]
    }


def job_process(root, rule):
    """Return the process that runs the rule's script, once it has been started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(root).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if any(rule in part and part.endswith(".py") for part in child.cmdline()):
                    return child
    return None


# some jobs are still importing after a second
DELAYS_S = dict.fromkeys(JOBS, 1.0) | {
    "write_shards": 2.5,
    "run_hpo_slot": 4.0,
    "train_model": 4.0,
    "validate_model": 4.0,
}


@pytest.mark.fault("job killed while writing")
@pytest.mark.parametrize(("rule", "delay_s"), DELAYS_S.items())
def test_sigkill_and_rerun(chain, tmp_path, rule, delay_s):
    target, written = JOBS[rule]
    victim = chain.copy(tmp_path / "run")
    expected = compared(chain.results, written)
    for name in written:
        path = victim.results / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    command = victim.command(f"results/clic/{target}")
    process = subprocess.Popen(
        command,
        cwd=victim.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + PATIENCE_S
    while (
        (job := job_process(process.pid, rule)) is None
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert job is not None, process.communicate()[0]
    time.sleep(delay_s)
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [*job.children(recursive=True), job]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    visible = compared(victim.results, written)
    assert not unlike(visible, expected, visible), "something half-written is visible"
    victim.run(f"results/clic/{target}")
    again = compared(victim.results, written)
    assert not unlike(again, expected, again.keys() | expected.keys())
    assert not [path for path in victim.results.rglob(".*") if path.suffix == ".tmp"]
