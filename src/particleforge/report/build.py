"""Stage ``report``: one self-contained HTML page that a physicist reads from top to bottom.

Inputs -> outputs: the results of every stage (``ReportInputs``) -> ``report.html``, with style,
images and the script of the event display inside: the answer, physics plots, event displays,
search, training, export, scans if asked for, data and their checks, cutflow, cost, origin.

Invariants: no external resource; only the event display needs its script; the same inputs give the
same page.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from particleforge.artefacts import write_text
from particleforge.config.settings import ReportSettings
from particleforge.pages.rendering import Rows, package_text, render_page
from particleforge.provenance.record import Provenance
from particleforge.report.checks import gather_checks
from particleforge.report.dataset import gather_data
from particleforge.report.displays import draw_displays
from particleforge.report.learning import gather_learning
from particleforge.report.origin import gather_origin
from particleforge.report.physics import gather_physics
from particleforge.report.scans import gather_scans
from particleforge.report.scene import MARKS_MAX
from particleforge.report.usage import gather_usage


@dataclass(frozen=True)
class ReportInputs:
    """Files that the report is made of.

    ``selected`` and ``reconstructed``, ``scans`` and ``scan_plots`` are pairs in one order.
    """

    dataset: Sequence[Path]
    selected: Sequence[Path]
    reconstructed: Sequence[Path]
    cutflow_table: Path
    cutflow_plot: Path
    manifest: Path
    dataset_verdict: Path
    shards_verdict: Path
    hpo_best: Path
    hpo_trials: Path
    hpo_plots: Mapping[str, Path]
    metrics: Path
    parity: Path
    model_card: Path
    physics_metrics: Path
    histograms: Path
    validation_plots: Path
    scans: Sequence[Path] = ()
    scan_plots: Sequence[Path] = ()

    def tables(self) -> list[Path]:
        """Return the event tables; the report reads footers and the events that it displays."""
        return [*self.dataset, *self.selected, *self.reconstructed]

    def others(self) -> list[Path]:
        """Return all other inputs."""
        single = (
            self.cutflow_table,
            self.cutflow_plot,
            self.manifest,
            self.hpo_best,
            self.hpo_trials,
            self.metrics,
            self.parity,
        )
        validated = (self.physics_metrics, self.histograms, self.validation_plots)
        return [
            *single,
            self.dataset_verdict,
            self.shards_verdict,
            *self.hpo_plots.values(),
            self.model_card,
            *validated,
            *self.scans,
            *self.scan_plots,
        ]


def build_report(settings: ReportSettings, inputs: ReportInputs, output: Path) -> None:
    """Write the report to ``output``."""
    results = (
        *inputs.dataset,
        *inputs.selected,
        inputs.cutflow_table,
        inputs.manifest,
        inputs.dataset_verdict,
        inputs.shards_verdict,
        inputs.hpo_best,
        inputs.metrics,
        inputs.parity,
        *inputs.reconstructed,
        inputs.physics_metrics,
        *inputs.scans,
    )
    page = render_page(
        "particleforge.report",
        "report.html.j2",
        {
            "settings": settings,
            "physics": gather_physics(
                inputs.physics_metrics, inputs.validation_plots, settings.particle_classes
            ),
            "data": gather_data(
                dataset=inputs.dataset,
                selected=inputs.selected,
                manifest=inputs.manifest,
                cutflow_table=inputs.cutflow_table,
                cutflow_plot=inputs.cutflow_plot,
            ),
            "checks": gather_checks(inputs.dataset_verdict, inputs.shards_verdict),
            "learning": gather_learning(
                hpo_best=inputs.hpo_best,
                hpo_trials=inputs.hpo_trials,
                hpo_plots=inputs.hpo_plots,
                metrics=inputs.metrics,
                parity=inputs.parity,
                model_card=inputs.model_card,
            ),
            "scans": gather_scans(inputs.scans, inputs.scan_plots),
            "displays": draw_displays(inputs.selected, inputs.reconstructed, settings),
            "marks_max": MARKS_MAX,
            "script": package_text("particleforge.report", "display.js"),
            "usage": gather_usage(results, inputs.metrics),
            "origin": gather_origin(results),
            "files": _files(inputs, output),
        },
    )
    write_text(output, page)
    made = Provenance.of(
        "build_report", settings.plain(), inputs.others(), glanced_at=inputs.tables()
    )
    made.record(output)


def _files(inputs: ReportInputs, output: Path) -> Rows:
    """Return the result files worth opening, by their path from the page's folder."""
    named = (
        (
            inputs.physics_metrics,
            "every figure of the validation with its error, also per sample and per bin",
        ),
        (inputs.histograms, "the histograms behind the plots, to compare or to draw them anew"),
        (inputs.validation_plots, "the plots as PNG and PDF"),
        (inputs.dataset_verdict, "the checks of the dataset, with the extremes of every column"),
        (inputs.shards_verdict, "the checks of the training shards"),
        (inputs.cutflow_table, "the cutflow with its intervals"),
        (inputs.hpo_trials, "all trials of the search"),
        (inputs.hpo_best, "the winning settings of the search"),
        (inputs.metrics, "every logged value of the final training"),
        (inputs.parity, "comparison of the exported model with torch"),
        (inputs.model_card, "how to use the exported model"),
        *((path, f"what the scan {path.stem} found") for path in inputs.scans),
    )
    return Rows(
        ("file", "content"),
        [(os.path.relpath(path, output.parent), content) for path, content in named],
    )
