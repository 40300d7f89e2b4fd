"""The report's account of the scans that it was asked to show.

Inputs -> outputs: ``<scan>.json`` and the plots of each -> a sentence with what was found, a
table, and pictures with captions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particleforge.pages.rendering import NOTHING, Picture, Rows, measured, number, picture
from particleforge.paths import SCAN_PLOTS
from particleforge.scans.results import ScanFile
from particleforge.stored import read_stored

_TITLES = {
    "scaling_batch": "Large batches",
    "fine_tuning": "Fine-tuning",
    "scaling_law": "Scaling law",
}
_CAPTIONS = {
    "scaling_batch": (
        """Loss against the global batch, all trainings having seen equally many events, for rules
        by which the learning rate follows the batch. A curve that stays flat loses nothing by
        larger batches, which are what more workers need. A missing point diverged."""
    ),
    "scaling_batch_curves": (
        "Validation loss against events seen: large batches make fewer steps, so they fall later."
    ),
    "fine_tuning": (
        """Loss against training events, starting from another detector's trained network and from
        scratch. The horizontal distance of the curves is what the other detector's events are
        worth."""
    ),
    "fine_tuning_curves": (
        """Validation loss against events seen. Curves that turn up have learnt their few training
        events by heart; the lowest point of each is what counts."""
    ),
    "scaling_law_events": (
        """Loss against training events, with the fitted power law and its 68 % band. Where points
        leave the law to the right, trainings were too short or the network too small to use more
        events."""
    ),
    "scaling_law_parameters": (
        "Loss against the parameters of the network, trained on all events, with the fitted power"
        " law."
    ),
}
_UNITS = {"events": "training events", "parameters": "parameters"}


@dataclass(frozen=True)
class Scan:
    """What the page shows of one scan."""

    title: str
    text: str
    rows: Rows
    plots: list[Picture]


def gather_scans(scans: Sequence[Path], plots: Sequence[Path]) -> list[Scan]:
    """Read the scans' results; ``plots`` are their folders."""
    return [
        _scan(read_stored(path, ScanFile).model_dump(), folder)
        for path, folder in zip(scans, plots, strict=True)
    ]


def _scan(found: Mapping[str, Any], folder: Path) -> Scan:
    name = found["scan"]
    text, rows = {
        "scaling_batch": _scaling_batch,
        "fine_tuning": _fine_tuning,
        "scaling_law": _scaling_law,
    }[name](found)
    counted = f"{found['n_trainings']} trainings" + (
        f", {found['n_diverged']} of them diverged" if found["n_diverged"] else ""
    )
    pictures = [
        picture(folder / f"{plot}.png", " ".join(_CAPTIONS[plot].split()))
        for plot in SCAN_PLOTS[name]
    ]
    return Scan(_TITLES[name], f"{counted}. {text}", rows, pictures)


def _scaling_batch(found: Mapping[str, Any]) -> tuple[str, Rows]:
    best: dict[tuple[str, int], tuple[float, str]] = {}
    rows = []
    for entry in found["series"]:
        for point in entry["points"]:
            key = (entry["optimiser"], point["factor"])
            loss = point["loss"]
            change = point["change"]
            if change is not None:
                best[key] = min(best.get(key, (change, entry["rule"])), (change, entry["rule"]))
            rows.append(
                (
                    *(entry["optimiser"], entry["rule"], f"x{point['factor']}"),
                    *(
                        number(point[name])
                        for name in ("elements_per_batch", "steps", "events_seen")
                    ),
                    *(_loss(loss), NOTHING if change is None else f"{change:+.1%}"),
                )
            )
    texts = []
    for optimiser in dict.fromkeys(entry["optimiser"] for entry in found["series"]):
        factor = (
            max(factor for name, factor in best if name == optimiser)
            if any(name == optimiser for name, _ in best)
            else 1
        )
        if factor > 1:
            change, rule = best[optimiser, factor]
            texts.append(f"{optimiser} at x{factor}: {change:+.1%} with its best rule, {rule}")
    text = (
        f"Change of the loss against x1: {'; '.join(texts)}."
        if texts
        else "No batch above x1 ended well."
    )
    return text, Rows(
        (
            "optimiser",
            "learning rate",
            "batch",
            "elements",
            "steps",
            "events seen",
            "loss",
            "against x1",
        ),
        rows,
    )


def _fine_tuning(found: Mapping[str, Any]) -> tuple[str, Rows]:
    worth = {entry["train_events"]: entry for entry in found["worth"]}
    losses = {
        start: {p["train_events"]: p["loss"] for p in points}
        for start, points in found["points"].items()
    }
    sizes = sorted({n for of_start in losses.values() for n in of_start})
    absent = {"value": None, "error": None}
    rows = [
        (
            number(n),
            *(_loss(losses.get(start, {}).get(n, absent)) for start in ("scratch", "fine_tuned")),
            _worth(worth.get(n)),
        )
        for n in sizes
    ]
    text = (
        "Last column: how many times as many events a training from scratch needs for the loss of"
        " the fine-tuned one."
    )
    return text, Rows(("training events", "loss from scratch", "loss fine-tuned", "worth"), rows)


def _worth(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["factor"] is None:
        return NOTHING
    return {"lower": "> ", "upper": "< ", None: ""}[entry["bound"]] + f"{entry['factor']:.2g} times"


def _scaling_law(found: Mapping[str, Any]) -> tuple[str, Rows]:
    rows, texts = [], []
    for axis, label in _UNITS.items():
        if axis not in found:
            continue
        fit, forecast = found[axis]["fit"], found[axis]["forecast"]
        rows += [
            (label, number(point["size"]), _loss(point["loss"])) for point in found[axis]["points"]
        ]
        if "reason" in fit:
            texts.append(f"Against {label}: no fit ({fit['reason']}).")
            continue
        floor = "c = 0 (fixed)" if fit["c"]["error"] is None else f"c = {measured(fit['c'])}"
        texts.append(
            f"Against {label}, L = a N^-b + c: b = {measured(fit['b'])}, {floor}; at N ="
            f" {number(forecast['size'])} it would be {measured(forecast)}, if the law held so far."
        )
    return " ".join(texts), Rows(("against", "N", "loss"), rows)


def _loss(loss: Mapping[str, Any]) -> str:
    return measured(loss) if loss["error"] is not None else number(loss["value"])
