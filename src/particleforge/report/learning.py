"""The report's account of search, training and export.

Inputs -> outputs: ``best.yaml``, trials table and plots of the search; metrics of the final
training; parity and model card of the export -> tables, pictures and text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from particleforge.artefacts import dotted
from particleforge.config.reader import read_yaml
from particleforge.export.files import ParityFile
from particleforge.pages.figures import new_figure, png_bytes, styled
from particleforge.pages.rendering import Picture, Rows, data_uri, number, percent, picture
from particleforge.report.bought import (
    against_default_in_full,
    against_random_in_full,
    bought,
)
from particleforge.stored import read_stored

_TRIALS_SHOWN = 40
_WIDE = ("parallel", "cost")  # plots of the search whose labels are small otherwise
_HPO_CAPTIONS = {
    "history": (
        "Validation loss of the trials in the order of their start. Only trials of equal budget"
        " compare; a low budget's values order configurations, they are no final losses."
    ),
    "rungs": (
        "Learning curves of the configurations through the rungs, with their promotions. Curves"
        " that cross between rungs show what a short budget can get wrong."
    ),
    "timeline": (
        "Above: the trainings that ran at one time, side by side; gaps are idle workers, thin lines"
        " the time from a slot's start to its training's. Below: how the rungs filled. Promotions"
        " start before a rung is full, unless the scheduler is sha."
    ),
    "parallel": (
        "One line per configuration through its parameters, to the largest budget that it reached"
        " and its validation loss there. A larger budget outranks a smaller one. Where dark lines"
        " meet lies what the search preferred; an even spread means that the parameter mattered"
        " little. Below the axes: parameters that a configuration does not have."
    ),
    "pareto": (
        "Validation loss against what the network costs on an event of mean length: floating-point"
        " operations of its matrix products. On the line, trials of the last rung that no other"
        " beats in both; hpo.pick chooses among these."
    ),
    "importances": (
        "Share of the loss's variance that each parameter explains, over the first rung (fANOVA)."
        " With few trials these are rough: read the order, not the numbers."
    ),
    "cost": (
        "Left: ranks times the time of the trainings, per budget; a rank hour is a GPU hour on"
        " GPUs, else an hour of the cores of one process. Right: the best loss of each budget"
        " against what the search had cost by then, and how far the configured settings came."
    ),
}
_CURVES_CAPTION = """Left: training and validation loss of the final training. A validation curve
    that turns up while the training curve falls means overfitting; one that still falls at the end
    means that more steps would help. Middle: the terms of the validation loss, unweighted. Right:
    learning rate. Training values are means since the row before. The validation loss weighs its
    terms by the default weights, so that trials compare; the training loss by the trial's own.
    Their levels differ for that reason, too."""


@dataclass(frozen=True)
class Learning:
    """What the page shows of search, training and export."""

    best: Rows
    best_text: str
    bought: str
    bought_in_full: str
    trials: Rows
    trials_text: str
    cost: Rows
    cost_text: str
    seeds: Rows | None
    front: Rows | None
    search_plots: list[Picture]
    curves: Picture
    training: Rows
    parity: Rows
    model_card: str


def gather_learning(
    *,
    hpo_best: Path,
    hpo_trials: Path,
    hpo_plots: Mapping[str, Path],
    metrics: Path,
    parity: Path,
    model_card: Path,
) -> Learning:
    """Read the results of search, training and export."""
    best = read_yaml(hpo_best)
    blocks = ("model", "training")
    searched: dict[str, Any] = {name: best[name] for name in blocks if name in best}
    table = pd.read_csv(hpo_trials, dtype={"config": str})
    trials, trials_text = _trials(table)
    cost, cost_text = _cost(table, best["config"])
    found = pd.read_parquet(metrics)
    return Learning(
        best=Rows(
            ("setting", "value"),
            [(path, number(value)) for path, value in dotted(searched).items()],
        ),
        best_text=(
            f"Configuration {best['config']}, trial {best['trial']}: validation loss"
            f" {number(best['value'])} after {number(best['steps'])} steps"
        )
        + (f"; {best['why']}." if best.get("why") else "."),
        bought=bought(best["against_default"], best.get("against_random")),
        bought_in_full=" ".join(
            (
                against_default_in_full(best["against_default"]),
                against_random_in_full(best.get("against_random")),
            )
        ),
        trials=trials,
        trials_text=trials_text,
        cost=cost,
        cost_text=cost_text,
        seeds=_seeds(best.get("seeds", [])),
        front=_front(best.get("pareto_front", [])),
        search_plots=[
            picture(path, _HPO_CAPTIONS[name], wide=name in _WIDE)
            for name, path in hpo_plots.items()
        ],
        curves=Picture(
            "training_curves", data_uri(_curves(found)), " ".join(_CURVES_CAPTION.split())
        ),
        training=_training(found),
        parity=_parity(read_stored(parity, ParityFile).model_dump()),
        model_card=model_card.read_text(encoding="utf-8"),
    )


def _cost(table: pd.DataFrame, best: str) -> tuple[Rows, str]:
    """Return the cost by rung in rank hours, and relative to the best configuration's training.

    The latter is what it cost to train it alone.
    """
    cost = table["ranks"] * table["seconds"].fillna(0.0) / 3600
    failed = table["value"].isna()
    rows = []
    for rung, chosen in [
        *((str(r), table["rung"] == r) for r in sorted(set(table["rung"]))),
        ("all", table["rung"] >= 0),
    ]:
        own, lost = cost[chosen], cost[chosen & failed]
        hours = (number(own.sum()), percent(own.sum(), cost.sum()), number(lost.sum()))
        rows.append(
            (
                rung,
                number(int(table.loc[chosen, "steps"].max())),
                str(len(own)),
                str(len(lost)),
                *hours,
            )
        )
    text = f"Cost: {number(cost.sum())} rank hours, ranks times the time of the trainings"
    alone = cost[table["config"] == best].sum()
    if alone > 0:
        text += (
            f"; that is {number(cost.sum() / alone)} times the trainings of the best configuration"
            " alone"
        )
    heads = ("rung", "to step", "trials", "failed", "rank hours", "share", "of them failed")
    return Rows(heads, rows), text + "."


def _seeds(found: Sequence[Mapping[str, Any]]) -> Rows | None:
    """Return the configurations that were trained from further seeds, if any were."""
    rows = []
    for s in found:
        values = ", ".join(map(number, s["values"]))
        rows.append(
            (
                s["config"],
                number(s["mean"]),
                number(s["standard_deviation"]),
                values,
                str(s["failures"]),
            )
        )
    if not rows:
        return None
    return Rows(
        ("configuration", "mean validation loss", "standard deviation", "by seed", "failed"), rows
    )


def _front(found: Sequence[Mapping[str, Any]]) -> Rows | None:
    """Return the trials that no other beats in loss and cost, if cost was an objective."""
    rows = [
        (str(f["trial"]), f["config"], number(f["value"]), number(f["inference_gflop"]))
        for f in found
    ]
    return (
        Rows(("trial", "configuration", "validation loss", "GFLOP per event"), rows)
        if rows
        else None
    )


def _trials(table: pd.DataFrame) -> tuple[Rows, str]:
    """Return the trials best first within each rung, the top rung first."""
    counts = table["status"].value_counts().to_dict()
    text = (
        f"{len(table)} trials: "
        + ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        + "."
    )
    if len(table) > _TRIALS_SHOWN:
        text += f" The first {_TRIALS_SHOWN} are shown; hpo/trials.csv has all."
    shown = table.sort_values(["rung", "place", "slot"], ascending=[False, True, True]).head(
        _TRIALS_SHOWN
    )
    hidden = {"trial", "slot", "parent", "default_value", "ranks", "seconds"}
    if set(counts) == {"complete"}:
        hidden.add("reason")  # the same for all: the budget was used up
    columns = [
        name for name in shown.columns if name not in hidden and not shown[name].isna().all()
    ]
    rows = [tuple(number(value) for value in row) for row in shown[columns].itertuples(index=False)]
    return Rows(tuple(columns), rows), text


def _curves(found: pd.DataFrame) -> bytes:
    """Draw the losses of the final training and its learning rate."""
    with styled():
        figure = new_figure(13, 4.2)
        loss, terms, rate = figure.subplots(1, 3)
        for split, colour in (("train", "#999999"), ("valid", "#d55e00")):
            loss.plot(
                *_curve(found, split, "loss"),
                color=colour,
                marker="." if split == "valid" else "",
                label=split,
            )
        names = [
            name for name in found.loc[found["split"] == "valid", "name"].unique() if name != "loss"
        ]
        for name in names:
            terms.plot(*_curve(found, "valid", name), marker=".", label=name)
        rate.plot(*_curve(found, "train", "learning_rate"), color="#0072b2")
        for axes, label in (
            (loss, "loss"),
            (terms, "terms of the validation loss"),
            (rate, "learning rate"),
        ):
            axes.set(xlabel="optimiser step", ylabel=label)
        for axes in (loss, terms):
            if axes.lines and all((line.get_ydata() > 0).all() for line in axes.lines):
                axes.set_yscale("log")
            axes.legend()
        return png_bytes(figure)


def _curve(found: pd.DataFrame, split: str, name: str) -> tuple[Any, Any]:
    rows = found[(found["split"] == split) & (found["name"] == name)].sort_values("step")
    return rows["step"].to_numpy(), rows["value"].to_numpy()


def _training(found: pd.DataFrame) -> Rows:
    rows = [("steps", number(int(found["step"].max())))]
    steps, losses = _curve(found, "valid", "loss")
    if len(losses):
        rows += [
            (
                "best validation loss",
                f"{number(float(losses.min()))} at step {number(int(steps[losses.argmin()]))}",
            ),
            ("last validation loss", number(float(losses[-1]))),
        ]
    for name, label in (
        ("events_per_s", "training speed, median [events/s]"),
        ("padding_efficiency", "share of elements that are no padding"),
    ):
        values = _curve(found, "train", name)[1]
        if len(values):
            rows.append((label, number(float(pd.Series(values).median()))))
    return Rows(("training", "value"), rows)


def _parity(found: Mapping[str, Any]) -> Rows:
    hidden = ("kind", "provenance")
    leaves = dotted({key: value for key, value in found.items() if key not in hidden})
    shown = {
        key: number(value)
        for key, value in leaves.items()
        if value != "" and not isinstance(value, list)
    }
    return Rows(("ONNX against torch", "value"), list(shown.items()))
