"""How well models reconstruct, against the rules and against ideal particle flow.

    python benchmarks/physics.py RESULTS_DIR... [--detector NAME] [--sample NAME]...
    python benchmarks/physics.py --model DIR... --events N --seed S [--detector clic]

The first judges finished runs: RESULTS_DIR is results/<detector>, with select/ and reco/; test
events count. The second simulates about N events that no training saw, split over the detector's
samples, reconstructs them with each DIR's model.onnx and judges all of them; S gives other events,
never those of a workflow, whatever its seed. Several folders are trainings of one thing from
different seeds: figures are means over them. Without ``--sample`` all samples count that are not
``held_out``.

Jets, matching and sums are the validation's (docs/validation.md); resolution is IQR / median.
Errors are from a paired bootstrap over events; with several models the standard error over them is
added in quadrature. A bin counts if the error from events of its ratio is below 0.04.

* jet_resolution (MLPF), baseline, ideal: of jets above the first edge of plots.jet_pt_edges_gev;
* gap_closed: (baseline - MLPF) / (baseline - ideal), also of the visible energy;
* worst_bin_ratio: the largest MLPF / baseline of the resolution over bins of true pT that count;
* visible_energy_ratio, met_ratio: MLPF / baseline, of the resolution of the visible energy, of the
  IQR of missing px and py;
* charged_pt_ratio: IQR of pT over truth of charged-hadron candidates on tracks of charged hadrons,
  over that of these tracks themselves;
* median_within_1_percent: whether MLPF's median response is in every bin that counts.

Prints tables; the last line is one JSON object of figures, null where events do not suffice.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from judged_events import Figures, Judged, joined, judge, measured

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.run import RunConfig
from particleforge.config.settings import (
    ReconstructSettings,
    SelectSettings,
    dataset_settings,
    simulate_settings,
)
from particleforge.dataset.build import build_dataset
from particleforge.errors import UserError
from particleforge.paths import SHARD_FORMAT, SPLITS, Paths
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.seeds import seed_of
from particleforge.selection.select import select_events
from particleforge.simulation.simulate import simulate_events
from particleforge.tables import parquet

CONFIG = Path(__file__).parents[1] / "config"
EVENTS_PER_FILE = 250
ERROR_OF_BIN_MAX = 0.04
BIAS_MAX = 0.01
SINGLE = (
    *("jet_resolution", "baseline", "ideal", "gap_closed"),
    *("visible_energy_ratio", "visible_energy_gap_closed", "met_ratio", "charged_pt_ratio"),
)


@dataclass(frozen=True)
class Pair:
    """A finished pair of files to judge."""

    selected: Path
    reconstructed: Path
    detector: DetectorConfig

    def judged(self) -> list[Judged]:
        """Return the test events of the one model that there is."""
        return [judge(self.selected, self.reconstructed, self.detector, ("test",))]


@dataclass(frozen=True)
class Fresh:
    """A file of events to simulate, reconstruct with each model, and judge."""

    run: RunConfig
    sample: str
    number: int
    detector: DetectorConfig
    models: tuple[Path, ...]

    def judged(self) -> list[Judged]:
        """Return all events, as each model reconstructs them; no file is left."""
        with tempfile.TemporaryDirectory() as name:
            selected = self.selected(Path(name))
            return [
                judge(selected, self.reconstructed(selected, model), self.detector, SPLITS)
                for model in self.models
            ]

    def selected(self, folder: Path) -> Path:
        """Simulate the events into an empty folder; return the file of the selected ones."""
        run, detector = self.run, self.detector
        simulated, built, selected = folder / "sim.root", folder / "built", folder / "selected"
        simulate_events(
            simulate_settings(run, detector, self.sample),
            SHARD_FORMAT.format(self.number),
            simulated,
        )
        build_dataset(dataset_settings(run, detector, self.sample), [simulated], built)
        select_events(
            SelectSettings.of(run, detector, sample_name=self.sample),
            dataset=built,
            output=selected,
            cutflow=folder / "cutflow.json",
        )
        return selected

    def reconstructed(self, selected: Path, model: Path) -> Path:
        """Return the events as a model reconstructs them, a file beside theirs."""
        found = selected.with_name("reconstructed")
        reconstruct_events(
            ReconstructSettings.of(self.run, self.detector),
            events=selected,
            model=model,
            output=found,
            edm4hep=selected.with_name("reconstructed.root"),
        )
        return found


def is_held_out(selected: Path) -> bool:
    """Return whether a selected file is of a sample that training never saw, as the file says."""
    made = parquet.read_metadata(selected, parquet.SELECTED).get("provenance", {})
    return bool(made.get("settings", {}).get("held_out", False))


def finished(folder: Path, detector: DetectorConfig, samples: Collection[str] = ()) -> list[Pair]:
    """Return the pairs of files of one run; UserError where there are none."""
    folder = folder.absolute()
    paths, name = Paths(str(folder.parent)), folder.name
    pattern = paths.reconstructed.format(detector=name, sample="*", shard="*")
    pairs, missing = [], set(samples)
    for found in sorted(folder.glob(str(Path(pattern).relative_to(folder)))):
        parts = {"detector": name, "sample": found.parent.name, "shard": found.stem}
        selected = Path(paths.selected.format(**parts))
        if parts["sample"] in samples if samples else not is_held_out(selected):
            pairs.append(Pair(selected, found, detector))
            missing.discard(parts["sample"])
    if missing or not pairs:
        of = f" of {' or '.join(sorted(missing))}" if missing else ""
        raise UserError(
            f"{folder}: has no {pattern}{of}; give the folder results/<detector> of a run"
        )
    return pairs


def fresh(
    detector: DetectorConfig,
    models: Iterable[Path],
    n_events: int,
    seed: int,
    samples: Collection[str] = (),
) -> Iterator[Fresh]:
    """Yield the files to simulate, at least ``n_events`` in all, by the samples' fractions."""
    judged = {
        name: sample
        for name, sample in detector.samples.items()
        if (name in samples if samples else not sample.held_out)
    }
    if missing := sorted(set(samples) - set(judged)):
        raise UserError(f"{', '.join(missing)}: no sample of the detector")
    whole = sum(sample.fraction for sample in judged.values())
    for name, sample in judged.items():
        wanted = math.ceil(n_events * sample.fraction / whole)
        n_files = math.ceil(wanted / EVENTS_PER_FILE)
        chosen = {
            "seed": seed_of("benchmarks/physics.py", seed),
            "simulation": {"events_per_shard": math.ceil(wanted / n_files)},
            "reconstruction": {"splits": list(SPLITS)},
        }
        run = load_run(CONFIG, chosen)
        for number in range(n_files):
            yield Fresh(run, name, number, detector, tuple(models))


