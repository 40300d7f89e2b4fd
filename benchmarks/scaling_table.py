"""Jobs, files, bytes and core hours of 1e6 and 1e8 events by stage, from a finished run's rates.

    python benchmarks/scaling_table.py FOLDER [--detector clic] [--preset demo]

FOLDER holds ``results`` and ``.snakemake`` of a finished chain, e.g. of ``make run``. Taken from
it: CPU seconds of every job (Snakemake's ``benchmark:`` files, import of the stage's libraries
included; this is measured here and subtracted), bytes and number of the files that each job left,
and Snakemake's own records. A job's start, which each job pays once more, is Snakemake's (measured
here, on this workflow) plus the import. All rates are proportional to events, except what a job
costs whatever its size.

Prints Markdown tables; the last line is one JSON object.
"""

import argparse
import base64
import csv
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import n_dataset_shards, n_shards

ROOT = Path(__file__).parents[1]
LARGE = load_run(ROOT / "config", {"preset": "large"})
PER_SHARD = LARGE.simulation.files_per_dataset_shard
# events in all, events per simulated file
SIZES = (
    (1_000_000, LARGE.simulation.events_per_shard),
    (100_000_000, 5 * LARGE.simulation.events_per_shard),
)


@dataclass(frozen=True)
class Stage:
    """Where a rule's traces lie below a detector's results, and the module that its jobs import."""

    rule: str
    folder: str
    module: str
    # "simulated": one simulated file; "dataset": one shard of the dataset; "all": every event
    events_per_job: str


STAGES = (
    Stage("simulate_events", "sim", "simulation.simulate", "simulated"),
    Stage("build_dataset", "dataset", "dataset.build", "dataset"),
    Stage("select_events", "select", "selection.select", "dataset"),
    Stage("write_shards", "shards", "preprocessing.shards", "all"),
    Stage("reconstruct_events", "reco", "reconstruction.reconstruct", "dataset"),
    Stage("validate_model", "validate", "validation.validate", "all"),
)


@dataclass(frozen=True)
class Rates:
    """What a stage costs: per event, and per job whatever its size."""

    cpu_s_per_event: float
    bytes_per_event: float
    start_cpu_s: float
    files_per_job: float
    # records beside the outputs, logs, Snakemake's benchmark files and records
    side_bytes_per_job: float


def cpu_seconds(command: Sequence[str]) -> float:
    """Return the median CPU time of three runs of a command."""
    times = []
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, command
        times.append(used.ru_utime + used.ru_stime)
    return statistics.median(times)


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, or the file itself."""
    return [path for path in (folder.rglob("*") if folder.is_dir() else [folder]) if path.is_file()]


def size(paths: Iterable[Path]) -> int:
    """Return the bytes of files."""
    return sum(path.stat().st_size for path in paths)


def of_rule(results: Path, kind: str, rule: str, suffix: str) -> list[Path]:
    """Return a rule's logs or benchmark files, one per job."""
    single = results / kind / f"{rule}{suffix}"
    return [single] if single.is_file() else files_below(results / kind / rule)


def records_by_output(folder: Path, detector: str) -> dict[str, Path]:
    """Return Snakemake's records by the output that they describe.

    Outputs are relative to the detector's results.
    """
    found = {}
    metadata = folder / ".snakemake/metadata"
    for path in files_below(metadata):
        name = "".join(part.removeprefix("@") for part in path.relative_to(metadata).parts)
        output = base64.urlsafe_b64decode(name).decode()
        if output.startswith(f"results/{detector}/"):
            found[output.removeprefix(f"results/{detector}/")] = path
    return found


