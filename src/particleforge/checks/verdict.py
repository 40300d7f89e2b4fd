"""The outcome of checks: a table for the report, JSON, and one line where something fails.

Every check compares a value of a shard's column with what is allowed. ``Verdict`` counts them by
check, keeps the worst value of each and all that fail; ``conclude`` writes it, or raises the first
failure as a UserError whose line names shard, column, value, limit and remedy. What failed in full
lies in files of its own then, JSON and HTML, as outputs of a failed job are deleted.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from particleforge.artefacts import write_json, write_text
from particleforge.checks.page import failed_page
from particleforge.errors import UserError
from particleforge.provenance.record import Provenance
from particleforge.stored import Stored

_FAILURES_KEPT = 1000


@dataclass(frozen=True)
class Failure:
    """A value that is not allowed."""

    check: str
    shard: str
    column: str
    value: float
    allowed: str
    remedy: str

    def line(self) -> str:
        """Return the failure as the user reads it."""
        return (
            f"{self.shard}: {self.column}: {self.check} {self.value:.6g}, allowed {self.allowed};"
            f" {self.remedy}"
        )


@dataclass
class Summary:
    """All comparisons of one check: how many, how many failed, and the worst.

    The worst is the one that came nearest to its limit or went furthest beyond.
    """

    compared: int = 0
    failed: int = 0
    strain: float = -math.inf
    value: float | None = None
    allowed: str = ""
    shard: str = ""
    column: str = ""


@dataclass
class Verdict:
    """What was compared."""

    checks: dict[str, Summary] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def at_most(
        self, check: str, shard: str, column: str, value: float, limit: float, remedy: str
    ) -> bool:
        """Compare a value with its upper limit and return whether it keeps to it.

        A value that is no number does not.
        """
        strain = value / limit if limit else float(value != 0)
        return self._add(
            check,
            shard,
            column,
            value,
            f"at most {limit:.6g}",
            strain,
            remedy,
            passed=value <= limit,
        )

    def within(
        self,
        check: str,
        shard: str,
        column: str,
        lowest: float,
        highest: float,
        low: float,
        high: float,
        remedy: str,
    ) -> bool:
        """Compare the extremes of a column with its range and return whether they keep to it."""
        passed = low <= lowest and highest <= high
        if passed:
            near = [
                (value / limit, value)
                for value, limit in ((lowest, low), (highest, high))
                if limit and math.isfinite(limit)
            ]
            strain, value = max(near, default=(0.0, highest))
        else:
            strain, value = math.inf, lowest if lowest < low else highest
        return self._add(
            check, shard, column, value, f"{low:.6g} to {high:.6g}", strain, remedy, passed=passed
        )

    def _add(
        self,
        check: str,
        shard: str,
        column: str,
        value: float,
        allowed: str,
        strain: float,
        remedy: str,
        *,
        passed: bool,
    ) -> bool:
        summary = self.checks.setdefault(check, Summary())
        summary.compared += 1
        summary.failed += not passed
        if strain > summary.strain:
            summary.strain, summary.value, summary.allowed = strain, value, allowed
            summary.shard, summary.column = shard, column
        if not passed and len(self.failures) < _FAILURES_KEPT:
            self.failures.append(Failure(check, shard, column, value, allowed, remedy))
        return passed

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def plain(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        summaries = {}
        for name, summary in self.checks.items():
            summaries[name] = {
                key: value for key, value in asdict(summary).items() if key != "strain"
            }
        return {
            "passed": self.passed,
            "checks": summaries,
            "failures": [asdict(failure) for failure in self.failures],
        }


class VerdictFile(Stored):
    """What is read of a verdict on data."""

    KIND = "verdict"
    REMEDY = "rerun the check that wrote it"
    passed: bool
    checks: dict[str, dict[str, Any]]


class SampleVerdict(VerdictFile):
    """What is read of a verdict on a sample."""

    REMEDY = "rerun check_dataset"
    sample: str
    events: int
    shards: int
    quantities: dict[str, Any]


def conclude(
    verdict: Verdict,
    title: str,
    facts: Mapping[str, Any],
    made: Provenance,
    *,
    output: Path,
    work_dir: Path,
) -> None:
    """Write the verdict with further ``facts`` to ``output``.

    One that failed goes to ``work_dir``, JSON and HTML, and is a UserError.
    """
    content = {
        "kind": VerdictFile.KIND,
        **facts,
        **verdict.plain(),
        "provenance": made.plain(),
    }
    page, failed = work_dir / "failed.html", work_dir / "failed.json"
    if verdict.passed:
        for path in (page, failed):
            path.unlink(missing_ok=True)
        write_json(output, content)
        made.record(output)
        return
    write_json(failed, content)
    write_text(page, failed_page(title, content))
    more = sum(summary.failed for summary in verdict.checks.values()) - 1
    raise UserError(
        f"{verdict.failures[0].line()}{f' (and {more} more, all in {page})' if more else ''}"
    )
