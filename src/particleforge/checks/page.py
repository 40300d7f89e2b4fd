"""A verdict that failed as an HTML page; its tables of checks are the report's, too.

Inputs -> outputs: a verdict as plain values -> HTML: what is not allowed, value by value, and every
check that was made.
"""

from collections.abc import Mapping
from typing import Any

from particleforge.pages.rendering import NOTHING, Rows, number, render_page, yes_or_no


def failed_page(title: str, verdict: Mapping[str, Any]) -> str:
    """Return the page of a verdict, as ``Verdict.plain`` gives it."""
    keys = ("shard", "column", "check", "value", "allowed", "remedy")
    failures = [
        tuple(number(failure[key]).removesuffix(":") for key in keys)
        for failure in verdict["failures"]
    ]
    context = {
        "title": title,
        "failed": sum(check["failed"] for check in verdict["checks"].values()),
        "shown": len(failures),
        "failures": Rows(keys, failures),
        "checks": checks_table(verdict["checks"]),
    }
    return render_page("particleforge.checks", "failed.html.j2", context)


def checks_table(checks: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Return one row for each check: the values compared, and the one nearest to its limit."""
    rows = []
    for name, check in checks.items():
        # a value of 0 is no nearest one: all are alike
        place = (
            (check["shard"], check["column"])
            if check["value"] or check["failed"]
            else (NOTHING, NOTHING)
        )
        compared, value = number(check["compared"]), number(check["value"])
        rows.append(
            (
                name.removesuffix(":"),
                yes_or_no(not check["failed"]),
                compared,
                value,
                check["allowed"],
                *place,
            )
        )
    return Rows(
        ("check", "passed", "compared", "nearest to the limit", "allowed", "shard", "column"), rows
    )
