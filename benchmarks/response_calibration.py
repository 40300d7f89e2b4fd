"""Does a calibration of candidates' energies, fitted after training, pay in jets?

    python benchmarks/response_calibration.py RESULTS_DIR

RESULTS_DIR is results/<detector> of a finished run: select/, reco/ and export/. Events of the split
valid are reconstructed with the exported model; on them factors are fitted for candidates of each
neutral class as a function of the candidate's energy, for the network and the rules alike. Test
events, as the run reconstructed them, are judged without and with the factors. Tracks set the
momenta of all other classes, whose factor is 1. Two fits:

* pairs: the median of true over reconstructed energy of pairs of the same class, matched as the
  validation does (docs/validation.md), in bins of equal numbers of pairs; a class of fewer than
  MIN_PAIRS pairs is left alone;
* sums: the factors at KNOTS_GEV for which the events' energy sums come closest to the truth
  (soft L1 loss, in units of the square root of the true sum).

Between bins or knots factors are interpolated in log energy, beyond them they are constant. Errors
are from a paired bootstrap over events; "over none" compares with the same events as they are.
Prints tables; the last line is one JSON object of figures by fit and reconstruction.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from judged_events import Figures, Judged, joined, judge_batch, resolution
from physics import CONFIG, Pair, finished
from scipy.optimize import least_squares

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ReconstructSettings
from particleforge.errors import UserError
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.validation.events import TRUTH, EventBatch, flat, read_pair
from particleforge.validation.matching import match
from particleforge.validation.met import event_sums
from particleforge.validation.particles import LOG_PT_SCALE

RECONSTRUCTIONS = ("mlpf", "baseline")
MIN_PAIRS = 200
PAIRS_PER_BIN = 100
BINS_MAX = 10
KNOTS_GEV = (0.5, 2.0, 8.0, 32.0)
WIDTH_OF_SUMS = 0.5  # residuals beyond, in square roots of GeV, count linearly
ERROR_OF_MEDIAN_MAX = 0.005  # a bin of jets' pT counts below
_ALSO = ("split", "tracks")
_SCALED = ("px", "py", "pz", "energy", "pt")
RADIUS = load_run(CONFIG).validation.match_radius


@dataclass(frozen=True)
class Curve:
    """Factors at logarithms of a candidate's energy in GeV."""

    log_energy: np.ndarray
    factor: np.ndarray

    def at(self, energy: np.ndarray) -> np.ndarray:
        """Return the factors at some energies."""
        found: np.ndarray = np.interp(
            np.log(np.maximum(energy, 1e-9)), self.log_energy, self.factor
        )
        return found


Curves = dict[int, Curve]  # by class id


def events_of(batch: EventBatch, split: str) -> EventBatch:
    """Return the events of one split."""
    kept = ak.to_numpy(batch.events.split == split)
    return replace(
        batch,
        n_events=int(kept.sum()),
        views={name: view[kept] for name, view in batch.views.items()},
        weighted={name: view[kept] for name, view in batch.weighted.items()},
        n_elements={name: n[kept] for name, n in batch.n_elements.items()},
        candidates=batch.candidates[kept],
        events=batch.events[kept],
        weights=batch.weights[kept],
    )


def pairs_of(batch: EventBatch, reco: str) -> np.ndarray:
    """Return class, energy and true energy of candidates matched to their class, [3, n]."""
    truth, found = batch.views[TRUTH], batch.views[reco]
    _, partner = match(truth, found, RADIUS, LOG_PT_SCALE)
    found, true = found[partner >= 0], truth[partner[partner >= 0]]
    same = flat(found.class_id == true.class_id)
    return np.stack([flat(found.class_id), flat(found.energy), flat(true.energy)])[:, same]


