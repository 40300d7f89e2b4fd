"""Large batches: the loss against the global batch, at equal numbers of events seen.

Inputs -> outputs: results of the points -> summary and figures. Per optimiser and learning-rate
rule, the relative change of the loss against the batch x1 is what large batches cost, the
generalisation gap (Goyal et al., arXiv:1706.02677, section 1). The point x1 is shared by all rules,
since they agree there.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from particleforge.pages.figures import annotate, new_figure
from particleforge.scans.drawing import (
    BLUE,
    GREEN,
    LOSS,
    ORANGE,
    curve,
    log_losses,
    series,
    shades,
    ticks_at,
)
from particleforge.scans.results import PointResult, grouped, mean_loss

_ANY = "any"  # the rule of x1
_RULES = {"none": (BLUE, "-", "o"), "linear": (ORANGE, "--", "s"), "sqrt": (GREEN, ":", "^")}


def summarise(results: Sequence[PointResult]) -> dict[str, Any]:
    """Return per optimiser and rule the loss at each batch, and its relative change against x1."""
    series_of: list[dict[str, Any]] = []
    for optimiser, own in grouped(results, lambda r: r.labels["optimiser"]).items():
        rules = [rule for rule in grouped(own, lambda r: r.labels["rule"]) if rule != _ANY] or [
            _ANY
        ]
        for rule in rules:
            batches = grouped(
                [r for r in own if r.labels["rule"] in (rule, _ANY)], lambda r: r.labels["factor"]
            )
            points = [_batch(factor, batches[factor]) for factor in sorted(batches)]
            base = points[0]["loss"]["value"]
            for point in points:
                loss = point["loss"]["value"]
                point["change"] = None if loss is None or base is None else loss / base - 1
            series_of.append({"optimiser": optimiser, "rule": rule, "points": points})
    return {"series": series_of}


def _batch(factor: int, results: Sequence[PointResult]) -> dict[str, Any]:
    first = results[0]
    sizes = {
        "factor": factor,
        "elements_per_batch": first.elements_per_batch,
        "steps": first.steps,
        "events_seen": first.events_seen,
    }
    train = [r.train_loss for r in results if r.train_loss is not None]
    return {
        **sizes,
        "loss": mean_loss(results),
        "train_loss": sum(train) / len(train) if train else None,
    }


def draw(summary: dict[str, Any], results: Sequence[PointResult], title: str) -> dict[str, Figure]:
    """Return the plots: loss against batch, and learning curves against events seen."""
    optimisers = list(dict.fromkeys(entry["optimiser"] for entry in summary["series"]))
    against_batch, curves = (new_figure(0.8 + 5.2 * len(optimisers), 4.6) for _ in range(2))
    by_batch, by_events = (
        [*f.subplots(1, len(optimisers), squeeze=False, sharey=True)[0]]
        for f in (against_batch, curves)
    )
    for axes, optimiser in zip(by_batch, optimisers, strict=True):
        own = [entry for entry in summary["series"] if entry["optimiser"] == optimiser]
        for entry in own:
            colour, line, marker = _RULES.get(entry["rule"], _RULES["none"])
            sizes = [p["elements_per_batch"] for p in entry["points"]]
            series(
                axes,
                sizes,
                [p["loss"] for p in entry["points"]],
                color=colour,
                ls=line,
                marker=marker,
                label=entry["rule"],
            )
        ticks_at(axes, [p["elements_per_batch"] for entry in own for p in entry["points"]])
        axes.set(xlabel="global batch [elements]")
        axes.legend(title="learning-rate rule")
        seen = own[0]["points"][0]["events_seen"]
        annotate(
            axes,
            title,
            f"{optimiser.upper() if optimiser == 'lamb' else 'AdamW'}, {seen} events seen",
        )
    factors = sorted({r.labels["factor"] for r in results})
    colours = dict(zip(factors, shades(len(factors)), strict=True))
    for axes, optimiser in zip(by_events, optimisers, strict=True):
        own_results = [r for r in results if r.labels["optimiser"] == optimiser]
        for (factor, rule), repeats in grouped(
            own_results, lambda r: (r.labels["factor"], r.labels["rule"])
        ).items():
            label = f"x{factor}" + ("" if rule == _ANY else f" {rule}")
            curve(
                axes,
                repeats,
                color=colours[factor],
                ls=_RULES.get(rule, _RULES["none"])[1],
                label=label,
            )
        log_losses(axes)
        axes.set(xlabel="events seen")
        axes.legend(ncols=2, fontsize=8)
        annotate(axes, title, "LAMB" if optimiser == "lamb" else "AdamW")
    by_batch[0].set_ylabel(LOSS)
    by_events[0].set_ylabel("validation loss")
    return {"scaling_batch": against_batch, "scaling_batch_curves": curves}
