"""What the plots of a search share: one colour and marker per budget, plain names of parameters, axes that outliers do not squash.

Trials are told apart by their budget (optimiser steps) and not by their rung, since rungs of different brackets may have
the same budget, and trials compare where budgets are equal. Colours are viridis without its pale end, in order of the
budget; markers repeat what colours say, for prints in grey.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from particleforge.hpo.trials import SearchTrial, config_name

LOSS = "validation loss"
DEFAULT_CONFIG = config_name(0, 0)
WINNER_COLOUR, DEFAULT_COLOUR, FAILED_COLOUR = "#d55e00", "#cc79a7", "#222222"
_MARKERS = "os^Dvph<>*"
_OUTLIER = 4.0  # losses above the upper quartile by this many times the span below it are drawn at the axis' end
_LOG_FROM = 8.0  # a logarithmic axis from this ratio of losses on

Colour = tuple[float, float, float, float]


class Budgets:
    """The budgets of some trials in optimiser steps, ascending, with their colours, markers and labels."""

    def __init__(self, trials: Sequence[SearchTrial]) -> None:
        self.steps = sorted({trial.steps for trial in trials})

    def colour(self, steps: int) -> Colour:
        """Return the colour of a budget."""
        return colormaps["viridis"](0.85 * self.steps.index(steps) / max(1, len(self.steps) - 1))

    def marker(self, steps: int) -> str:
        """Return the marker of a budget."""
        return _MARKERS[self.steps.index(steps) % len(_MARKERS)]

    def label(self, steps: int) -> str:
        """Return the label of a budget."""
        return f"{steps:,} steps".replace(",", "\u202f")


def plain_names(paths: Iterable[str]) -> dict[str, str]:
    """Return what plots call the settings at the dotted paths: ``training.learning_rate`` is "learning rate".

    The block's name is kept where two settings would be called the same.
    """
    whole = {path: path.replace("_", " ").replace(".", " ") for path in paths}
    short = {path: name.split(" ", 1)[-1] for path, name in whole.items()}
    taken = list(short.values())
    return {path: name if taken.count(name) == 1 else whole[path] for path, name in short.items()}


def loss_limit(losses: Iterable[float]) -> float:
    """Return up to where losses are drawn as they are: the largest, unless it lies far above the bulk."""
    values = np.asarray(list(losses))
    if not len(values):
        return np.inf
    low, upper = values.min(), np.quantile(values, 0.75)
    return float(min(values.max(), upper + _OUTLIER * (upper - low)) if upper > low else values.max())


def scale_losses(axes: Axes, losses: Iterable[float]) -> None:
    """Give the loss axis a logarithmic scale if the losses span much, and end it above the bulk of them."""
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


def furthest_of(trials: Sequence[SearchTrial]) -> dict[str, SearchTrial]:
    """Return, by configuration, its trial of the largest budget that ended well; configurations without one are left out."""
    best: dict[str, SearchTrial] = {}
    for trial in trials:
        if trial.value is not None and (trial.config not in best or trial.steps > best[trial.config].steps):
            best[trial.config] = trial
    return best


def ranked(best: Mapping[str, SearchTrial]) -> list[SearchTrial]:
    """Return the trials best first: larger budgets before smaller ones, then by loss."""
    return sorted(best.values(), key=lambda trial: (-trial.steps, *trial.rank_key))
