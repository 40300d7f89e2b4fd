"""Parallel coordinates of a search: one line per configuration, from parameters to loss.

Inputs -> outputs: trials and the space -> a figure. Each parameter has an axis of its own,
logarithmic where the space is, with categories one below the other; a parameter that a
configuration does not have lies at "none" below the axis. The last axes are the largest budget that
the configuration reached and its loss there. Since losses of different budgets do not compare,
lines are coloured by place: a larger budget comes before a smaller one, then the loss decides.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from particleforge.config.settings import HpoSettings
from particleforge.hpo import dag
from particleforge.hpo.drawing import (
    DEFAULT_COLOUR,
    FAILED_COLOUR,
    WINNER_COLOUR,
    loss_limit,
    plain_names,
)
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial, furthest_of, in_order
from particleforge.pages.figures import new_figure

_ABSENT = -0.16  # height of what a configuration does not have, below the axis from 0 to 1
_SPREAD = 0.035  # lines through one category are drawn side by side over this height to each side


@dataclass(frozen=True)
class Scale:
    """One vertical axis from 0 to 1: where a value lies, and labelled ticks as (height, label)."""

    place: Callable[[Any], float]
    ticks: Sequence[tuple[float, str]]
    discrete: bool = False


def number_scale(values: Sequence[float], *, log: bool) -> Scale:
    """Return a scale that spans the values, which may lie outside of the space as configured."""
    low, high = min(values), max(values)
    log = log and low > 0
    forward: Callable[[float], float] = math.log10 if log else float
    span = forward(high) - forward(low)
    if not span:
        return Scale(lambda _: 0.5, [(0.5, _text(low))])

    def place(value: float) -> float:
        return (forward(value) - forward(low)) / span

    if log:
        subs = (1.0,) if span >= 2 else (1.0, 2.0, 5.0)
        round_numbers = LogLocator(subs=subs, numticks=9).tick_values(low, high)
    else:
        round_numbers = MaxNLocator(
            6, integer=all(isinstance(value, int) for value in values)
        ).tick_values(low, high)
    return Scale(
        place,
        [
            (place(x), _text(float(x)))
            for x in round_numbers
            if -1e-6 <= place(max(x, low * 1e-3)) <= 1 + 1e-6
        ],
    )


def category_scale(choices: Sequence[Any]) -> Scale:
    """Return a scale with one height per choice."""
    heights = {repr(choice): (k + 0.5) / len(choices) for k, choice in enumerate(choices)}
    return Scale(
        lambda value: heights[repr(value)],
        [(heights[repr(c)], _text(c)) for c in choices],
        discrete=True,
    )


def draw_parallel(
    trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial
) -> Figure:
    """Draw one line per configuration, the best on top."""
    order = in_order(furthest_of(trials))
    failed = sorted(
        {t.config: t for t in trials if t.parent is None and t.value is None}.values(),
        key=lambda t: t.config,
    )
    paths = sorted(settings.hpo.space)
    scales = [_scale_of(path, settings, [*order, *failed]) for path in paths]
    limit = loss_limit([t.loss for t in order])
    losses = [min(t.loss, limit) for t in order]
    scales += [
        category_scale(
            [dag.budget_text(settings.hpo, rung) for rung in sorted({t.rung for t in order})]
        ),
        number_scale(losses, log=max(losses) > 8 * min(losses) > 0),
    ]
    names = plain_names(paths)
    figure = new_figure(max(8.0, 2.0 + 1.15 * len(scales)), 5.0)
    axes = figure.add_subplot(title="Parallel coordinates of the configurations")
    _draw_axes(
        axes,
        scales,
        [
            *(names[path] for path in paths),
            f"{settings.hpo.budget_unit}\nreached",
            "validation\nloss there",
        ],
    )
    heights = {
        t.config: [
            *_heights(t.params, paths, scales),
            scales[-2].place(dag.budget_text(settings.hpo, t.rung)),
            scales[-1].place(min(t.loss, limit)),
        ]
        for t in order
    }
    heights |= {t.config: [*_heights(t.params, paths, scales), np.nan, np.nan] for t in failed}
    offsets = _offsets(list(heights))
    for t in failed:
        line = _spread(heights[t.config], scales, offsets[t.config])
        axes.plot(line, color=FAILED_COLOUR, lw=0.9, ls=":", alpha=0.7, zorder=2)
    _draw_lines(axes, [_spread(heights[t.config], scales, offsets[t.config]) for t in order])
    _draw_special(
        axes, heights, scales, offsets, winner, settings.hpo.include_default, bool(failed)
    )
    return figure


def _draw_lines(axes: Axes, lines: Sequence[Sequence[float]]) -> None:
    """Draw the lines of the configurations, best first and best on top, coloured by their place."""
    shades, worst = colormaps["viridis"].reversed(), max(1, len(lines) - 1)
    for place, line in reversed(list(enumerate(lines))):
        style: dict[str, Any] = (
            {"lw": 1.8, "alpha": 0.9}
            if place < max(3, len(lines) / 10)
            else {"lw": 1.0, "alpha": 0.4 if len(lines) > 60 else 0.8}
        )
        axes.plot(
            line, color=shades(1 - 0.9 * place / worst), zorder=4 - place / (worst + 1), **style
        )
    tones = ScalarMappable(Normalize(1, worst + 1), shades.reversed())
    tones.set_array([])
    bar = axes.figure.colorbar(
        tones, ax=axes, pad=0.01, fraction=0.03, ticks=MaxNLocator(integer=True)
    )
    bar.set_label("place of the configuration (1: best)")
    bar.ax.invert_yaxis()


def _scale_of(path: str, settings: HpoSettings, trials: Sequence[SearchTrial]) -> Scale:
    parameter = settings.hpo.space[path]
    seen = [t.params[path] for t in trials if t.params.get(path) is not None]
    if parameter.choices is not None:
        outside = {repr(value): value for value in seen if value not in parameter.choices}
        return category_scale([*parameter.choices, *(outside[key] for key in sorted(outside))])
    assert parameter.low is not None
    assert parameter.high is not None
    kind = int if parameter.type == "int" else float
    return number_scale([kind(parameter.low), kind(parameter.high), *seen], log=parameter.log)


def _heights(
    params: Mapping[str, Any], paths: Sequence[str], scales: Sequence[Scale]
) -> list[float]:
    return [
        _ABSENT if params.get(path) is None else scale.place(params[path])
        for path, scale in zip(paths, scales, strict=False)
    ]


def _offsets(configs: Sequence[str]) -> dict[str, float]:
    """Return a height between -1 and 1 per configuration, apart from others of its category."""
    return {config: 2 * ((0.5 + 0.618034 * k) % 1) - 1 for k, config in enumerate(sorted(configs))}


def _spread(heights: Sequence[float], scales: Sequence[Scale], offset: float) -> list[float]:
    pairs = zip(heights, scales, strict=True)
    return [h + offset * _SPREAD if scale.discrete or h == _ABSENT else h for h, scale in pairs]


def _draw_axes(axes: Axes, scales: Sequence[Scale], names: Sequence[str]) -> None:
    for x, scale in enumerate(scales):
        axes.plot([x, x], [0, 1], color="0.3", lw=1.0, zorder=5)
        for height, label in scale.ticks:
            axes.plot([x - 0.03, x + 0.03], [height, height], color="0.3", lw=1.0, zorder=5)
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            axes.text(x + 0.05, height, label, fontsize=8.5, va="center", zorder=6, bbox=box)
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names], fontsize=9.5)
    axes.set(xlim=(-0.15, len(scales) - 0.5), ylim=(-0.08, 1.05), yticks=[])
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _draw_special(
    axes: Axes,
    heights: Mapping[str, Sequence[float]],
    scales: Sequence[Scale],
    offsets: Mapping[str, float],
    winner: SearchTrial,
    include_default: bool,
    failed: bool,
) -> None:
    """Draw best and configured settings over the other lines, what "none" is, and the legend."""
    if any(height == _ABSENT for line in heights.values() for height in line):
        axes.set_ylim(_ABSENT - 0.06, 1.05)
        axes.axhline(_ABSENT, color="0.85", lw=8, zorder=0)
        axes.text(-0.14, _ABSENT, "none", fontsize=8.5, va="center", ha="left")
    axes.plot(
        _spread(heights[winner.config], scales, offsets[winner.config]),
        color=WINNER_COLOUR,
        lw=2.8,
        zorder=4.5,
        label="best",
    )
    if include_default and DEFAULT_CONFIG in heights and winner.config != DEFAULT_CONFIG:
        line = _spread(heights[DEFAULT_CONFIG], scales, offsets[DEFAULT_CONFIG])
        axes.plot(
            line, color=DEFAULT_COLOUR, lw=2.2, ls="--", zorder=4.4, label="configured settings"
        )
    if failed:
        axes.plot([], [], color=FAILED_COLOUR, lw=0.9, ls=":", label="failed")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
