"""Unpack the job's files and settings, call the package."""

from pathlib import Path

from particleforge.config.settings import ReportSettings
from particleforge.logs import job_log
from particleforge.report.build import ReportInputs, build_report

files = snakemake.input
single = ("cutflow_table", "cutflow_plot", "manifest", "dataset_verdict", "shards_verdict")
single += (
    "hpo_best",
    "hpo_trials",
    "metrics",
    "parity",
    "model_card",
    "physics_metrics",
    "histograms",
    "validation_plots",
)

with job_log(snakemake.log[0]):
    inputs = ReportInputs(
        dataset=list(map(Path, files.dataset)),
        selected=list(map(Path, files.selected)),
        reconstructed=list(map(Path, files.reconstructed)),
        scans=list(map(Path, files.scans)),
        scan_plots=list(map(Path, files.scan_plots)),
        hpo_plots={path.stem: path for path in map(Path, files.hpo_plots)},
        **{name: Path(files[name]) for name in single},
    )
    build_report(
        ReportSettings.model_validate(snakemake.params.settings), inputs, Path(snakemake.output[0])
    )
