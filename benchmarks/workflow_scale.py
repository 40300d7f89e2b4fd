"""How planning grows with the number of shards: dry run, no-op run, memory, and one job's cost.

A job's cost is that before its work starts.

    python benchmarks/workflow_scale.py [--shards 2500 5000 10000] [--files-per-dataset-shard 10]

Plans the real chain, all rules of it, with so many simulated shards in total over the samples and a
search of 243 slots in its first rung (364 in all). The no-op run is measured on empty files that
Snakemake itself has marked as made (``--touch``), so its records of params, inputs and code are
those of a finished chain, and a run compares each of them.

Prints a table; the last line is one JSON object with the figures of the largest number of shards.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from particleforge.config.load import load_detector, load_run

ROOT = Path(__file__).parents[1]
DETECTOR = "clic"
HPO = "{scheduler: asha, first_rung_slots: 243, eta: 3, n_rungs: 6}"
# Snakemake's own --touch, without the pause that it makes for each job
TOUCH = (
    "import sys, snakemake.executors.touch as t; t.Executor.SLEEPING_TIME = 0; from snakemake.cli"
    " import main; main(sys.argv[1:])"
)


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    wall_s: float
    cpu_s: float
    memory_mb: float
    text: str

    def row(self) -> str:
        """Return the cost as cells of a table."""
        return f"{self.wall_s:7.1f} {self.cpu_s:7.1f} {self.memory_mb:7.0f}"


def measured(command: Sequence[str], folder: Path) -> Cost:
    """Run a command and return its cost; an error ends the benchmark."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if status:
        sys.exit(f"{' '.join(command)}: {text[-4000:]}")
    return Cost(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text)


