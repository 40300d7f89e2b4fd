"""What the plots of all scans share: series with errors, learning curves, colours."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from particleforge.scans.results import PointResult

LOSS = "lowest validation loss"
# Okabe & Ito's palette, safe for colour-blind readers
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
Colour = tuple[float, float, float, float]


def shades(n: int) -> list[Colour]:
    """Return ``n`` colours from dark to light, for sizes that rise."""
    return [colormaps["viridis"](0.85 * k / max(1, n - 1)) for k in range(n)]


def series(
    axes: Axes, sizes: Sequence[float], losses: Sequence[Mapping[str, Any]], **style: Any
) -> None:
    """Draw losses (``results.mean_loss``) against sizes, joined by lines.

    Points without a value are left out.
    """
    drawn = [
        (size, loss["value"], loss["error"] or 0.0)
        for size, loss in zip(sizes, losses, strict=True)
        if loss["value"] is not None
    ]
    if drawn:
        x, y, errors = zip(*drawn, strict=True)
        axes.errorbar(x, y, errors, capsize=2, **{"marker": "o", **style})


def curve(axes: Axes, results: Sequence[PointResult], **style: Any) -> None:
    """Draw validation loss against events seen, one line per repeat.

    The first has the label.
    """
    label = style.pop("label", None)
    for number, result in enumerate(results):
        axes.plot(
            [p[1] for p in result.curve],
            [p[2] for p in result.curve],
            label=None if number else label,
            marker=".",
            **style,
        )


def log_losses(axes: Axes) -> None:
    """Scale the y axis logarithmically, with plain numbers.

    Losses span less than a decade or little more.
    """
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def ticks_at(axes: Axes, sizes: Sequence[int]) -> None:
    """Scale the x axis logarithmically, with the sizes themselves as its ticks."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(sizes)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