def judge_all(tasks: list[Any], processes: int) -> list[Judged]:
    """Return the events of all tasks, one ``Judged`` per model."""
    if processes == 1:
        found = [_judged(task) for task in tasks]
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=spawn) as pool:
            found = list(pool.map(_judged, tasks))
    judged = [joined(parts) for parts in zip(*found, strict=True)]
    if not all(one.n_events for one in judged):
        raise UserError("no event to judge; reconstruct events of the split test, or more of them")
    return judged


def _judged(task: Pair | Fresh) -> list[Judged]:
    return task.judged()


def summarise(judged: list[Judged], detector: DetectorConfig) -> dict[str, Any]:
    """Print and return the figures of models, each with its error."""
    of_models = [Figures(one, detector) for one in judged]
    every = [figures.all() for figures in of_models]
    found: dict[str, Any] = {
        "n_models": len(judged),
        "n_events": [one.n_events for one in judged],
    }
    print(f"{len(judged)} models, {found['n_events']} events")
    print(f"{'':<28}{'value':>9}{'error':>9}  (events, models)")
    for name in SINGLE:
        _enter(found, name, *measured(np.stack([figures[name] for figures in every])))
    _enter_bins(found, of_models[0].bins, every)
    return found


def _enter(found: dict[str, Any], name: str, value: float, events: float, models: float) -> None:
    """Print a figure and enter it with its whole error."""
    error = math.hypot(events, models)
    known = math.isfinite(value)
    found |= {name: value if known else None, f"{name}_error": error if known else None}
    parts = f"  ({events:.4f}, {models:.4f})" if known else ""
    print(f"{name:<28}{_text(value):>9}{_text(error):>9}{parts}")


def _text(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _unbiased(median: tuple[float, float, float]) -> bool:
    return abs(median[0] - 1) <= BIAS_MAX


def _enter_bins(
    found: dict[str, Any], bins: list[tuple[float, float]], every: list[dict[str, np.ndarray]]
) -> None:
    """Print and enter the bins of pT, the worst of those that count, and whether all are true."""
    ratios, medians = (
        [measured(np.stack([figures[name][i] for figures in every])) for i in range(len(bins))]
        for name in ("bin_ratio", "bin_median")
    )
    counts = [math.isfinite(value) and error < ERROR_OF_BIN_MAX for value, error, _ in ratios]
    counted = [i for i in range(len(bins)) if counts[i]]
    worst = max((ratios[i] for i in counted), default=(math.nan, math.nan, math.nan))
    _enter(found, "worst_bin_ratio", *worst)
    found["median_within_1_percent"] = (
        all(_unbiased(medians[i]) for i in counted) if counted else None
    )
    print("\ntrue pT of jet [GeV]    MLPF / baseline      median response   counts")
    found["bins"] = []
    for (low, high), ratio, median, count in zip(bins, ratios, medians, counts, strict=True):
        row: dict[str, Any] = {"low": low, "high": high, "counts": count}
        row["within_1_percent"] = _unbiased(median)
        text = f"{low:>9g} - {high:<9g}"
        for name, (value, events, models) in (("ratio", ratio), ("median", median)):
            error, known = math.hypot(events, models), math.isfinite(value)
            row |= {name: value if known else None, f"{name}_error": error if known else None}
            text += f"{_text(value):>11} +- {_text(error):<6}"
        found["bins"].append(row)
        print(f"{text}   {'yes' if count else 'no'}")
    print()


def main(arguments: list[str] | None = None) -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--model", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--events", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--detector", help="default: the name of RESULTS_DIR, else clic")
    parser.add_argument("--sample", action="append", default=[], metavar="NAME")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(arguments)
    if bool(options.results) == bool(options.model):
        parser.error("give either RESULTS_DIR or --model DIR")
    names = {folder.absolute().name for folder in options.results} or {"clic"}
    if len(names) > 1 and not options.detector:
        parser.error(f"runs of several detectors: {', '.join(sorted(names))}")
    try:
        detector = load_detector(CONFIG, options.detector or names.pop())
        if options.results:
            judged = [
                judge_all(finished(folder, detector, options.sample), options.processes)[0]
                for folder in options.results
            ]
        else:
            models = [folder / "model.onnx" for folder in options.model]
            tasks = list(fresh(detector, models, options.events, options.seed, options.sample))
            judged = judge_all(tasks, options.processes)
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps(summarise(judged, detector), allow_nan=False))


if __name__ == "__main__":
    main()
