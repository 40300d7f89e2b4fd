"""Fine-tuning: the loss against the number of training events, pre-trained and from scratch.

Pre-training is another detector's network.

Inputs -> outputs: results of the points -> summary and figures. What fine-tuning is worth is told
in events: how many times as many a training from scratch needs for the same loss, as in
arXiv:2503.00131, section 4. The loss from scratch is interpolated in the logarithm of the events;
where it never gets as low, or never is as high, there is a bound instead of a value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from particleforge.pages.figures import annotate, new_figure
from particleforge.scans.drawing import (
    BLUE,
    LOSS,
    ORANGE,
    curve,
    log_losses,
    series,
    shades,
    ticks_at,
)
from particleforge.scans.results import PointResult, grouped, mean_loss

_STARTS = {
    "scratch": ("from scratch", BLUE, "--", "s"),
    "fine_tuned": ("fine-tuned", ORANGE, "-", "o"),
}


def summarise(results: Sequence[PointResult]) -> dict[str, Any]:
    """Return the loss by training events for both starts, and what fine-tuning is worth.

    The worth is counted in events from scratch.
    """
    losses = {
        start: {
            events: mean_loss(own)
            for events, own in sorted(grouped(of_start, lambda r: r.labels["train_events"]).items())
        }
        for start, of_start in grouped(results, lambda r: r.labels["start"]).items()
    }
    points = {
        start: [{"train_events": events, "loss": loss} for events, loss in found.items()]
        for start, found in losses.items()
    }
    worth = [
        {"train_events": events, **worth_from_scratch(events, loss["value"], losses["scratch"])}
        for events, loss in losses["fine_tuned"].items()
        if loss["value"] is not None
    ]
    return {"points": points, "worth": worth}


def worth_from_scratch(
    events: int, loss: float, scratch: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return how many events a training from scratch needs for a loss, as a multiple of ``events``.

    ``bound``: "lower" if even the most events do not get as low, "upper" if the fewest already do,
    None if interpolated.
    """
    known = [
        (n, found["value"]) for n, found in sorted(scratch.items()) if found["value"] is not None
    ]
    if not known:
        return {"events_from_scratch": None, "factor": None, "bound": None}
    sizes = np.array([n for n, _ in known], np.float64)
    reached = np.minimum.accumulate([value for _, value in known])  # more events are never worse
    bound = "lower" if loss < reached[-1] else "upper" if loss > reached[0] else None
    found = float(np.exp(np.interp(-loss, -reached, np.log(sizes))))
    return {"events_from_scratch": found, "factor": found / events, "bound": bound}


def draw(summary: dict[str, Any], results: Sequence[PointResult], title: str) -> dict[str, Figure]:
    """Return the plots: loss against training events, and learning curves against events seen."""
    against_events, curves = new_figure(), new_figure(7.4, 4.8)
    axes = against_events.subplots()
    for start, (label, colour, line, marker) in _STARTS.items():
        points = summary["points"].get(start, [])
        sizes = [p["train_events"] for p in points]
        series(
            axes,
            sizes,
            [p["loss"] for p in points],
            color=colour,
            ls=line,
            marker=marker,
            label=label,
        )
    all_sizes = sorted({r.labels["train_events"] for r in results})
    ticks_at(axes, all_sizes)
    axes.set(xlabel="training events", ylabel=LOSS)
    axes.legend()
    annotate(axes, title, f"{results[0].events_seen} events seen by each")
    axes = curves.subplots()
    colours = dict(zip(all_sizes, shades(len(all_sizes)), strict=True))
    for (events, start), repeats in grouped(
        results, lambda r: (r.labels["train_events"], r.labels["start"])
    ).items():
        label, _, line, _ = _STARTS[start]
        curve(axes, repeats, color=colours[events], ls=line, label=f"{events} {label}")
    log_losses(axes)
    axes.set(xlabel="events seen", ylabel="validation loss")
    axes.legend(fontsize=8, ncols=2)
    annotate(axes, title, "training events and start")
    return {"fine_tuning": against_events, "fine_tuning_curves": curves}
