"""Several validations side by side, and whether they keep to limits.

Inputs -> outputs: ``metrics.json`` of models, detectors or commits, the first of which is what the
others are compared with, and limits -> a table of all figures of whole samples, and the limits that
are not kept. Figures have the path of their keys in metrics.json, such as
``jets.inclusive.mlpf.response.resolution``; those of bins stay out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from particleforge.config.base import Block
from particleforge.config.explain import explain
from particleforge.config.reader import read_yaml
from particleforge.errors import UserError, did_you_mean
from particleforge.pages.rendering import NOTHING, Rows, measured, render_page
from particleforge.stored import read_stored
from particleforge.validation.events import RECONSTRUCTIONS
from particleforge.validation.validate import MetricsFile

Figures = dict[str, dict[str, Any]]


class Limit(Block):
    """What a figure of every model but the first must keep to; of the only one, if it is alone."""

    min: float | None = None
    max: float | None = None
    min_ratio: float | None = None  # to the first model's
    max_ratio: float | None = None

    @model_validator(mode="after")
    def _one(self) -> "Limit":
        if not self.model_dump(exclude_none=True):
            raise ValueError("give min, max, min_ratio or max_ratio")
        return self

    def broken_by(self, value: float, first: float) -> list[str]:
        """Return what a value breaks, as text."""
        ratio = value / first if first else float("nan")
        checks = {
            "min": (value, self.min, 1),
            "max": (value, self.max, -1),
            "min_ratio": (ratio, self.min_ratio, 1),
            "max_ratio": (ratio, self.max_ratio, -1),
        }
        return [
            f"{name} {limit:g} (is {found:.4g})"
            for name, (found, limit, sign) in checks.items()
            # a ratio to nothing keeps to no limit
            if limit is not None and not sign * found >= sign * limit
        ]


class _Limits(Block):
    limits: dict[str, Limit]


@dataclass(frozen=True)
class Comparison:
    """Figures of all models, and the limits that are not kept, a line each."""

    models: list[str]  # number and file
    table: Rows
    broken: list[str]
    n_limits: int

    def page(self) -> str:
        """Return all of it as an HTML page that needs no other file."""
        return render_page("particleforge.report", "compare.html.j2", {"found": self})


def read_figures(path: Path) -> Figures:
    """Return the figures of a metrics.json by the path of their keys."""
    content = read_stored(path, MetricsFile).model_dump()
    return dict(_leaves({k: v for k, v in content.items() if k != "provenance"}, ""))


def _leaves(tree: Mapping[str, Any], prefix: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for key, value in tree.items():
        if not isinstance(value, dict):
            continue
        if "value" in value and ("error" in value or "low" in value):
            found.append((f"{prefix}{key}", value))
        else:
            found += _leaves(value, f"{prefix}{key}.")
    return found


def read_limits(path: Path) -> dict[str, Limit]:
    """Return the limits of a YAML file: figures with min, max, min_ratio or max_ratio."""
    content = {"limits": read_yaml(path)}
    try:
        return _Limits.model_validate(content).limits
    except ValidationError as error:
        where = explain(error, _Limits, [(str(path), content)], str(path))
        raise UserError(where.replace(" limits.", " ", 1)) from error


def compare(paths: Sequence[Path], limits: Mapping[str, Limit], views: Sequence[str]) -> Comparison:
    """Return the models' figures side by side; of views, such as the baseline, those of ``views``.

    UserError if a limit is on a figure that a model does not have.
    """
    models = [read_figures(path) for path in paths]
    names = sorted({name for figures in models for name in figures}, key=_order)
    for name in limits:
        for path, figures in zip(paths, models, strict=True):
            if name not in figures:
                raise UserError(f"{path}: has no figure {name}{did_you_mean(name, names)}")
    rows = []
    for name in names:
        if _is_of(name, views):
            found = [figures.get(name) for figures in models]
            rows.append(
                (name, *map(measured, found), *(_ratio(one, found[0]) for one in found[1:]))
            )
    numbers = [str(number) for number in range(1, len(paths) + 1)]
    judged = list(zip(paths, models, strict=True))[1:] or [(paths[0], models[0])]
    return Comparison(
        [f"{number}: {path}" for number, path in zip(numbers, paths, strict=True)],
        Rows(("figure", *numbers, *(f"{number} / 1" for number in numbers[1:])), rows),
        [
            f"{path}: {name}: {said}"
            for name, limit in limits.items()
            for path, figures in judged
            for said in _broken(limit, figures[name]["value"], models[0][name]["value"])
        ],
        len(limits),
    )


def _order(name: str) -> tuple[bool, str]:
    """Put figures of single samples behind those of all."""
    return name.startswith("by_sample."), name


def _is_of(name: str, views: Sequence[str]) -> bool:
    """Return whether a figure is of one of the views, or of none."""
    of = set(name.split(".")) & set(RECONSTRUCTIONS)
    return not of or bool(of & set(views))


def _ratio(figure: Mapping[str, Any] | None, first: Mapping[str, Any] | None) -> str:
    if not figure or not first or figure["value"] is None or not first["value"]:
        return NOTHING
    return f"{figure['value'] / first['value']:.3f}"


def _broken(limit: Limit, value: float | None, first: float | None) -> list[str]:
    if value is None:
        return ["has no value, so it keeps to no limit"]
    return limit.broken_by(value, first or 0.0)
