"""How figures move when the detector is not as in training: the network's beside the rules'.

    python benchmarks/robustness.py --model DIR [--detector clic] [--events 2000] [--seed 1]
        [--store FILE]

Simulates the same collisions in the detector as configured and in detectors that differ from it by
one thing, reconstructs them with DIR's model.onnx and the rules, neither of which is told, and
validates (docs/validation.md). A change that draws other random numbers than the detector as
configured gives other fluctuations too; errors are of the bootstrap over events. Prints a table;
the last line is one JSON object: figures by change and reconstruction.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from physics import CONFIG, Fresh, fresh

from particleforge.artefacts import write_json
from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ValidateSettings
from particleforge.errors import UserError
from particleforge.validation.metrics import compute_metrics
from particleforge.validation.validate import fill_histograms

RECONSTRUCTIONS = ("mlpf", "baseline")


def scaled(values: Any, key: str, factor: float) -> None:
    """Multiply every number called ``key`` in nested plain values."""
    for name, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            scaled(value, key, factor)
        elif name == key:
            values[name] = value * factor


def changed(detector: DetectorConfig) -> dict[str, DetectorConfig]:
    """Return the detector as it is, and with one thing changed at a time."""
    scales: dict[str, dict[str, float]] = {
        "as configured": {},
        "calorimeter energies +2 %": {"calibration": 1.02},
        "calorimeter energies -2 %": {"calibration": 0.98},
        "noise of cells doubled": {"noise_mev": 2.0, "noise_cells_per_event": 2.0},
        "2 % of tracks lost": {"efficiency": 0.98},
    }
    found = {}
    for name, factors in scales.items():
        plain = detector.model_dump(mode="json")
        for key, factor in factors.items():
            scaled(plain["calorimeter"], key, factor)
            scaled(plain["tracker"], key, factor)
        found[name] = DetectorConfig.model_validate(plain)
    plain = detector.model_dump(mode="json")
    for part in ("ecal", "hcal"):
        plain["calorimeter"][part]["dead_cells_fraction"] = 0.02
    found["2 % of cells dead"] = DetectorConfig.model_validate(plain)
    return found


def files_of(task: Fresh, folder: Path) -> tuple[Path, Path]:
    """Make the events of a task in a folder of their own; return selected and reconstructed."""
    folder.mkdir()
    selected = task.selected(folder)
    return selected, task.reconstructed(selected, task.models[0])


def validated(detector: DetectorConfig, model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the validation's figures of a model on fresh events in a detector."""
    tasks = list(fresh(detector, [model], options.events, options.seed))
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(min(options.processes, len(tasks)), mp_context=spawn) as pool,
    ):
        folders = [Path(name) / str(number) for number in range(len(tasks))]
        pairs = list(pool.map(files_of, tasks, folders))
        settings = ValidateSettings.of(load_run(CONFIG), detector)
        hists = fill_histograms(settings, *(list(side) for side in zip(*pairs, strict=True)))
    return compute_metrics(hists, settings)


def figures_of(metrics: dict[str, Any], reco: str) -> dict[str, float]:
    """Return what is compared, of one reconstruction; UserError where events do not suffice."""
    jets, energy = metrics["jets"]["inclusive"][reco], metrics["visible_energy"][reco]
    particles = metrics["particles"]
    if not (jets["response"]["resolution"] and energy["resolution"]):
        raise UserError("too few events for a resolution; raise --events")
    return {
        "jet_response": jets["response"]["median"]["value"],
        "jet_resolution": jets["response"]["resolution"]["value"],
        "jet_resolution_error": jets["response"]["resolution"]["error"],
        "missing_iqr_gev": metrics["met"]["inclusive"][reco]["component_residual"]["iqr"]["value"],
        "visible_energy": energy["median"]["value"],
        "visible_energy_resolution": energy["resolution"]["value"],
        **{f"fakes_{name}": particles[name][reco]["fake_rate"]["value"] for name in particles},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--store", type=Path, metavar="FILE", help="JSON to write, too")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    try:
        for name, detector in changed(load_detector(CONFIG, options.detector)).items():
            metrics = validated(detector, options.model / "model.onnx", options)
            found[name] = {reco: figures_of(metrics, reco) for reco in RECONSTRUCTIONS}
            for reco, figures in found[name].items():
                print(f"{name:28s} {reco:9s}", end="")
                print(*(f" {key} {value:.4f}" for key, value in figures.items()), flush=True)
    except UserError as error:
        sys.exit(str(error))
    result = {"events": options.events, "changes": found}
    if options.store:
        write_json(options.store, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
