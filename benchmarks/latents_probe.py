"""Whether a model's latents know more of a jet's energy than the jet itself: a linear probe.

    python benchmarks/latents_probe.py --model MODEL.onnx SELECTED... [--detector clic]

MODEL.onnx was exported with export.latents, SELECTED are files of selected events. Reconstructs the
events of the splits valid and test, and fits log(true energy / energy) of matched jets on those of
valid, twice: by the logarithm of the jet's energy alone, and by it and the mean of the latents of
the jet's candidates, weighted by pT times weight (ridge regression, its strength by leave-one-out).
Latents: after Mokhtar et al., arXiv:2606.14373.

Jets, matching and cuts are the validation's (docs/validation.md). Prints, for jets of the test
split, the resolution (IQR / median) of their energy over the true one as reconstructed and with
either correction, and the ratio of the corrected ones; errors are of a paired bootstrap over
events. The last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import awkward as ak
import numpy as np
from judged_events import N_RESAMPLINGS
from physics import CONFIG, is_held_out
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from particleforge.config.detector import DetectorConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ReconstructSettings
from particleforge.errors import UserError
from particleforge.reconstruction.reconstruct import reconstruct_events
from particleforge.tables import parquet
from particleforge.validation.events import TRUTH, EventBatch, flat, read_pair
from particleforge.validation.jets import cluster, constituents
from particleforge.validation.matching import match

FIT, JUDGE = "valid", "test"
STRENGTHS = np.logspace(-2, 5, 29)


class Jets(NamedTuple):
    """Matched jets, one after another."""

    event: np.ndarray  # its identity
    judged: np.ndarray  # whether of the test split, else of that to fit on
    energy: np.ndarray  # GeV
    true_energy: np.ndarray  # GeV
    latents: np.ndarray  # [n, width], means over candidates


def jets_of(batch: EventBatch, latents: ak.Array, detector: DetectorConfig) -> Jets:
    """Return a batch's jets of the model that the validation would count.

    ``latents`` are those of all candidates.
    """
    settings, particles = detector.jets, batch.weighted["mlpf"]
    truth, jets = cluster(batch.weighted[TRUTH], settings), cluster(particles, settings)
    partner, _ = match(truth, jets, settings.match_radius)
    counted = (
        (partner >= 0)
        & (abs(truth.eta) < settings.abs_eta_max)
        & (truth.pt >= detector.plots.jet_pt_edges_gev[0])
    )
    chosen = partner[counted]
    event = np.repeat(np.arange(batch.n_events), ak.to_numpy(ak.num(chosen)))
    members = ak.flatten(constituents(particles, settings)[chosen])
    sizes = ak.to_numpy(ak.num(members))
    counts = ak.to_numpy(ak.num(particles))
    candidate = flat(members) + np.repeat((np.cumsum(counts) - counts)[event], sizes)
    energy = flat(jets.energy[chosen])
    first = np.cumsum(sizes) - sizes
    summed = np.add.reduceat(flat(particles.energy)[candidate], first)
    assert np.allclose(summed, energy, rtol=1e-4)  # the jets' own candidates
    factor = flat(particles.pt)[candidate, None]  # of the momentum times the weight
    values = flat(latents).astype(np.float64)[candidate]
    means = np.add.reduceat(values * factor, first) / np.add.reduceat(factor, first)
    return Jets(
        ak.to_numpy(batch.events.event_id)[event],
        (ak.to_numpy(batch.events.split) == JUDGE)[event],
        energy,
        flat(truth.energy[counted]),
        means,
    )


def reconstructed(selected: Path, model: Path, detector: DetectorConfig) -> Iterator[Jets]:
    """Reconstruct a file's events and yield their jets, batch by batch."""
    asked = {"reconstruction": {"splits": [FIT, JUDGE], "latents": True}}
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "reconstructed.parquet"
        reconstruct_events(
            ReconstructSettings.of(load_run(CONFIG, asked), detector),
            events=selected,
            model=model,
            output=found,
            edm4hep=found.with_suffix(".root"),
        )
        stored = parquet.read_table(found, ["event_id", "latents"])
        ids = ak.to_numpy(stored.event_id)
        order = np.argsort(ids)
        for batch in read_pair(selected, found, also=("split",)):
            wanted = ak.to_numpy(batch.events.event_id)
            rows = order[np.searchsorted(ids, wanted, sorter=order)]
            yield jets_of(batch, stored.latents[rows], detector)


def corrected(jets: Jets) -> dict[str, np.ndarray]:
    """Return the test split's energies over the true ones, by what they are corrected with."""
    own = np.log(jets.energy)[:, None]
    target = np.log(jets.true_energy / jets.energy)
    response = jets.energy[jets.judged] / jets.true_energy[jets.judged]
    found = {"uncorrected": response}
    for name, inputs, model in (
        ("own energy", own, LinearRegression()),
        ("own energy and latents", np.hstack([own, jets.latents]), RidgeCV(STRENGTHS)),
    ):
        fitted = make_pipeline(StandardScaler(), model)
        fitted.fit(inputs[~jets.judged], target[~jets.judged])
        found[name] = response * np.exp(fitted.predict(inputs[jets.judged]))
    return found


def resolutions(values: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Return IQR / median, of the values as they are and of events drawn anew each time."""
    _, number = np.unique(event, return_inverse=True)
    random = np.random.default_rng(1)
    found = []
    for draw in range(1 + N_RESAMPLINGS):
        times = random.poisson(1.0, number.max() + 1)[number] if draw else 1
        low, median, high = np.percentile(np.repeat(values, times), (25, 50, 75))
        found.append((high - low) / median)
    return np.array(found)


def main() -> None:
    """Reconstruct, fit, judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("selected", nargs="+", type=Path, metavar="SELECTED")
    parser.add_argument("--model", type=Path, required=True, metavar="MODEL.onnx")
    parser.add_argument("--detector", default="clic")
    options = parser.parse_args()
    detector = load_detector(CONFIG, options.detector)
    try:
        parts = [
            jets
            for selected in options.selected
            if not is_held_out(selected)
            for jets in reconstructed(selected, options.model, detector)
        ]
    except UserError as error:
        sys.exit(str(error))
    judged = np.concatenate([np.zeros(0, bool), *(one.judged for one in parts)])
    if judged.all() or not judged.any():
        sys.exit("too few events: no jets to fit, or none to judge; give more")
    jets = Jets(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    event = jets.event[jets.judged]
    every = {name: resolutions(values, event) for name, values in corrected(jets).items()}
    every["ratio"] = every["own energy and latents"] / every["own energy"]
    result: dict[str, float] = {
        "jets_fitted": int((~jets.judged).sum()),
        "jets_judged": len(event),
        "events_judged": len(np.unique(event)),
        "latents": jets.latents.shape[1],
    }
    for name, (value, *drawn) in every.items():
        spread = float(np.std(drawn, ddof=1))
        print(f"{name:24s} {value:.4f} +- {spread:.4f}")
        key = name.replace(" ", "_")
        result |= {key: float(value), f"{key}_error": spread}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