@dataclass(frozen=True)
class PlannedRun:
    """A folder with a configuration of so many shards."""

    folder: Path
    shards: int
    files_per_dataset_shard: int

    def __post_init__(self) -> None:
        """Write the configuration."""
        shutil.copytree(ROOT / "config", self.folder / "config")
        samples = load_detector(ROOT / "config", DETECTOR).samples.values()
        per_sample = -(-self.shards // sum(1 for _ in samples))
        simulation = (
            f"{{events_per_sample: {per_sample}, events_per_shard: 1, files_per_dataset_shard:"
            f" {self.files_per_dataset_shard}}}"
        )
        (self.folder / "config/presets/scale.yaml").write_text(
            f"simulation: {simulation}\nhpo: {HPO}\n"
        )

    def snakemake(
        self,
        *arguments: str,
        start: Sequence[str] = ("-m", "snakemake"),
        config: Sequence[str] = (),
        cores: int = 2,
    ) -> Cost:
        """Run Snakemake as the local profile does."""
        fixed = (
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--profile",
            str(ROOT / "profiles/local"),
            "--cores",
            str(cores),
        )
        chosen = ("--config", "preset=scale", f"detector={DETECTOR}", *config)
        return measured((sys.executable, *start, *arguments, *fixed, *chosen), self.folder)

    def plan(self) -> Cost:
        """Plan every job of the chain."""
        return self.snakemake("--dry-run", "--quiet", "rules")

    def finish(self) -> Cost:
        """Make all outputs as empty files and have Snakemake record them as its own.

        Return the cost of the records.
        """
        listed = self.snakemake("--summary").text.splitlines()
        header = next(
            number for number, line in enumerate(listed) if line.startswith("output_file\t")
        )
        for line in listed[header + 1 :]:
            path = self.folder / line.split("\t")[0]
            if line.count("\t") < 3 or path.exists():
                continue
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            else:
                path.mkdir(parents=True)
        return self.snakemake(
            "--touch", "--forceall", "--quiet", "all", start=("-c", TOUCH), cores=self.shards
        )

    def noop(self) -> Cost:
        """Find that nothing is to be done."""
        cost = self.snakemake("--quiet", "rules")
        assert "Nothing to be done" in cost.text, cost.text[-4000:]
        return cost

    def assert_records_are_compared(self) -> None:
        """Fail unless a changed seed shows in the record of every simulated file.

        Only then did the no-op run compare them.
        """
        text = self.snakemake("--dry-run", "--quiet", "rules", config=["seed=1"]).text
        assert planned(text)["simulate_events"] >= self.shards, text[-4000:]

    def job(self, target: str) -> Cost:
        """Start Snakemake as a cluster job does, for one target, until its one job would start."""
        rule = target.partition(":")[0]
        cost = self.snakemake(
            "--target-jobs",
            target,
            "--allowed-rules",
            rule,
            "--force",
            "--dry-run",
            "--nolock",
            "--quiet",
            "rules",
        )
        assert planned(cost.text) == {rule: 1, "total": 1}, cost.text[-4000:]
        return cost

    def records(self) -> tuple[int, int]:
        """Return number and bytes of Snakemake's records."""
        files = [
            path for path in (self.folder / ".snakemake/metadata").rglob("*") if path.is_file()
        ]
        return len(files), sum(path.stat().st_size for path in files)


def planned(text: str) -> dict[str, int]:
    """Return jobs by rule from Snakemake's table."""
    table = text.split("Job stats:")[-1].split("\n\n")[0]
    return {
        rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shards",
        type=int,
        nargs="+",
        default=[2500, 5000, 10000],
        help="simulated shards, in growing order",
    )
    large = load_run(ROOT / "config", {"preset": "large"}).simulation.files_per_dataset_shard
    parser.add_argument(
        "--files-per-dataset-shard",
        type=int,
        default=large,
        help="default: that of the preset `large`",
    )
    options = parser.parse_args()
    print(f"{'':>8} {'':>7} | {'plan':^23} | {'no-op':^23} | Snakemake's records")
    print(
        f"{'shards':>8} {'jobs':>7} | "
        + " | ".join([f"{'wall s':>7} {'CPU s':>7} {'MB':>7}"] * 2)
        + f" | {'files':>7} {'MB':>7}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for shards in options.shards:
            workflow = PlannedRun(
                Path(scratch) / str(shards), shards, options.files_per_dataset_shard
            )
            plan = workflow.plan()
            workflow.finish()
            noop = workflow.noop()
            n_records, n_bytes = workflow.records()
            jobs = planned(plan.text)["total"]
            print(
                f"{shards:8d} {jobs:7d} | {plan.row()} | {noop.row()} | {n_records:7d}"
                f" {n_bytes / 1e6:7.1f}",
                flush=True,
            )
        workflow.assert_records_are_compared()
        print("\nSnakemake inside one job, until the job's script starts (wall s, CPU s, MB):")
        for target in JOBS:
            print(f"{target.partition(':')[0]:20s} {workflow.job(target).row()}", flush=True)
        empty = Path(scratch) / "Snakefile"
        empty.write_text("rule all:\n")
        start = measured(
            (sys.executable, "-m", "snakemake", "--list-rules", "--quiet"), empty.parent
        )
        parse = workflow.snakemake("--list-rules", "--quiet")
    figures = {
        "plan_seconds_10k": plan.wall_s,
        "noop_seconds_10k": noop.wall_s,
        "parse_seconds": parse.wall_s - start.wall_s,
        "memory_mb": max(plan.memory_mb, noop.memory_mb),
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


_SHARD = "detector=clic,sample=ttbar,shard=00000"
JOBS = (
    f"simulate_events:{_SHARD}",
    f"build_dataset:{_SHARD}",
    f"reconstruct_events:{_SHARD}",
    f"run_hpo_slot:detector={DETECTOR},rung=1,slot=0",
    f"gather_cutflows:detector={DETECTOR}",
    f"write_shards:detector={DETECTOR}",
    f"validate_model:detector={DETECTOR}",
    f"build_report:detector={DETECTOR}",
)

if __name__ == "__main__":
    main()
