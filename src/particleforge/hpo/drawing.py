"""What the plots of a search share: colours and markers of rungs, names of parameters, axes.

There is one colour and marker per rung, and outliers do not squash the axes.

Trials are told apart by their rung: they compare where budgets are equal. Colours are viridis
without its pale end, in order of the budget; markers repeat what colours say, for prints in grey.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from particleforge.config.hpo import HpoConfig
from particleforge.hpo import dag
from particleforge.hpo.trials import SearchTrial

LOSS = "validation loss"
WINNER_COLOUR, DEFAULT_COLOUR, FAILED_COLOUR = "#d55e00", "#cc79a7", "#222222"
_MARKERS = "os^Dvph<>*"
# losses above the upper quartile by this many times the span below it are drawn at the axis' end
_OUTLIER = 4.0
_LOG_FROM = 8.0  # a logarithmic axis from this ratio of losses on

Colour = tuple[float, float, float, float]


class Budgets:
    """The rungs of some trials, ascending, with colours, markers and labelled budgets."""

    def __init__(self, trials: Sequence[SearchTrial], hpo: HpoConfig) -> None:
        self.rungs = sorted({trial.rung for trial in trials})
        self._hpo = hpo

    def colour(self, rung: int) -> Colour:
        """Return the colour of a rung."""
        return colormaps["viridis"](0.85 * self.rungs.index(rung) / max(1, len(self.rungs) - 1))

    def marker(self, rung: int) -> str:
        """Return the marker of a rung."""
        return _MARKERS[self.rungs.index(rung) % len(_MARKERS)]

    def label(self, rung: int) -> str:
        """Return the budget of a rung as text."""
        return f"{dag.budget_text(self._hpo, rung)} {self._hpo.budget_unit}"


def mark_best(axes: Axes, x: Sequence[float], y: Sequence[float], zorder: float = 5) -> None:
    """Mark the winner with a star."""
    axes.scatter(
        x,
        y,
        marker="*",
        s=220,
        color=WINNER_COLOUR,
        edgecolors="white",
        zorder=zorder,
        label="best",
    )


def mark_default(axes: Axes, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
    """Ring the trials of the configured settings."""
    style = {"s": 130, "label": "configured settings", **style}
    axes.scatter(
        x, y, facecolors="none", edgecolors=DEFAULT_COLOUR, linewidths=1.8, zorder=4, **style
    )


def legend_beside(axes: Axes) -> None:
    """Put the legend to the right of the plot."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def plain_names(paths: Iterable[str]) -> dict[str, str]:
    """Return what plots call the settings at the dotted paths.

    For example, ``training.learning_rate`` is "learning rate".

    The block's name is kept where two settings would be called the same.
    """
    whole = {path: path.replace("_", " ").replace(".", " ") for path in paths}
    short = {path: name.split(" ", 1)[-1] for path, name in whole.items()}
    taken = list(short.values())
    return {path: name if taken.count(name) == 1 else whole[path] for path, name in short.items()}


def loss_limit(losses: Iterable[float]) -> float:
    """Return the largest loss drawn as it is: the largest of all, unless far above the bulk."""
    values = np.asarray(list(losses))
    if not len(values):
        return np.inf
    low, upper = values.min(), np.quantile(values, 0.75)
    return float(
        min(values.max(), upper + _OUTLIER * (upper - low)) if upper > low else values.max()
    )


def scale_losses(axes: Axes, losses: Iterable[float]) -> None:
    """End the loss axis above the bulk of the losses; make it logarithmic if they span much."""
    values = np.asarray(list(losses))
    if not len(values):
        return
    top = loss_limit(values)
    low = float(values.min())
    if low > 0 and top > _LOG_FROM * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        margin = (top / low) ** 0.05
        axes.set_ylim(low / margin, top * margin)
    else:
        margin = 0.05 * (top - low) or 0.05 * abs(top) or 1.0
        axes.set_ylim(low - margin, top + margin)


def note(axes: Axes, text: str) -> None:
    """Say in an otherwise empty plot why there is nothing to see."""
    axes.set(xticks=[], yticks=[])
    axes.minorticks_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
