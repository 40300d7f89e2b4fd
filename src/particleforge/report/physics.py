"""The report's physics: headline figures, tables, and the validation's plots with their captions.

Inputs -> outputs: ``metrics.json`` of the validation and its folder of plots -> text, tables and
pictures.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particleforge.config.detector import ParticleClassConfig
from particleforge.pages.figures import LABELS
from particleforge.pages.rendering import NOTHING, Picture, Rows, measured, number, picture
from particleforge.validation.captions import captions
from particleforge.validation.events import RECONSTRUCTIONS

Tree = Mapping[str, Any]
_SIGNIFICANT = 2.0  # standard deviations from which a difference is called one


@dataclass(frozen=True)
class Physics:
    """What the page shows of the validation."""

    n_events: int
    headline: list[tuple[str, str, str]]  # reconstruction, its label, jet resolution
    verdict: str
    summary: Rows
    by_sample: Rows
    particles: Rows
    plots: list[Picture]


def gather_physics(metrics: Path, plots: Path, classes: Sequence[ParticleClassConfig]) -> Physics:
    """Read the validation's results."""
    found = json.loads(metrics.read_text(encoding="utf-8"))
    jets = found["jets"]["inclusive"]
    return Physics(
        n_events=found["n_events"],
        headline=[
            (reco, LABELS[reco], measured(jets[reco]["response"]["resolution"]))
            for reco in RECONSTRUCTIONS
        ],
        verdict=verdict(jets),
        summary=_summary(found),
        by_sample=_by_sample(found),
        particles=_particles(found, classes),
        plots=[picture(plots / f"{name}.png", text) for name, text in captions(classes).items()],
    )


def verdict(jets: Tree) -> str:
    """Say how the model's jet resolution compares with the baseline's.

    The sentence says, too, whether the statistics allow it.
    """
    model, base, limit = (
        jets[reco]["response"]["resolution"] for reco in ("mlpf", "baseline", "target")
    )
    if model is None or base is None or base["value"] <= 0:
        counts = " and ".join(
            f"{jets[reco]['response']['n']} for {LABELS[reco]}" for reco in ("mlpf", "baseline")
        )
        return f"Too few matched jets to compare resolutions ({counts})."
    ratio = model["value"] / base["value"]
    sigma = abs(model["value"] - base["value"]) / max(
        math.hypot(model["error"], base["error"]), 1e-12
    )
    change = (
        f"{abs(ratio - 1):.0%} {'better' if ratio < 1 else 'worse'} than that"
        if ratio < 2
        else f"{ratio:.1f} times as wide as that"
    )
    text = (
        f"The jet resolution of MLPF is {change} of the baseline ({sigma:.1f} standard deviations"
        " apart)"
    )
    text += "." if sigma >= _SIGNIFICANT else ": with these statistics they cannot be told apart."
    if limit is not None and base["value"] > limit["value"]:
        share = (base["value"] - model["value"]) / (base["value"] - limit["value"])
        text += (
            f" That closes {share:.0%} of the gap between baseline and truth limit."
            if share > 0
            else ""
        )
    return text


def _summary(found: Tree) -> Rows:
    jets = found["jets"]["inclusive"]
    met = found["met"]["inclusive"]
    energy = found["visible_energy"]
    rows = [
        (
            "jet resolution (IQR/median)",
            [measured(jets[r]["response"]["resolution"]) for r in RECONSTRUCTIONS],
        ),
        ("jet median response", [measured(jets[r]["response"]["median"]) for r in RECONSTRUCTIONS]),
        ("jet matching efficiency", [measured(jets[r]["efficiency"]) for r in RECONSTRUCTIONS]),
        ("fake-jet rate", [measured(jets[r]["fake_rate"]) for r in RECONSTRUCTIONS]),
        ("matched jets", [number(jets[r]["response"]["n"]) for r in RECONSTRUCTIONS]),
        (
            "missing pT, bias [GeV]",
            [measured(met[r]["residual"]["median"]) for r in RECONSTRUCTIONS],
        ),
        (
            "missing pT, IQR of residual [GeV]",
            [measured(met[r]["residual"]["iqr"]) for r in RECONSTRUCTIONS],
        ),
        (
            "missing px and py, IQR of residual [GeV]",
            [measured(met[r]["component_residual"]["iqr"]) for r in RECONSTRUCTIONS],
        ),
        (
            "visible energy, median response",
            [measured(energy[r]["median"]) for r in RECONSTRUCTIONS],
        ),
        (
            "visible energy, IQR/median",
            [measured(energy[r]["resolution"]) for r in RECONSTRUCTIONS],
        ),
    ]
    return Rows(
        ("figure", *(LABELS[r] for r in RECONSTRUCTIONS)), [(name, *cells) for name, cells in rows]
    )


def _by_sample(found: Tree) -> Rows:
    rows = []
    for name, of_sample in found["by_sample"].items():
        jets = of_sample["jets"]["inclusive"]
        cells = [measured(jets[r]["response"]["resolution"]) for r in RECONSTRUCTIONS]
        rows.append((name, number(of_sample["n_events"]), *cells))
    return Rows(("jet resolution of sample", "events", *(LABELS[r] for r in RECONSTRUCTIONS)), rows)


def _particles(found: Tree, classes: Sequence[ParticleClassConfig]) -> Rows:
    rows = []
    for c in classes:
        for reco in RECONSTRUCTIONS:
            of_one = found["particles"][c.name][reco]
            cells = [measured(of_one[key]) for key in ("efficiency", "fake_rate", "mislabelled")]
            wrong = measured(of_one["wrong_charge"]) if "wrong_charge" in of_one else NOTHING
            response = of_one["energy_response"]
            rows.append(
                (
                    c.label,
                    LABELS[reco],
                    *cells,
                    wrong,
                    measured(response["median"]),
                    measured(response["resolution"]),
                )
            )
    heads = (
        "class",
        "reconstruction",
        "efficiency",
        "fake rate",
        "mislabelled",
        "wrong charge",
        "energy response",
        "energy IQR/median",
    )
    return Rows(heads, rows)
