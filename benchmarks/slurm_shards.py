"""Many tiny shards, simulated to selected, as arrays on a private Slurm: none lost, none repeated.

    python benchmarks/slurm_shards.py [--shards 40] [--slots 2]

Needs slurm-wlm (see tests/slurm). Checks that every file exists, that the selected events together
with those that the cuts removed are all simulated events, each once, and that each output was made
by one Slurm job of its own, as Slurm's own log counts them. Prints times and rates; the last line
is one JSON object.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests/slurm"), str(ROOT / "tests/workflow")]

from chain import Chain  # noqa: E402
from cluster import Cluster, why_not  # noqa: E402

RULES = ("simulate_events", "build_dataset", "select_events")
SAMPLES = ("ttbar", "qq", "ww")
EVENTS_PER_SHARD = 2


def read(paths: Sequence[Path]) -> Counter[int]:
    """Return how often each event identity occurs in Parquet files."""
    return Counter(
        identity
        for path in paths
        for identity in pq.read_table(path, columns=["event_id"])["event_id"].to_pylist()
    )


def check_files(results: Path, shards: int) -> list[dict[str, Any]]:
    """Check that no shard is missing or doubled; return the record of each output."""
    simulated = sorted((results / "sim").rglob("*.root"))
    dataset = sorted((results / "dataset").rglob("*.parquet"))
    selected = sorted((results / "select").rglob("*.parquet"))
    assert len(simulated) == len(dataset) == len(selected) == shards, (
        len(simulated),
        len(dataset),
        len(selected),
    )
    built, kept = read(dataset), read(selected)
    assert len(built) == shards * EVENTS_PER_SHARD, (
        "events are lost or have the identity of another"
    )
    assert set(built.values()) == {1}, "an event occurs twice"
    cutflows = [json.loads(path.with_suffix(".cutflow.json").read_text()) for path in selected]
    rows = [one["cutflow"]["events"] for one in cutflows]
    assert sum(row[0]["number"] for row in rows) == len(built), (
        "the selection has not seen every event"
    )
    assert sum(row[-1]["number"] for row in rows) == sum(kept.values()), (
        "events that pass the cuts are lost or doubled"
    )
    assert kept <= built, "the selection holds events that the dataset does not"
    return [
        json.loads(Path(f"{path}.provenance.json").read_text())
        for path in (*simulated, *dataset, *selected)
    ]


def slurm_times(log: Path) -> dict[str, tuple[float, float]]:
    """Return start and end of every job in the controller's log.

    A job that started twice ends the benchmark.
    """
    started: dict[str, float] = {}
    ended: dict[str, float] = {}
    for line in log.read_text().splitlines():
        found = re.match(
            r"\[([^]]+)\] .*?(Allocate|Started|_job_complete:) JobId=(\S+?)(?:\((\d+)\))? ", line
        )
        if found is None:
            continue
        moment = datetime.fromisoformat(found[1]).timestamp()
        what = found[2]
        name = found[4] or found[3]
        if what != "_job_complete:":
            assert name not in started, f"Slurm started job {name} twice"
            started[name] = moment
        else:
            ended.setdefault(name, moment)
    assert set(started) == set(ended), f"jobs without an end: {sorted(set(started) ^ set(ended))}"
    return {name: (started[name], ended[name]) for name in started}


def run(cluster: Cluster, folder: Path, shards: int) -> dict[str, float]:
    """Run the stages on the cluster, check what came out, and return the figures."""
    chain = Chain.new(folder)
    assert shards % len(SAMPLES) == 0, (
        f"--shards {shards}: must be a multiple of {len(SAMPLES)}, the number of samples"
    )
    numbers = range(shards // len(SAMPLES))
    events = len(numbers) * EVENTS_PER_SHARD
    config = (f"simulation={{events_per_sample: {events}, events_per_shard: {EVENTS_PER_SHARD}}}",)
    files = [
        f"results/clic/select/{sample}/{number:05d}.parquet"
        for sample in SAMPLES
        for number in numbers
    ]
    start = time.perf_counter()
    # the plugin submits what it is handed over at once, and an array's commands must fit into 128
    # KiB (profiles/slurm)
    at_once = (
        "--jobs",
        str(shards + 1),
        "--max-jobs-per-timespan",
        f"{shards + 1}/1s",
        "--slurm-array-limit",
        "50",
    )
    cluster.snakemake(
        chain,
        *files,
        f"--slurm-array-jobs={','.join(RULES)}",
        *at_once,
        config=config,
        timeout_s=24 * 3600,
    )
    wall_s = time.perf_counter() - start
    records = check_files(chain.results, shards)
    log = cluster.folder / "slurmctld.log"
    jobs = slurm_times(log)
    circumstances = [record["circumstances"] for record in records]
    makers = {one["slurm"]["job_id"] for one in circumstances}
    assert len(makers) == len(jobs) == len(RULES) * shards, (
        f"{len(makers)} makers, {len(jobs)} Slurm jobs, {len(RULES) * shards} outputs"
    )
    before = [one["started_unix_s"] - jobs[one["slurm"]["job_id"]][0] for one in circumstances]
    return {
        "shards": shards,
        "slurm_jobs": len(jobs),
        "sbatch_calls": log.read_text().count("_slurm_rpc_submit_batch_job: JobId="),
        "minutes": wall_s / 60,
        "jobs_per_minute": len(jobs) / wall_s * 60,
        "job_seconds_median": statistics.median(end - begin for begin, end in jobs.values()),
        "seconds_before_stage_median": statistics.median(before),
    }


def main() -> None:
    """Run, check and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=39, help="simulated shards over all samples")
    parser.add_argument(
        "--slots", type=int, default=2, help="jobs at a time on each of the two nodes"
    )
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as scratch:
        cluster = Cluster(Path(scratch) / "cluster", cpus_per_node=options.slots)
        try:
            cluster.start()
            figures = run(cluster, Path(scratch) / "run", options.shards)
        finally:
            cluster.stop()
    for name, value in figures.items():
        print(f"{name:28s} {value:10.2f}")
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
