"""Scaling law: loss against training events and size of the network, with fitted power laws.

Inputs -> outputs: results of the points -> summary and figures. Along either axis the other is
held: events vary at the configured network, the network at all training events. The fit
(``power_law``) uses every training, weighted equally.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from particleforge.pages.figures import annotate, new_figure
from particleforge.scans.drawing import BLUE, GREY, LOSS, log_losses, series
from particleforge.scans.power_law import PowerLaw, as_plain, fit_power_law
from particleforge.scans.results import PointResult, grouped, mean_loss

_AXES = {
    "events": ("train_events", "training events"),
    "parameters": ("parameters", "parameters of the network"),
}
_AHEAD = 10.0  # the largest size times this is where the law is asked for a forecast


def summarise(results: Sequence[PointResult]) -> dict[str, Any]:
    """Return per axis the loss at each size, the fit or why there is none, and a forecast.

    The forecast is for ten times the largest size.
    """
    return {
        axis: _axis(own, _AXES[axis][0])
        for axis, own in grouped(results, lambda r: r.labels["axis"]).items()
    }


def _axis(results: Sequence[PointResult], size: str) -> dict[str, Any]:
    by_size = grouped(results, lambda r: getattr(r, size))
    fit = fit_of(results, size)
    forecast = None
    if isinstance(fit, PowerLaw):
        at = _AHEAD * max(by_size)
        value, error = fit.at(at)
        forecast = {"size": at, "value": float(value), "error": float(error)}
    points = [{"size": n, "loss": mean_loss(by_size[n])} for n in sorted(by_size)]
    return {"points": points, "fit": as_plain(fit), "forecast": forecast}


def fit_of(results: Sequence[PointResult], size: str) -> PowerLaw | str:
    """Return the fit to the trainings that did not diverge."""
    kept = [(getattr(r, size), r.loss) for r in results if r.loss is not None]
    return fit_power_law([n for n, _ in kept], [loss for _, loss in kept])


def draw(summary: dict[str, Any], results: Sequence[PointResult], title: str) -> dict[str, Figure]:
    """Return a plot per axis: losses, the law with its 68 % band and its floor."""
    figures = {}
    for axis, (size, label) in _AXES.items():
        figures[f"scaling_law_{axis}"] = figure = new_figure()
        axes = figure.subplots()
        own = [r for r in results if r.labels["axis"] == axis]
        if own:
            _draw_axis(axes, summary[axis], fit_of(own, size))
        log_losses(axes)
        axes.set(xlabel=label, ylabel=LOSS, xscale="log")
        annotate(axes, title, f"{results[0].events_seen} events seen by each")
    return figures


def _draw_axis(axes: Axes, summary: Mapping[str, Any], fit: PowerLaw | str) -> None:
    sizes = [p["size"] for p in summary["points"]]
    series(
        axes, sizes, [p["loss"] for p in summary["points"]], color=BLUE, ls="", label="trainings"
    )
    if isinstance(fit, PowerLaw):
        x = np.geomspace(min(sizes) / 1.5, max(sizes) * 3, 200)
        y, error = fit.at(x)
        axes.plot(
            x,
            y,
            color="k",
            lw=1.2,
            label=f"a N$^{{-b}}$ + c, b = {fit.exponent:.3f} ± {np.sqrt(fit.covariance[1, 1]):.3f}",
        )
        axes.fill_between(x, np.maximum(y - error, 1e-12), y + error, color=GREY, alpha=0.3, lw=0)
        if not fit.floor_is_fixed:
            axes.axhline(fit.floor, color=GREY, lw=1, ls=":", label=f"c = {fit.floor:.3g}")
    else:
        axes.plot([], [], " ", label=f"no fit: {fit[:60]}")
    axes.legend()
