"""What of a trained model is shared, and the page about it.

Inputs -> outputs: ``model.onnx``, ``best.pt``, ``model_card.md`` and ``metrics.json`` -> the files
and the model card, with the figures of the physics validation, as ``README.md``. The ONNX file
must have been exported from these weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from particleforge.artefacts import sha256
from particleforge.errors import UserError
from particleforge.pages.rendering import measured
from particleforge.paths import Paths
from particleforge.publishing.folder import CHECK, TAGS, Contents, markdown_table
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.report.compare import Figures, read_figures
from particleforge.stored import read_stored
from particleforge.validation.validate import MetricsFile

_VIEWS = {
    "mlpf": "this model",
    "baseline": "rules",
    "ideal": "ideal particle flow",
    "target": "targets",
}
_FIGURES = {
    "jets.inclusive.{}.response.resolution": "resolution of jets",
    "visible_energy.{}.resolution": "resolution of visible energy",
}
_FILES = """## Files

| file | |
|---|---|
| `model.onnx` | the network, for ONNX Runtime |
| `best.pt` | its weights, to start a training from |
| `metrics.json` | all figures of the physics validation |

## Use

    particleforge reconstruct-events --detector {detector} --input FILE.root --model model.onnx \\
        --output FILE.parquet --edm4hep FILE.reco.root
    snakemake --profile profiles/local --config 'training={{init_from: FOLDER/best.pt}}'

"""


def model_files(paths: Paths, detector: str, source: Path | None) -> dict[str, Path]:
    """Return the files of a model by name: those of a run, or those in the folder ``source``."""
    patterns = (paths.onnx, paths.model, paths.model_card, paths.physics_metrics)
    found = [Path(pattern.format(detector=detector)) for pattern in patterns]
    return {path.name: source / path.name if source else path for path in found}


def model_contents(files: Mapping[str, Path], detector: str) -> Contents:
    """Return what is shared of a model; files that do not belong together are a UserError."""
    for path in files.values():
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; run export_onnx and validate_model first, or give --source"
            )
    _check_pair(files["model.onnx"], files["best.pt"])
    metrics, figures = (
        read_stored(files["metrics.json"], MetricsFile),
        read_figures(files["metrics.json"]),
    )
    card = files["model_card.md"].read_text(encoding="utf-8")
    physics = f"""## Physics

What stage validate found on {metrics.n_events} events; a resolution is the interquartile range of \
a response over its median:

{_physics_table(figures)}

"""
    return Contents(
        {place: path for place, path in files.items() if path.suffix != ".md"},
        {
            "library_name": "particleforge",
            "tags": [*TAGS, "onnx", detector],
            "model-index": _model_index(detector, metrics.n_events, figures),
        },
        f"{card}\n{physics}{_FILES.format(detector=detector)}{CHECK}",
    )


def _check_pair(model: Path, checkpoint: Path) -> None:
    OnnxModel(model, threads=1)  # refuses what is no whole export
    metadata = {p.key: p.value for p in onnx.load(model).metadata_props}
    inputs = json.loads(metadata.get("provenance", "{}")).get("inputs", {})
    if sha256(checkpoint) not in inputs.values():
        raise UserError(
            f"{checkpoint}: not the weights that {model} was exported from; give those, or export"
            " the model again"
        )


def _physics_table(figures: Figures) -> str:
    rows = [
        (title, *(measured(figures.get(name.format(view))) for view in _VIEWS))
        for name, title in _FIGURES.items()
    ]
    return markdown_table(("", *_VIEWS.values()), rows)


def _model_index(detector: str, n_events: int, figures: Figures) -> list[dict[str, Any]]:
    """Return the model's figures as the hub reads them."""
    names = {name.format("mlpf"): title for name, title in _FIGURES.items()}
    found = {name: figures[name]["value"] for name in names if name in figures}
    metrics = [
        {"type": name.replace(".", "_"), "name": names[name], "value": float(value)}
        for name, value in found.items()
        if value is not None
    ]
    dataset = {"type": "particleforge", "name": f"{n_events} test events, detector {detector}"}
    task = {"type": "particle-flow", "name": "particle-flow reconstruction"}
    return [
        {
            "name": f"particle-flow-{detector}",
            "results": [{"task": task, "dataset": dataset, "metrics": metrics}],
        }
    ]
