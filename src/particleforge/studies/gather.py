"""Gather a study: its summary with fits, a table of its trainings, and plots.

Inputs -> outputs: the JSON file of every point -> ``<study>.json`` (summary), ``<study>.csv`` (one
row per training) and a folder of plots, PNG and PDF. ``captions`` says how to read them.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from particleforge.artefacts import atomic_directory, atomic_output, write_json
from particleforge.config.settings import StudySettings
from particleforge.config.studies import StudyName
from particleforge.figures import save_figure, styled
from particleforge.paths import STUDY_PLOTS
from particleforge.provenance import Provenance
from particleforge.studies import fine_tuning, scaling_batch, scaling_law
from particleforge.studies.results import PointResult, table

log = logging.getLogger(__name__)

_Summarise = Callable[[Sequence[PointResult]], dict[str, Any]]
_Draw = Callable[[dict[str, Any], Sequence[PointResult], str], dict[str, Figure]]
_STUDIES: dict[str, tuple[_Summarise, _Draw]] = {
    "scaling_batch": (scaling_batch.summarise, scaling_batch.draw),
    "fine_tuning": (fine_tuning.summarise, fine_tuning.draw),
    "scaling_law": (scaling_law.summarise, scaling_law.draw),
}


def gather_study(
    settings: StudySettings,
    study: StudyName,
    points: Sequence[Path],
    output: Path,
    rows: Path,
    plots: Path,
) -> None:
    """Write summary, table and plots of a study from the results of its trainings."""
    summarise, draw = _STUDIES[study]
    results = [PointResult.read(path) for path in points]
    summary = summarise(results)
    n_diverged = sum(r.loss is None for r in results)
    made = Provenance.of("gather_study", settings.plain(), points, part={"study": study})
    with styled():
        figures = draw(summary, results, settings.title)
        assert tuple(figures) == STUDY_PLOTS[study]
        with atomic_directory(plots) as folder:
            for name, figure in figures.items():
                save_figure(figure, folder / name)
    with atomic_output(rows) as temporary:
        table(results).to_csv(temporary, index=False)
    write_json(
        output,
        {
            "study": study,
            "n_trainings": len(results),
            "n_diverged": n_diverged,
            **summary,
            "provenance": made.plain(),
        },
    )
    made.record(output, rows, plots)
    log.info("%s: %d trainings, %d diverged", study, len(results), n_diverged)