def fit_to_pairs(batches: Sequence[EventBatch], reco: str, classes: dict[int, str]) -> Curves:
    """Return the curves of the classes that have pairs enough; say which have not."""
    class_id, energy, true = np.concatenate([pairs_of(batch, reco) for batch in batches], axis=1)
    curves = {}
    for number, name in classes.items():
        own = class_id == number
        if own.sum() < MIN_PAIRS:
            print(f"{reco}: {name} is left alone: {own.sum()} pairs, fewer than {MIN_PAIRS}")
            continue
        order = np.argsort(energy[own])
        n_bins = min(BINS_MAX, int(own.sum()) // PAIRS_PER_BIN)
        bins = np.array_split(order, n_bins)
        ratio = true[own] / energy[own]
        curves[number] = Curve(
            np.log([np.median(energy[own][which]) for which in bins]),
            np.array([np.median(ratio[which]) for which in bins]),
        )
    return curves


def fit_to_sums(batches: Sequence[EventBatch], reco: str, classes: dict[int, str]) -> Curves:
    """Return the curves for which sums over events come closest to the truth."""
    n_knots, knots = len(KNOTS_GEV), np.log(KNOTS_GEV)
    parts, wanted = [], []
    for batch in batches:
        view, own = batch.weighted[reco], _candidates(batch, reco).energy
        _, _, true = event_sums(batch.weighted[TRUTH])
        shares = [Curve(knots, one).at(flat(own)) for one in np.eye(n_knots)]
        columns = [
            ak.to_numpy(ak.sum(ak.unflatten(share * flat(energy), ak.num(own)), axis=1))
            for energy in (view.energy * (view.class_id == number) for number in classes)
            for share in shares
        ]
        found = np.stack(columns, axis=1)
        rest = ak.to_numpy(ak.sum(view.energy, axis=1)) - found.sum(axis=1)
        unit = np.sqrt(true[true > 0])
        parts.append(found[true > 0] / unit[:, None])
        wanted.append((true - rest)[true > 0] / unit)
    part, whole = np.concatenate(parts), np.concatenate(wanted)
    start = np.ones(part.shape[1])
    fit = least_squares(lambda f: part @ f - whole, start, loss="soft_l1", f_scale=WIDTH_OF_SUMS)
    factors = fit.x.reshape(len(classes), n_knots)
    return {number: Curve(knots, own) for number, own in zip(classes, factors, strict=True)}


def corrected(batch: EventBatch, curves: dict[str, Curves]) -> EventBatch:
    """Return the batch with the candidates of each reconstruction times their factors."""
    views, weighted = dict(batch.views), dict(batch.weighted)
    for reco, own in curves.items():
        views[reco] = _times(views[reco], views[reco].energy, own)
        weighted[reco] = _times(weighted[reco], _candidates(batch, reco).energy, own)
    return replace(batch, views=views, weighted=weighted)


def _candidates(batch: EventBatch, reco: str) -> ak.Array:
    """Return those of sums, their energies not yet times weights."""
    return batch.candidates if reco == "mlpf" else batch.views[reco]


def _times(view: ak.Array, energy: ak.Array, curves: Curves) -> ak.Array:
    factors, class_id = np.ones(len(flat(energy))), flat(view.class_id)
    for number, curve in curves.items():
        own = class_id == number
        factors[own] = curve.at(flat(energy)[own])
    of_event = ak.unflatten(factors, ak.num(energy))
    for name in _SCALED:
        view = ak.with_field(view, view[name] * of_event, name)
    return view


def reconstructed(pairs: list[Pair], model: Path, folder: Path) -> Iterator[EventBatch]:
    """Yield the valid events of all shards, reconstructed into ``folder``."""
    run = load_run(CONFIG, {"reconstruction": {"splits": ["valid"]}})
    for number, pair in enumerate(pairs):
        output = folder / f"{number}.parquet"
        reconstruct_events(
            ReconstructSettings.of(run, pair.detector),
            events=pair.selected,
            model=model,
            output=output,
            edm4hep=output.with_suffix(".root"),
        )
        for batch in read_pair(pair.selected, output, also=_ALSO):
            yield events_of(batch, "valid")


def figures_of(judged: Judged, detector: DetectorConfig) -> dict[str, dict[str, np.ndarray]]:
    """Return figures by reconstruction, each with its value in every resampling."""
    figures = Figures(judged, detector)
    found = {}
    for reco in RECONSTRUCTIONS:
        jets, energy, missing = (
            figures.quartiles(judged.entries[name, reco]) for name in ("jets", "energy", "missing")
        )
        entries, medians = judged.entries["jets", reco], []
        for low, high in figures.bins:
            inside = (entries.true_pt >= low) & (entries.true_pt < high)
            median = figures.quartiles(entries.where(inside))[1]
            if np.std(median) < ERROR_OF_MEDIAN_MAX:  # false for NaN
                medians.append(median)
        found[reco] = {
            "jet_resolution": resolution(jets),
            "jet_response": jets[1],
            "jet_response_worst_bin": max(medians, key=lambda m: abs(m[0] - 1), default=jets[1]),
            "visible_energy_resolution": resolution(energy),
            "visible_energy": energy[1],
            "missing_iqr_gev": missing[2] - missing[0],
        }
    return found


def shown(
    fits: dict[str, dict[str, dict[str, np.ndarray]]],
    particles: dict[str, dict[str, dict[str, float]]],
) -> dict[str, Any]:
    """Print and return all figures, with errors and ratios to those of the fit "none"."""
    result: dict[str, Any] = {}
    for reco in RECONSTRUCTIONS:
        for fit, figures in fits.items():
            print(f"\n{reco}, factors fitted to {fit}")
            own: dict[str, float] = {}
            for name, values in figures[reco].items():
                ratio = values / fits["none"][reco][name]
                own |= {name: values[0], f"{name}_error": float(np.std(values[1:]))}
                own |= {f"{name}_over_none": ratio[0]}
                own |= {f"{name}_over_none_error": float(np.std(ratio[1:]))}
                print(f"    {name:<28}{values[0]:8.4f} +- {np.std(values[1:]):.4f}", end="")
                print(f"    over none {ratio[0]:.4f} +- {np.std(ratio[1:]):.4f}")
            for name, value in particles[fit][reco].items():
                own[f"response_{name}"] = value
                print(f"    median response of pairs, {name}: {value:.4f}")
            result.setdefault(fit, {})[reco] = {k: float(v) for k, v in own.items()}
    return result


def main() -> None:
    """Fit, judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR")
    options = parser.parse_args()
    results: Path = options.results.absolute()
    try:
        detector = load_detector(CONFIG, results.name)
        pairs = finished(results, detector)
        with tempfile.TemporaryDirectory() as folder:
            model = results / "export" / "model.onnx"
            valid = list(reconstructed(pairs, model, Path(folder)))
    except UserError as error:
        sys.exit(str(error))
    known = enumerate(detector.particle_classes, start=1)
    classes = {number: one.name for number, one in known if not one.charged}
    fits: dict[str, dict[str, Curves]] = {
        "none": {reco: {} for reco in RECONSTRUCTIONS},
        "pairs": {reco: fit_to_pairs(valid, reco, classes) for reco in RECONSTRUCTIONS},
        "sums": {reco: fit_to_sums(valid, reco, classes) for reco in RECONSTRUCTIONS},
    }
    for fit, curves in fits.items():
        for reco in RECONSTRUCTIONS:
            for number, curve in curves[reco].items():
                energies = np.round(np.exp(curve.log_energy), 2).tolist()
                print(f"{fit}, {reco}, {classes[number]}: at {energies} GeV", end="")
                print(f" {np.round(curve.factor, 3).tolist()}")
    test = [
        events_of(batch, "test")
        for pair in pairs
        for batch in read_pair(pair.selected, pair.reconstructed, also=_ALSO)
    ]
    figures, particles = {}, {}
    for fit, curves in fits.items():
        batches = [corrected(batch, curves) for batch in test]
        judged = joined([judge_batch(batch, detector, ("test",)) for batch in batches])
        figures[fit] = figures_of(judged, detector)
        particles[fit] = {reco: _responses(batches, reco, classes) for reco in RECONSTRUCTIONS}
    print(f"{sum(b.n_events for b in valid)} valid, {sum(b.n_events for b in test)} test events")
    print(json.dumps(shown(figures, particles), allow_nan=False))


def _responses(
    batches: Sequence[EventBatch], reco: str, classes: dict[int, str]
) -> dict[str, float]:
    """Return the median of reconstructed over true energy of pairs, by class."""
    class_id, energy, true = np.concatenate([pairs_of(batch, reco) for batch in batches], axis=1)
    ratio = energy / true
    return {name: float(np.median(ratio[class_id == n])) for n, name in classes.items()}


if __name__ == "__main__":
    main()
