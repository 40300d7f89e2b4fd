"""The report's physics: headline figures, tables, and the validation's plots with their captions.

Inputs -> outputs: ``metrics.json`` of the validation and its folder of plots -> text, tables and
pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particleforge.config.detector import ParticleClassConfig
from particleforge.errors import UserError
from particleforge.pages.figures import LABELS
from particleforge.pages.rendering import NOTHING, Picture, Rows, measured, number, picture
from particleforge.stored import read_stored
from particleforge.validation.captions import captions
from particleforge.validation.validate import MetricsFile

Tree = Mapping[str, Any]
_SHARES = ("efficiency", "fake_rate", "mislabelled", "splitting", "merging")
_SIGNIFICANT = 2.0  # standard deviations from which a difference is called one


@dataclass(frozen=True)
class Physics:
    """What the page shows of the validation."""

    n_events: int
    headline: list[tuple[str, str, str]]  # reconstruction, its label, jet resolution
    verdict: str
    gap: Rows | None  # share of the gap to ideal particle flow, where that is known
    summary: Rows
    by_sample: Rows
    particles: Rows
    one_sided: list[str]
    plots: list[Picture]


def gather_physics(metrics: Path, plots: Path, classes: Sequence[ParticleClassConfig]) -> Physics:
    """Read the validation's results."""
    found = read_stored(metrics, MetricsFile).model_dump()
    if "one_sided" not in found:
        raise UserError(f"{metrics}: is of an older version; {MetricsFile.REMEDY}")
    jets = found["jets"]["inclusive"]
    texts = captions(
        classes, ideal="ideal" in found["reconstructions"], dijets="dijet_mass" in found
    )
    return Physics(
        n_events=found["n_events"],
        headline=[
            (reco, LABELS[reco], measured(jets[reco]["response"]["resolution"]))
            for reco in found["reconstructions"]
        ],
        verdict=verdict(
            jets, found["over_baseline"]["jets"], found.get("gap_closed", {}).get("jets")
        ),
        gap=_gap(found),
        summary=_summary(found),
        by_sample=_by_sample(found),
        particles=_particles(found, classes),
        one_sided=found["one_sided"],
        plots=[picture(plots / f"{name}.png", text) for name, text in texts.items()],
    )


def verdict(jets: Tree, over_baseline: Tree | None, gap_closed: Tree | None) -> str:
    """Say how the model's jet resolution compares with the baseline's, and how far one could go.

    The sentence says, too, whether the statistics allow it. ``over_baseline`` is the ratio of the
    resolutions, of the same events.
    """
    if over_baseline is None or over_baseline["error"] > 1:
        counts = " and ".join(
            f"{jets[reco]['response']['n']:.4g} for {LABELS[reco]}" for reco in ("mlpf", "baseline")
        )
        return f"Too few matched jets to compare resolutions ({counts})."
    ratio, error = over_baseline["value"], over_baseline["error"]
    sigma = abs(ratio - 1) / max(error, 1e-12)
    change = (
        f"{abs(ratio - 1):.0%} ± {error:.0%} {'better' if ratio < 1 else 'worse'} than that"
        if ratio < 2
        else f"{ratio:.1f} ± {error:.1f} times as wide as that"
    )
    text = f"The jet resolution of MLPF is {change} of the baseline, on the same events"
    text += "." if sigma >= _SIGNIFICANT else ": with these statistics they cannot be told apart."
    if gap_closed is not None and gap_closed["value"] > 0:
        text += (
            f" That closes {gap_closed['value']:.0%} ± {gap_closed['error']:.0%} of the gap between"
            " baseline and ideal particle flow."
        )
    return text


def _gap(found: Tree) -> Rows | None:
    if "gap_closed" not in found:
        return None
    parts = {"all": found, **found["by_sample"]}
    return Rows(
        ("share of the gap closed, sample", "jets", "visible energy"),
        [
            (name, *(measured(part["gap_closed"][key]) for key in ("jets", "visible_energy")))
            for name, part in parts.items()
        ],
    )


def _summary(found: Tree) -> Rows:
    jets = found["jets"]["inclusive"]
    met = found["met"]["inclusive"]
    energy = found["visible_energy"]
    names = found["reconstructions"]
    rows = [
        (
            "jet resolution (IQR/median)",
            [measured(jets[r]["response"]["resolution"]) for r in names],
        ),
        ("jet median response", [measured(jets[r]["response"]["median"]) for r in names]),
        ("jet matching efficiency", [measured(jets[r]["efficiency"]) for r in names]),
        ("fake-jet rate", [measured(jets[r]["fake_rate"]) for r in names]),
        ("matched jets", [number(jets[r]["response"]["n"]) for r in names]),
        (
            "missing pT, bias [GeV]",
            [measured(met[r]["residual"]["median"]) for r in names],
        ),
        (
            "missing pT, IQR of residual [GeV]",
            [measured(met[r]["residual"]["iqr"]) for r in names],
        ),
        (
            "missing px and py, IQR of residual [GeV]",
            [measured(met[r]["component_residual"]["iqr"]) for r in names],
        ),
        (
            "visible energy, median response",
            [measured(energy[r]["median"]) for r in names],
        ),
        (
            "visible energy, IQR/median",
            [measured(energy[r]["resolution"]) for r in names],
        ),
    ]
    return Rows(("figure", *(LABELS[r] for r in names)), [(name, *cells) for name, cells in rows])


def _by_sample(found: Tree) -> Rows:
    names = found["reconstructions"]
    rows = []
    for name, of_sample in found["by_sample"].items():
        jets = of_sample["jets"]["inclusive"]
        cells = [measured(jets[r]["response"]["resolution"]) for r in names]
        held_out = " (never trained on)" * (name in found["held_out"])
        rows.append((name + held_out, number(of_sample["n_events"]), *cells))
    return Rows(("jet resolution of sample", "events", *(LABELS[r] for r in names)), rows)


def _particles(found: Tree, classes: Sequence[ParticleClassConfig]) -> Rows:
    rows = []
    for c in classes:
        for reco in found["reconstructions"]:
            of_one = found["particles"][c.name][reco]
            cells = [measured(of_one[key]) for key in _SHARES]
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
                    measured(response["above_one"]),
                    measured(of_one["angle_mrad"]["median"]),
                )
            )
    heads = (
        "class",
        "reconstruction",
        "efficiency",
        "fake rate",
        "mislabelled",
        "splitting",
        "merging",
        "wrong charge",
        "energy response",
        "energy IQR/median",
        "energy above 1",
        "angle, median (mrad)",
    )
    return Rows(heads, rows)
