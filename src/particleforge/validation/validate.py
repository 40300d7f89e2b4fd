"""Stage ``validate``: the model against truth, targets, ideal particle flow and baseline.

Inputs -> outputs: selected and reconstructed Parquet files of the same shards, in the same order ->
``metrics.json`` (``metrics``), ``histograms.json`` (``histograms``), a folder of plots (``plots``).
Files are read one after the other, one row group at a time, and only counts are kept.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from particleforge.artefacts import atomic_directory, write_json
from particleforge.config.settings import ValidateSettings
from particleforge.errors import UserError
from particleforge.progress import shown
from particleforge.provenance.record import Provenance
from particleforge.reconstruction.reconstruct import ReconstructedMetadata
from particleforge.stored import Stored
from particleforge.tables.parquet import described
from particleforge.validation.closure import fill_closure
from particleforge.validation.dijets import fill_dijets
from particleforge.validation.events import (
    RECONSTRUCTIONS,
    check_repeats,
    read_pair,
    sample_of,
)
from particleforge.validation.gap import draw_events
from particleforge.validation.histograms import Hists, book, to_json, without_held_out
from particleforge.validation.ideal import has_deposits
from particleforge.validation.jets import fill_jets
from particleforge.validation.met import fill_met
from particleforge.validation.metrics import compute_metrics
from particleforge.validation.particles import fill_against_targets, fill_particles
from particleforge.validation.plot_parts import Results
from particleforge.validation.plots import draw_plots
from particleforge.validation.scores import fill_scores

logger = logging.getLogger(__name__)


class MetricsFile(Stored):
    """What is read of the validation's metrics."""

    KIND = "validation_metrics"
    REMEDY = "rerun validate_model"
    n_events: int
    reconstructions: list[str]
    jets: dict[str, Any]


def validate_model(
    settings: ValidateSettings,
    *,
    selected: Sequence[Path],
    reconstructed: Sequence[Path],
    metrics: Path,
    histograms: Path,
    plots: Path,
) -> None:
    """Validate the model on all events that were reconstructed.

    Args:
        settings: classes, jets, plot ranges, samples.
        selected: selected event tables; the metadata name the sample.
        reconstructed: the model's candidates, one file per selected file, in the same order.
        metrics: JSON to write.
        histograms: JSON to write.
        plots: folder to write.

    Raises:
        UserError: files that do not belong together, or a sample that is not configured.
    """
    _check_files(settings, selected, reconstructed)
    check_repeats(reconstructed)
    hists = fill_histograms(settings, selected, reconstructed)
    figures = compute_metrics(hists, settings)
    for name in figures["one_sided"]:
        logger.warning("%s: hardly ever on both sides of 1", name)
    made = Provenance.of("validate_model", settings.plain(), [*selected, *reconstructed])
    with atomic_directory(plots) as temporary:
        draw_plots(Results(figures, without_held_out(hists, settings), settings), temporary)
    write_json(
        histograms, {"kind": "histograms", "provenance": made.plain(), "histograms": to_json(hists)}
    )
    write_json(metrics, {"kind": MetricsFile.KIND, "provenance": made.plain(), **figures})
    made.record(metrics, histograms, plots, n_events=figures["n_events"])


def fill_histograms(
    settings: ValidateSettings, selected: Sequence[Path], reconstructed: Sequence[Path]
) -> Hists:
    """Return the histograms of all pairs of files, without ideal if no event has a deposit."""
    without = () if has_deposits(selected) else ("ideal",)
    hists = book(settings, [name for name in RECONSTRUCTIONS if name not in without])
    files = zip(selected, reconstructed, strict=True)
    for selected_file, reconstructed_file in shown(files, "file", len(selected)):
        for batch in read_pair(selected_file, reconstructed_file):
            draws = draw_events(batch, settings)
            names = [batch.sample] * batch.n_events
            hists["events"].fill(process=names)
            hists["sum_of_weights"].fill(process=names, weight=batch.weights)
            fill_jets(hists, batch, settings.jets, draws)
            fill_closure(hists, batch, settings)
            fill_met(hists, batch, draws)
            fill_particles(hists, batch, settings)
            fill_against_targets(hists, batch, settings)
            fill_dijets(hists, batch, settings.plots.dijet_mass)
            fill_scores(hists, batch)
        logger.info("%s: %d events so far", reconstructed_file, hists["events"].sum())
    return hists


def _check_files(
    settings: ValidateSettings, selected: Sequence[Path], reconstructed: Sequence[Path]
) -> None:
    if len(selected) != len(reconstructed):
        raise UserError(
            f"{len(selected)} selected but {len(reconstructed)} reconstructed files; give one"
            " reconstructed file per selected file"
        )
    for path in selected:
        sample = sample_of(path)
        if sample not in settings.samples:
            raise UserError(
                f"{path}: its sample '{sample}' is not configured; configured:"
                f" {', '.join(sorted(settings.samples))}"
            )
    classes = [one.name for one in settings.particle_classes]
    for path in reconstructed:
        found = [one.get("name") for one in described(path, ReconstructedMetadata).classes[1:]]
        if found and found != classes:
            raise UserError(
                f"{path}: its classes are {', '.join(map(str, found))}, particle_classes of the"
                f" detector's file {', '.join(classes)}, in this order; give the detector that the"
                " model was trained for"
            )
