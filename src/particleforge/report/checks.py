"""The report's account of the checks of the data: samples, comparisons, training shards.

Inputs -> outputs: the verdicts as JSON (``checks.verdict``) -> tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particleforge.checks.page import checks_table
from particleforge.checks.verdict import VerdictFile
from particleforge.pages.rendering import NOTHING, Rows, number, yes_or_no
from particleforge.stored import read_stored


@dataclass(frozen=True)
class Part:
    """All checks of one sample, between samples, or of the training shards."""

    title: str
    rows: Rows


@dataclass(frozen=True)
class Checks:
    """What the page shows of the checks."""

    verdict: str
    summary: Rows
    parts: list[Part]


def gather_checks(dataset_verdict: Path, shards_verdict: Path) -> Checks:
    """Read the verdicts on the dataset, with those on its samples, and on the training shards."""
    dataset, shards = (
        read_stored(path, VerdictFile).model_dump() for path in (dataset_verdict, shards_verdict)
    )
    splits = shards["splits"].values()
    facts = {
        f"sample {name}": (found, found["events"], found["shards"])
        for name, found in sorted(dataset["samples"].items())
    }
    facts["between samples"] = (
        dataset,
        sum(f["events"] for f in dataset["samples"].values()),
        NOTHING,
    )
    facts["training shards"] = (
        shards,
        sum(s["events"] for s in splits),
        sum(s["shards"] for s in splits),
    )
    passed = all(found["passed"] for found, *_ in facts.values())
    compared = sum(
        check["compared"] for found, *_ in facts.values() for check in found["checks"].values()
    )
    heads = ("data", "events", "shards", "checks", "values compared", "beyond the limit", "passed")
    return Checks(
        verdict=(
            f"All {number(compared)} values that were compared keep to their limits."
            if passed
            else "Some values are not allowed."
        ),
        summary=Rows(heads, [_summary(title, *entry) for title, entry in facts.items()]),
        parts=[
            Part(title, checks_table(found["checks"]))
            for title, (found, *_) in facts.items()
            if found["checks"]
        ],
    )


def _summary(
    title: str, found: Mapping[str, Any], events: int, shards: int | str
) -> tuple[str, ...]:
    checks = found["checks"].values()
    compared, failed = (sum(check[key] for check in checks) for key in ("compared", "failed"))
    return (
        title,
        number(events),
        number(shards),
        number(len(checks)),
        number(compared),
        number(failed),
        yes_or_no(found["passed"]),
    )
