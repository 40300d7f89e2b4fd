"""A file's lineage as a tree for the terminal.

Inputs -> outputs: ``Lineage`` -> lines of text. Inputs that one stage wrote are one branch, however
many they are; what differs among them is listed, and called MIXED where they should be alike:
settings within a sample, commits. A branch that was drawn above is not drawn again. Last come the
problems, one per line.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from particleforge.provenance.lineage import Item, Lineage, shortened

_MAX_PROBLEMS = 20


def lineage_text(lineage: Lineage) -> str:
    """Return the tree, a summary, and the problems."""
    tree = _branch(lineage, [lineage.items[lineage.end]], set())
    return "\n".join([f"{lineage.base}/", *tree, "", *_summary(lineage)])


def _branch(lineage: Lineage, items: list[Item], drawn: set[Path]) -> Iterator[str]:
    """Yield the lines of items that one stage wrote, and of what they were made from."""
    is_known = drawn.issuperset(item.path for item in items)
    drawn.update(item.path for item in items)
    yield _title(lineage, items) + ("  (see above)" if is_known else "")
    if is_known:
        return
    groups = list(_groups(lineage, items))
    stem = "│  " if groups else "   "
    yield from (stem + line for line in _details(lineage, items))
    for number, group in enumerate(groups, start=1):
        first, rest = ("├─ ", "│  ") if number < len(groups) else ("└─ ", "   ")
        for place, line in enumerate(_branch(lineage, group, drawn)):
            yield (rest if place else first) + line


def _groups(lineage: Lineage, items: list[Item]) -> Iterator[list[Item]]:
    """Yield the inputs of ``items``, stage by stage."""
    by_stage: dict[str, dict[Path, Item]] = {}
    for item in items:
        for path in item.inputs:
            source = lineage.items[path]
            by_stage.setdefault(source.stage, {})[path] = source
    yield from (list(group.values()) for group in by_stage.values())


def _title(lineage: Lineage, items: list[Item]) -> str:
    states = Counter(item.state for item in items if item.state != "UNCHECKED")
    if len(items) == 1:
        return "  ".join([lineage.name(items[0].path), *states])
    stage = f"files of {items[0].stage}" if items[0].stage else "files without a record"
    named = [item for item in items if item.state in ("CHANGED", "MISSING")] or items
    said = ", ".join(f"{number} {state}" for state, number in states.items())
    example = f"e.g. {lineage.name(named[0].path)}"
    return "  ".join(filter(None, [f"{len(items)} {stage}, {example}", said]))


def _details(lineage: Lineage, items: list[Item]) -> Iterator[str]:
    """Yield what shaped the items, and where and when they were made."""
    recorded = [item for item in items if item.record]
    if not recorded:
        yield "no record: brought in from elsewhere"
        return
    records = [item.record for item in recorded if item.record]
    parts: dict[str, list[str]] = {}
    for record in records:
        for name, value in record.get("part", {}).items():
            parts.setdefault(name, []).append(str(value))
    versions = shortened(str(record["settings"].get("version")) for record in records)
    seeds = shortened(str(record["seed"]) for record in records if record["seed"] is not None)
    yield ", ".join(
        [
            f"{records[0]['stage']}, version {versions}",
            _settings(lineage, recorded),
            *([f"seed {seeds}"] if seeds else []),
            *(f"{name} {shortened(values)}" for name, values in parts.items()),
        ]
    )
    circumstances = [record["circumstances"] for record in records]
    yield ", ".join([_commits(circumstances), *_places(circumstances), _times(circumstances)])


def _settings(lineage: Lineage, items: list[Item]) -> str:
    """Return the hashes of the settings.

    More than one of a sample, or of a stage without samples, is MIXED.
    """
    by_sample: dict[str, dict[str, list[Item]]] = {}
    for item in items:
        assert item.record is not None
        sample = item.record["settings"].get("sample_name", "")
        by_sample.setdefault(sample, {}).setdefault(item.record["settings_hash"], []).append(item)
    mixed = [
        f"MIXED settings{f' of {sample}' if sample else ''}: "
        + shortened(
            f"{digest} ({len(made)}, e.g. {lineage.name(made[0].path)})"
            for digest, made in hashes.items()
        )
        for sample, hashes in by_sample.items()
        if len(hashes) > 1
    ]
    if mixed:
        return "; ".join(mixed)
    hashes = {sample: next(iter(found)) for sample, found in by_sample.items()}
    return "settings " + shortened(
        f"{digest} ({sample})" if len(hashes) > 1 else digest for sample, digest in hashes.items()
    )


def _commits(circumstances: list[dict[str, Any]]) -> str:
    commits = Counter(
        c["git_commit"][:12] + (" (modified)" if c["git_dirty"] else "") for c in circumstances
    )
    if len(commits) == 1:
        return f"commit {next(iter(commits))}"
    return (
        f"MIXED commits: {shortened(f'{commit}: {number}' for commit, number in commits.items())}"
    )


def _places(circumstances: list[dict[str, Any]]) -> Iterator[str]:
    hosts = list(dict.fromkeys(c["host"] for c in circumstances))
    yield f"{'host' if len(hosts) == 1 else f'{len(hosts)} hosts'} {shortened(hosts)}"
    jobs = [c["slurm"] for c in circumstances if c["slurm"]]
    if jobs:
        names = list(dict.fromkeys(map(_job, jobs)))
        yield f"{'Slurm job' if len(names) == 1 else f'{len(names)} Slurm jobs'} {shortened(names)}"


def _job(slurm: dict[str, str]) -> str:
    array = (
        f" = {slurm['array_job_id']}_{slurm['array_task_id']}" if "array_task_id" in slurm else ""
    )
    notes = [f"on {slurm['node_list']}"] if "node_list" in slurm else []
    notes += (
        [f"{slurm['restart_count']} restarts"] if slurm.get("restart_count", "0") != "0" else []
    )
    return f"{slurm['job_id']}{array}" + (f" ({', '.join(notes)})" if notes else "")


def _times(circumstances: list[dict[str, Any]]) -> str:
    """Return the time that jobs took and when the last one began.

    A job counts once, however many files it wrote.
    """
    jobs = {(c["host"], c["pid"], c["started_unix_s"]): c["wall_time_s"] for c in circumstances}
    latest = datetime.fromtimestamp(max(c["started_unix_s"] for c in circumstances), UTC)
    total = f"{sum(jobs.values()):.1f} s" + (
        f" in {len(jobs)} jobs, the last" if len(jobs) > 1 else ""
    )
    return f"{total} {latest:%Y-%m-%d %H:%M} UTC"


def _summary(lineage: Lineage) -> Iterator[str]:
    packages: dict[str, set[str]] = {}
    for item in lineage.items.values():
        for name, version in (item.record or {"packages": {}})["packages"].items():
            packages.setdefault(name, set()).add(version)
    mixed = [
        f"{name} {', '.join(sorted(versions))}"
        for name, versions in sorted(packages.items())
        if len(versions) > 1
    ]
    if mixed:
        yield f"MIXED packages: {'; '.join(mixed)}"
    environments = {
        item.record["circumstances"].get("environment")
        for item in lineage.items.values()
        if item.record
    }
    if len(environments) > 1 and not mixed:
        yield f"{len(environments)} environments, which differ in other packages only"
    states = Counter(item.state for item in lineage.items.values())
    yield f"{len(lineage.items)} files and folders: {_counted(states.items())}"
    problems = lineage.problems()
    for item in problems[:_MAX_PROBLEMS]:
        yield f"{item.state} {lineage.name(item.path)}: {item.reason}"
    if len(problems) > _MAX_PROBLEMS:
        yield f"and {len(problems) - _MAX_PROBLEMS} more; --json lists all"


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts)
