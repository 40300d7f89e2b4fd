"""What the search bought: its best trial against the configured settings and random search.

Inputs -> outputs: ``against_default`` and ``against_random`` of ``best.yaml`` -> sentences. They
say so, too, when it bought nothing or when there is no comparison.
"""

from collections.abc import Callable, Mapping
from typing import Any

from particleforge.pages.rendering import number

Comparison = Mapping[str, Any]


def bought(against_default: Comparison | None, against_random: Comparison | None) -> str:
    """Return one sentence on both comparisons."""
    default = against_default or {"reason": "hpo.include_default is off"}
    random = against_random or {"reason": "the search is of an older version"}
    parts = [
        _part("the configured settings", default, _at_budget),
        _part("random search", random, _in_hours),
    ]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _part(other: str, comparison: Comparison, circumstance: Callable[[Comparison], str]) -> str:
    change = comparison.get("relative_change")
    if change is None:
        reason = comparison.get("reason") or "a loss of 0 has no relative change"
        return f"there is no comparison with {other} ({reason})"
    if change < 0:
        gain = f"lowered the validation loss by {-change:.1%}"
    else:
        gain = f"bought nothing: its validation loss is {_lower(change)}"
    return f"against {other} {circumstance(comparison)} the search {gain}"


def _at_budget(comparison: Comparison) -> str:
    return f"at equal budget ({number(comparison['budget'])} {comparison['budget_unit']})"


def _in_hours(comparison: Comparison) -> str:
    estimated = ", estimated" if comparison["estimated"] else ""
    return f"in equal hours ({number(comparison['rank_hours'])} rank hours{estimated})"


def against_default_in_full(comparison: Comparison | None) -> str:
    """Return the losses behind the comparison with the configured settings."""
    if comparison is None:
        return (
            "The search did not include the configured settings (hpo.include_default), so there is"
            " nothing to compare with."
        )
    if comparison.get("budget") is None:
        return f"No comparison with the configured settings: {comparison['reason']}."
    text = (
        f"Against the configured settings at equal budget ({number(comparison['budget'])}"
        f" {comparison['budget_unit']}): validation loss {number(comparison['best_value'])} for the"
        " best,"
        f" {number(comparison['default_value'])} for the configured settings"
    )
    if comparison["relative_change"] is not None:
        text += f" ({comparison['relative_change']:+.1%})"
    return text + (
        "."
        if comparison["at_full_budget"]
        else "; the configured settings were not trained further."
    )


def against_random_in_full(comparison: Comparison | None) -> str:
    """Return the losses behind the comparison with random search."""
    if comparison is None:
        return ""
    if comparison.get("random_value") is None:
        return f"No comparison with random search: {comparison['reason']}."
    change = comparison["relative_change"]
    return (
        "Random search among the same configurations would end at"
        f" {number(comparison['random_value'])} on average in the search's"
        f" {number(comparison['rank_hours'])} rank hours"
        + (", estimated from trainings that were stopped early" if comparison["estimated"] else "")
        + ("." if change is None else f"; the search's best is {_lower(change)}.")
    )


def _lower(change: float) -> str:
    return f"{abs(change):.1%} {'lower' if change < 0 else 'higher'}" if change else "the same"