def rates(folder: Path, detector: str, preset: str) -> dict[str, Rates]:
    """Measure each stage's rates in a finished run."""
    results = folder / "results" / detector
    simulation = load_run(ROOT / "config", {"preset": preset, "detector": detector}).simulation
    samples = load_detector(ROOT / "config", detector).samples.values()
    events = simulation.events_per_shard * sum(n_shards(simulation, sample) for sample in samples)
    jobs = {
        "simulated": sum(n_shards(simulation, sample) for sample in samples),
        "dataset": sum(n_dataset_shards(simulation, sample) for sample in samples),
        "all": 1,
    }
    snakemake_s = cpu_seconds([sys.executable, "-m", "snakemake", "--list-rules", "--quiet"])
    python_s = cpu_seconds([sys.executable, "-c", "pass"])
    records = records_by_output(folder, detector)
    found = {}
    for stage in STAGES:
        import_s = cpu_seconds([sys.executable, "-c", f"import particleforge.{stage.module}"])
        benchmarks = of_rule(results, "benchmarks", stage.rule, ".tsv")
        n_jobs = jobs[stage.events_per_job]
        assert len(benchmarks) == n_jobs, (
            f"{folder}: {len(benchmarks)} jobs of {stage.rule}, expected {n_jobs}; is the run"
            " finished?"
        )
        cpu_s = sum(
            float(row["cpu_time"])
            for path in benchmarks
            for row in csv.DictReader(path.open(), delimiter="\t")
        )
        made = files_below(results / stage.folder)
        beside = [path for path in made if path.name.endswith(".provenance.json")]
        data = [path for path in made if path not in set(beside)]
        own = [path for output, path in records.items() if output.split("/")[0] == stage.folder]
        side = [*beside, *of_rule(results, "logs", stage.rule, ".log"), *benchmarks, *own]
        found[stage.rule] = Rates(
            cpu_s_per_event=max(cpu_s - n_jobs * (import_s - python_s), 0.0) / events,
            bytes_per_event=size(data) / events,
            start_cpu_s=snakemake_s + import_s,
            files_per_job=(len(data) + len(side)) / n_jobs,
            side_bytes_per_job=size(side) / n_jobs,
        )
    return found


def row(stage: Stage, rate: Rates, events: int, events_per_file: int) -> dict[str, float]:
    """Return one line of the table for so many events."""
    files = math.ceil(events / events_per_file)
    jobs = {"simulated": files, "dataset": math.ceil(files / PER_SHARD), "all": 1}[
        stage.events_per_job
    ]
    # the training shards are no jobs, but as many files as preprocessing.events_per_shard makes of
    # all events
    shards = events / LARGE.preprocessing.events_per_shard if stage.rule == "write_shards" else 0
    return {
        "jobs": jobs,
        "files": jobs * rate.files_per_job + shards,
        "gigabytes": (events * rate.bytes_per_event + jobs * rate.side_bytes_per_job) / 1e9,
        "core_hours": (events * rate.cpu_s_per_event + jobs * rate.start_cpu_s) / 3600,
        "of_which_start": jobs * rate.start_cpu_s / 3600,
        "minutes_per_job": (events / jobs * rate.cpu_s_per_event + rate.start_cpu_s) / 60,
    }


def main() -> None:
    """Measure the rates and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of a finished run")
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--preset", default="demo", help="preset of that run")
    options = parser.parse_args()
    measured = rates(options.folder, options.detector, options.preset)
    print(
        "| rule | CPU per event (ms) | bytes per event | start of a job (CPU s) | files per job |"
        " of which bytes beside the data |"
    )
    print("|---|---|---|---|---|---|")
    for rule, rate in measured.items():
        print(
            f"| `{rule}` | {rate.cpu_s_per_event * 1e3:.2f} | {rate.bytes_per_event:,.0f} |"
            f" {rate.start_cpu_s:.1f} | {rate.files_per_job:.1f} | {rate.side_bytes_per_job:,.0f} |"
        )
    totals = {}
    for events, per_file in SIZES:
        print(
            f"\n{events:.0e} events, {per_file} per simulated file, {PER_SHARD} of these per shard"
            " of the dataset:\n"
        )
        print(
            "| rule | jobs | files (inodes) | GB | core hours | of which start of jobs | minutes"
            " per job |"
        )
        print("|---|---|---|---|---|---|---|")
        rows = {stage.rule: row(stage, measured[stage.rule], events, per_file) for stage in STAGES}
        total = {
            name: sum(one[name] for one in rows.values())
            for name in ("jobs", "files", "gigabytes", "core_hours", "of_which_start")
        }
        for rule, one in (*((f"`{name}`", one) for name, one in rows.items()), ("all", total)):
            minutes = f"{one['minutes_per_job']:,.1f}" if "minutes_per_job" in one else ""
            print(
                f"| {rule} | {one['jobs']:,.0f} | {one['files']:,.0f} | {one['gigabytes']:,.1f} |"
                f" {one['core_hours']:,.1f} | {one['of_which_start']:,.1f} | {minutes} |"
            )
        totals[f"{events:.0e}"] = {name: round(value, 1) for name, value in total.items()}
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
