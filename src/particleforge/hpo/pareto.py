"""Loss against cost: what a search with two objectives found.

Inputs -> outputs: trials with their costs -> a figure with all that ended well, the Pareto front of
the last rung, and the winner.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from particleforge.config.settings import HpoSettings
from particleforge.hpo.drawing import LOSS, Budgets, mark_best, mark_default, note, scale_losses
from particleforge.hpo.objectives import INFERENCE_GFLOP, pareto_front, top_contenders
from particleforge.hpo.trials import DEFAULT_CONFIG, SearchTrial
from particleforge.pages.figures import new_figure


def draw_pareto(
    trials: Sequence[SearchTrial], settings: HpoSettings, winner: SearchTrial
) -> Figure:
    """Draw the validation loss of each trial against the cost of its network."""
    figure = new_figure(8, 4.8)
    axes, budgets = figure.add_subplot(), Budgets(trials, settings.hpo)
    done = [t for t in trials if t.value is not None and INFERENCE_GFLOP in t.objectives]
    if not done:
        note(axes, "the trials have no costs")
        return figure

    def points(of: Sequence[SearchTrial]) -> tuple[list[float], list[float]]:
        return [t.objectives[INFERENCE_GFLOP] for t in of], [t.loss for t in of]

    for rung in budgets.rungs:
        here = [t for t in done if t.rung == rung]
        axes.scatter(
            *points(here),
            s=36,
            color=budgets.colour(rung),
            marker=budgets.marker(rung),
            label=budgets.label(rung),
            zorder=3,
        )
    front = [c.trial for c in pareto_front(top_contenders(done))]
    axes.plot(
        *points(front[::-1]),
        color="0.4",
        drawstyle="steps-post",
        zorder=2,
        label="Pareto front of the last rung",
    )
    default = [t for t in done if t.config == DEFAULT_CONFIG and settings.hpo.include_default]
    mark_default(axes, *points(default), s=110, label="as configured")
    mark_best(axes, *points([winner]))
    scale_losses(axes, [t.loss for t in done])
    axes.set(
        xlabel="cost of the network on an event of mean length [GFLOP]", ylabel=LOSS, xscale="log"
    )
    axes.legend(fontsize="small")
    return figure
