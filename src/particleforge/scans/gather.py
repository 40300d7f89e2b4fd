"""Gather a scan: its summary with fits, a table of its trainings, and plots.

Inputs -> outputs: the JSON file of every point -> ``<scan>.json`` (summary), ``<scan>.csv`` (one
row per training) and a folder of plots, PNG and PDF. ``captions`` says how to read them.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from particleforge.artefacts import atomic_directory, atomic_output, write_json
from particleforge.config.scans import ScanName
from particleforge.config.settings import ScanSettings
from particleforge.pages.figures import save_figure, styled
from particleforge.paths import SCAN_PLOTS
from particleforge.provenance.record import Provenance
from particleforge.scans import fine_tuning, scaling_batch, scaling_law
from particleforge.scans.results import PointResult, ScanFile, table_of

log = logging.getLogger(__name__)

_Summarise = Callable[[Sequence[PointResult]], dict[str, Any]]
_Draw = Callable[[dict[str, Any], Sequence[PointResult], str], dict[str, Figure]]
_SCANS: dict[str, tuple[_Summarise, _Draw]] = {
    "scaling_batch": (scaling_batch.summarise, scaling_batch.draw),
    "fine_tuning": (fine_tuning.summarise, fine_tuning.draw),
    "scaling_law": (scaling_law.summarise, scaling_law.draw),
}


def gather_scan(
    settings: ScanSettings,
    scan: ScanName,
    *,
    points: Sequence[Path],
    summary: Path,
    table: Path,
    plots: Path,
) -> None:
    """Write summary, table and plots of a scan from the results of its trainings."""
    summarise, draw = _SCANS[scan]
    results = [PointResult.read(path) for path in points]
    found = summarise(results)
    n_diverged = sum(r.loss is None for r in results)
    made = Provenance.of("gather_scan", settings.plain(), points, part={"scan": scan})
    with styled():
        figures = draw(found, results, settings.title)
        assert tuple(figures) == SCAN_PLOTS[scan]
        with atomic_directory(plots) as folder:
            for name, figure in figures.items():
                save_figure(figure, folder / name)
    with atomic_output(table) as temporary:
        table_of(results).to_csv(temporary, index=False)
    write_json(
        summary,
        {
            "kind": ScanFile.KIND,
            "scan": scan,
            "n_trainings": len(results),
            "n_diverged": n_diverged,
            **found,
            "provenance": made.plain(),
        },
    )
    log.info("%s: %d trainings, %d diverged", scan, len(results), n_diverged)
    made.record(summary, table, plots)
