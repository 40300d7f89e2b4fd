"""What the results cost: core hours, cores in use and memory, by stage.

Inputs -> outputs: the records (``provenance``) of the results and of all that they were made from,
and the final training's metrics -> a table and a sentence. A job is one process that wrote records:
its time, that of its ended children, and the memory of the largest of them. Attempts that did not
end (killed, stopped at a limit, put back into the queue) left no record, and ranks that srun starts
are no children; neither is counted. A training whose stored result was taken is as long as that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from particleforge.config.resources import ResourcesConfig
from particleforge.errors import UserError
from particleforge.pages.rendering import NOTHING, Rows, number
from particleforge.provenance.lineage import read_items

_HEADS = ("stage", "jobs", "hours of jobs", "core hours", "cores in use, mean", "memory, peak [GB]")
_GPU_HEADS = {
    "gpu_utilisation": "GPU in use, mean",
    "gpu_memory_gb": "GPU memory, peak [GB]",
}

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Usage:
    """What the page shows of the results' cost."""

    text: str
    rows: Rows
    gpu: bool


def gather_usage(results: Iterable[Path], metrics: Path) -> Usage:
    """Read the records behind ``results``, and what the final training says of its GPU."""
    gpu = _gpu(metrics)
    try:
        jobs = _jobs(results)
    except UserError as error:
        return Usage(f"The records do not tell: {error}.", Rows((*_HEADS, *gpu), []), bool(gpu))
    stages = [stage for stage in ResourcesConfig.model_fields if stage in jobs]
    rows = [
        (
            *_row(stage, jobs[stage]),
            *(text if stage == "train_model" else NOTHING for text in gpu.values()),
        )
        for stage in stages
    ]
    every = [job for stage in stages for job in jobs[stage]]
    if len(rows) > 1:
        rows.append((*_row("all", every), *(NOTHING for _ in gpu)))
    return Usage(_text(every), Rows((*_HEADS, *gpu), rows), bool(gpu))


def _jobs(results: Iterable[Path]) -> dict[str, list[Job]]:
    """Return the circumstances of every job by stage: the latest that a process wrote down."""
    found: dict[str, dict[tuple[Any, ...], Job]] = {}
    for item in read_items(results).values():
        if item.record is None:
            continue
        job = item.record["circumstances"]
        process = (job["host"], job["pid"], job["started_unix_s"])
        of_stage = found.setdefault(item.stage, {})
        before = of_stage.get(process)
        if before is None or job["wall_time_s"] >= before["wall_time_s"]:
            of_stage[process] = job
    return {stage: list(of_stage.values()) for stage, of_stage in found.items()}


def _row(stage: str, jobs: Sequence[Job]) -> tuple[str, ...]:
    core_hours, cores, memory = _used(jobs) if len(_telling(jobs)) == len(jobs) else (None,) * 3
    return (
        stage.replace("_", " "),
        number(len(jobs)),
        f"{_hours(jobs, 'wall_time_s'):.3f}",
        NOTHING if core_hours is None else f"{core_hours:.3f}",
        NOTHING if cores is None else f"{cores:.2f}",
        NOTHING if memory is None else f"{memory:.2f}",
    )


def _hours(jobs: Sequence[Job], name: str) -> float:
    return sum(float(job[name]) for job in jobs) / 3600


def _telling(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs whose records tell core time and memory, as those of old versions do not."""
    names = ("cpu_time_s", "memory_peak_gb")
    return [job for job in jobs if all(job.get(name) is not None for name in names)]


def _used(jobs: Sequence[Job]) -> tuple[float, float, float]:
    """Return core hours, cores in use and peak memory of jobs that tell."""
    core_hours = _hours(jobs, "cpu_time_s")
    cores = core_hours / max(_hours(jobs, "wall_time_s"), 1e-9)
    return core_hours, cores, max(job["memory_peak_gb"] for job in jobs)


def _text(jobs: Sequence[Job]) -> str:
    telling = _telling(jobs)
    if not telling:
        return "The records of this run do not tell."
    core_hours, _, memory = _used(telling)
    of = "" if len(telling) == len(jobs) else f" of {number(len(jobs))}, as others do not tell,"
    return (
        f"The results took {core_hours:.2f} core hours in {number(len(telling))} jobs{of} of"
        f" {_hours(telling, 'wall_time_s'):.2f} hours together, and at most {memory:.2f} GB of"
        " memory in one process."
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
