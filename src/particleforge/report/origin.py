"""Where the results come from: stages, settings, commits, hosts and package versions.

Inputs -> outputs: the ``<file>.provenance.json`` beside each result (``provenance``), where there
is one -> tables. Results without such a record are counted, not guessed at.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particleforge.pages.rendering import NOTHING, Rows, number
from particleforge.provenance.record import read_record


@dataclass(frozen=True)
class Origin:
    """What the page shows of the results' origin."""

    stages: Rows
    packages: Rows
    without_record: int


def gather_origin(results: Iterable[Path]) -> Origin:
    """Read the records beside ``results`` and gather them by stage, in the order given."""
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    packages: dict[str, set[str]] = {}
    missing = 0
    for path in results:
        record = Path(f"{path}.provenance.json")
        if not record.exists():
            missing += 1
            continue
        found = read_record(record)
        by_stage.setdefault(found["stage"], []).append(found)
        for name, version in found["packages"].items():
            packages.setdefault(name, set()).add(version)
    return Origin(
        stages=Rows(
            ("stage", "version", "files", "settings", "commit", "host", "time [s]"),
            [_stage(stage, records) for stage, records in by_stage.items()],
        ),
        packages=Rows(
            ("package", "version"),
            [(name, ", ".join(sorted(found))) for name, found in sorted(packages.items())],
        ),
        without_record=missing,
    )


def _stage(stage: str, records: list[Mapping[str, Any]]) -> tuple[str, ...]:
    circumstances = [record["circumstances"] for record in records]
    commits = {
        c["git_commit"][:12] + (" (modified)" if c["git_dirty"] else "") for c in circumstances
    }
    return (
        stage.replace("_", " "),
        _distinct(number(record["settings"].get("version")) for record in records),
        number(len(records)),
        _distinct(record["settings_hash"] for record in records),
        _distinct(commits),
        _distinct(c["host"] for c in circumstances),
        f"{sum(c['wall_time_s'] for c in circumstances):.0f}",
    )


def _distinct(values: Iterable[str]) -> str:
    """Return the distinct values, shortened when there are many."""
    found = sorted(set(values))
    shown = ", ".join(found[:3]) or NOTHING
    return shown if len(found) <= 3 else f"{shown} and {len(found) - 3} more"
