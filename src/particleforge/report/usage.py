"""What the run cost: core hours, cores in use, memory and data moved, by stage.

Inputs -> outputs: the benchmark files that Snakemake writes of every job (``benchmarks/<rule>``,
one line of tab-separated values each) and the final training's metrics -> a table and a sentence.
Snakemake adds up the processes of a job and samples them; of jobs shorter than a sample it knows
the time only. Files of another run in the same folder count, too, until their jobs run again.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from particleforge.config.resources import ResourcesConfig
from particleforge.pages.rendering import NOTHING, Rows, number

_OWN = "build_report"  # still running
_MIB_PER_GIB = 1024
_GPU_HEADS = {
    "gpu_utilisation": "GPU in use, mean",
    "gpu_memory_gb": "GPU memory, peak [GB]",
}

Job = Mapping[str, float]


@dataclass(frozen=True)
class Usage:
    """What the page shows of the run's cost."""

    text: str
    rows: Rows
    gpu: bool


def gather_usage(benchmarks: Path, metrics: Path) -> Usage:
    """Read the benchmark files below a folder, and what the final training says of its GPU."""
    jobs = _jobs(benchmarks)
    gpu = _gpu(metrics)
    rules = [rule for rule in ResourcesConfig.model_fields if rule in jobs]
    rows = [
        (
            *_row(rule, jobs[rule]),
            *(text if rule == "train_model" else NOTHING for text in gpu.values()),
        )
        for rule in rules
    ]
    every = [job for rule in rules for job in jobs[rule]]
    if len(rows) > 1:
        rows.append((*_row("all", every), *(NOTHING for _ in gpu)))
    heads = (
        "stage",
        "jobs",
        "hours of jobs",
        "core hours",
        "cores in use, mean",
        "memory, peak [GiB]",
        "read [GiB]",
        "written [GiB]",
    )
    return Usage(_text(every), Rows((*heads, *gpu), rows), bool(gpu))


def _jobs(benchmarks: Path) -> dict[str, list[Job]]:
    """Return the figures of every job by rule; a figure that Snakemake does not know is NaN."""
    found: dict[str, list[Job]] = {}
    for path in sorted(benchmarks.rglob("*.tsv")):
        rule = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        if rule == _OWN:
            continue
        with path.open(encoding="utf-8", newline="") as handle:
            lines = csv.DictReader(handle, delimiter="\t")
            found.setdefault(rule, []).extend(
                {name: _figure(text) for name, text in line.items()} for line in lines
            )
    return found


def _figure(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:  # NA, or the time as h:m:s
        return math.nan


def _row(rule: str, jobs: Sequence[Job]) -> tuple[str, ...]:
    seconds, core_seconds = _of(sum, jobs, "s"), _of(sum, jobs, "cpu_time")
    return (
        rule.replace("_", " "),
        number(len(jobs)),
        f"{seconds / 3600:.3f}",
        f"{core_seconds / 3600:.3f}",
        f"{core_seconds / seconds:.2f}" if seconds else NOTHING,
        *(
            f"{_of(gathered, jobs, name) / _MIB_PER_GIB:.2f}"
            for name, gathered in (("max_rss", max), ("io_in", sum), ("io_out", sum))
        ),
    )


def _of(gathered: Callable[[list[float]], float], jobs: Sequence[Job], name: str) -> float:
    """Return the sum or the largest of a figure over the jobs of which it is known."""
    known = [job[name] for job in jobs if not math.isnan(job.get(name, math.nan))]
    return gathered(known) if known else 0.0


def _text(jobs: Sequence[Job]) -> str:
    if not jobs:
        return "There are no benchmark files of this run."
    core_hours, hours, memory = (
        _of(sum, jobs, "cpu_time") / 3600,
        _of(sum, jobs, "s") / 3600,
        _of(max, jobs, "max_rss") / _MIB_PER_GIB,
    )
    return (
        f"The run took {core_hours:.2f} core hours in {number(len(jobs))} jobs of {hours:.2f} hours"
        f" together, and at most {memory:.2f} GiB of memory in one job."
    )


def _gpu(metrics: Path) -> dict[str, str]:
    """Return the final training's use of its accelerator by head of column; none on a CPU."""
    table = pd.read_parquet(metrics)
    values = {name: table.loc[table["name"] == name, "value"] for name in _GPU_HEADS}
    use, memory = values.values()
    texts = (
        f"{use.mean():.0%}" if len(use) else NOTHING,
        f"{memory.max():.2f}" if len(memory) else NOTHING,
    )
    return dict(zip(_GPU_HEADS.values(), texts, strict=True)) if len(use) + len(memory) else {}
