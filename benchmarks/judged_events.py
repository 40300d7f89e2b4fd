"""Figures of reconstructed events, with errors from a paired bootstrap over events.

Inputs -> outputs: a selected and a reconstructed file -> ``Judged``, every response of its events
beside the number of its event; ``Judged`` of all files -> figures, each with its value in every
resampling. Views, jets, matching and sums are those of ``particleforge.validation``. All of an
event is drawn together, for all reconstructions and all models that judge the same events.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np

from particleforge.config.detector import DetectorConfig
from particleforge.validation.events import TRUTH, EventBatch, flat, read_pair
from particleforge.validation.gap import ONE_SIGMA
from particleforge.validation.jets import cluster, responses
from particleforge.validation.matching import match
from particleforge.validation.met import event_sums
from particleforge.validation.quantiles import MIN_ENTRIES

RECONSTRUCTIONS = ("ideal", "mlpf", "baseline")
N_RESAMPLINGS = 200
_ALSO = ("split", "tracks")
_CHARGED_HADRON = 211
_SEED = 1


@dataclass(frozen=True)
class Entries:
    """Values with the event of each, and for jets the true pT in GeV (else 0)."""

    values: np.ndarray
    event: np.ndarray
    true_pt: np.ndarray

    def where(self, kept: np.ndarray) -> "Entries":
        """Return some of the entries."""
        return Entries(self.values[kept], self.event[kept], self.true_pt[kept])


@dataclass(frozen=True)
class Judged:
    """Entries of events, by quantity and reconstruction.

    The quantities are ``jets`` and ``energy`` (over truth), ``missing`` (px and py, GeV beyond
    truth), and ``charged``, the pT over truth of the charged hadrons on tracks that were called so:
    of the model's candidate (``mlpf``) and of the track itself (``track``).
    """

    n_events: int
    deposits: bool
    entries: dict[tuple[str, str], Entries]


def judge(
    selected: Path, reconstructed: Path, detector: DetectorConfig, splits: Sequence[str]
) -> Judged:
    """Return the entries of a pair of files, of the events of some splits."""
    batches = read_pair(selected, reconstructed, also=_ALSO)
    return joined([_judge_batch(batch, detector, splits) for batch in batches])


def joined(parts: Iterable[Judged]) -> Judged:
    """Return parts as one, their events numbered one after the other."""
    parts = [part for part in parts if part.n_events]
    first = np.cumsum([0, *(part.n_events for part in parts)])
    names = dict.fromkeys(name for part in parts for name in part.entries)
    entries = {
        name: Entries(
            np.concatenate([part.entries[name].values for part in parts]),
            np.concatenate(
                [part.entries[name].event + n for part, n in zip(parts, first, strict=False)]
            ),
            np.concatenate([part.entries[name].true_pt for part in parts]),
        )
        for name in names
    }
    return Judged(int(first[-1]), any(part.deposits for part in parts), entries)


def _judge_batch(batch: EventBatch, detector: DetectorConfig, splits: Sequence[str]) -> Judged:
    found: dict[tuple[str, str], Entries] = {}
    truth = cluster(batch.weighted[TRUTH], detector.jets)
    true_x, true_y, true_energy = event_sums(batch.weighted[TRUTH])
    visible = np.flatnonzero(true_energy > 0)
    everyone = np.arange(batch.n_events)
    for reco in RECONSTRUCTIONS:
        jets = cluster(batch.weighted[reco], detector.jets)
        partner, _ = match(truth, jets, detector.jets.match_radius)
        response, true_pt = responses(truth, jets, partner, detector.jets)
        of_jets = _entries(response, true_pt)
        found["jets", reco] = of_jets.where(of_jets.true_pt >= detector.plots.jet_pt_edges_gev[0])
        x, y, energy = event_sums(batch.weighted[reco])
        found["energy", reco] = _plain(energy[visible] / true_energy[visible], visible)
        residuals = np.concatenate([x - true_x, y - true_y])
        found["missing", reco] = _plain(residuals, np.concatenate([everyone, everyone]))
    found |= _charged_hadrons(batch, detector)
    counted = np.isin(ak.to_numpy(batch.events.split), splits)
    number = np.cumsum(counted) - 1
    kept = {name: entries.where(counted[entries.event]) for name, entries in found.items()}
    return Judged(
        int(counted.sum()),
        bool(ak.any(batch.events.particles.deposited_energy[counted] > 0, axis=None)),
        {name: Entries(e.values, number[e.event], e.true_pt) for name, e in kept.items()},
    )


def _charged_hadrons(batch: EventBatch, detector: DetectorConfig) -> dict[tuple[str, str], Entries]:
    """Compare candidates on tracks with the tracks: same element, so no matching is needed."""
    pdgs = [c.pdg for c in detector.particle_classes]
    if _CHARGED_HADRON not in pdgs:
        return {}
    wanted = 1 + pdgs.index(_CHARGED_HADRON)
    events, found = batch.events, batch.views["mlpf"]
    on_track = (found.element >= 0) & (found.element < batch.n_elements["tracks"])
    found = found[on_track & (found.class_id == wanted)]
    found = found[events.targets.class_id[found.element] == wanted]
    particles = events.particles[events.targets.particle[found.element]]
    true_pt = np.hypot(particles.px, particles.py)
    track_pt = ak.values_astype(events.tracks.pt[found.element], np.float64)
    return {
        ("charged", "mlpf"): _entries(found.pt / true_pt, true_pt),
        ("charged", "track"): _entries(track_pt / true_pt, true_pt),
    }


def _entries(values: ak.Array, true_pt: ak.Array) -> Entries:
    event = np.repeat(np.arange(len(values)), ak.to_numpy(ak.num(values)))
    return Entries(flat(values), event, flat(true_pt))


def _plain(values: np.ndarray, event: np.ndarray) -> Entries:
    return Entries(values, event, np.zeros(len(values)))


class Figures:
    """Figures of all events: arrays whose first value is the figure, the others resampled ones.

    A figure that too few entries allow is NaN throughout.
    """

    def __init__(self, judged: Judged, detector: DetectorConfig) -> None:
        """Draw the resamplings, for equal numbers of events the same."""
        self._judged = judged
        shape = (N_RESAMPLINGS, judged.n_events)
        drawn = np.random.default_rng(_SEED).poisson(1.0, shape).astype(np.uint8)
        self._draws = np.concatenate([np.ones((1, judged.n_events), np.uint8), drawn])
        edges = detector.plots.jet_pt_edges_gev
        self.bins = list(itertools.pairwise(edges))

    def all(self) -> dict[str, np.ndarray]:
        """Return every figure by its name; those of bins have an axis of bins in front."""
        nothing = np.full(1 + N_RESAMPLINGS, np.nan)
        quartiles = {name: self._quartiles(e) for name, e in self._judged.entries.items()}
        width = {name: q[2] - q[0] for name, q in quartiles.items()}
        jets, energy = (
            {reco: _resolution(quartiles[quantity, reco]) for reco in RECONSTRUCTIONS}
            for quantity in ("jets", "energy")
        )
        if not self._judged.deposits:
            jets["ideal"] = energy["ideal"] = nothing
        return {
            "jet_resolution": jets["mlpf"],
            "baseline": jets["baseline"],
            "ideal": jets["ideal"],
            "gap_closed": _share(jets),
            "visible_energy_ratio": _over(energy["mlpf"], energy["baseline"]),
            "visible_energy_gap_closed": _share(energy),
            "met_ratio": _over(width["missing", "mlpf"], width["missing", "baseline"]),
            "charged_pt_ratio": _over(
                width.get(("charged", "mlpf"), nothing), width.get(("charged", "track"), nothing)
            ),
            **self._in_bins(),
        }

    def _in_bins(self) -> dict[str, np.ndarray]:
        ratios, medians = [], []
        for low, high in self.bins:
            quartiles = {}
            for reco in ("mlpf", "baseline"):
                entries = self._judged.entries["jets", reco]
                inside = (entries.true_pt >= low) & (entries.true_pt < high)
                quartiles[reco] = self._quartiles(entries.where(inside))
            medians.append(quartiles["mlpf"][1])
            ratios.append(_over(*(_resolution(found) for found in quartiles.values())))
        return {"bin_ratio": np.stack(ratios), "bin_median": np.stack(medians)}

    def _quartiles(self, entries: Entries) -> np.ndarray:
        """Return the quartiles in all resamplings, [3, 1 + n]."""
        found = np.full((3, 1 + N_RESAMPLINGS), np.nan)
        if len(entries.values) < MIN_ENTRIES:
            return found
        order = np.argsort(entries.values)
        values, event = entries.values[order], entries.event[order]
        for number, draw in enumerate(self._draws):
            counted = np.cumsum(draw[event], dtype=np.int64)
            if counted[-1]:
                places = np.searchsorted(counted, np.array([0.25, 0.5, 0.75]) * counted[-1])
                found[:, number] = values[places]
        return found


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the ratio, NaN where ``whole`` is not above 0."""
    ratio = np.full(len(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _resolution(quartiles: np.ndarray) -> np.ndarray:
    """Return IQR / median."""
    return _over(quartiles[2] - quartiles[0], quartiles[1])


def _share(resolution: dict[str, np.ndarray]) -> np.ndarray:
    """Return the share of the gap from baseline to ideal that is closed, NaN without a gap."""
    gap = resolution["baseline"] - resolution["ideal"]
    return _over(resolution["baseline"] - resolution["mlpf"], gap)


def measured(models: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of a figure over models, its error from events and that from the models.

    ``models`` [n_models, 1 + n]. The first error is half of the central 68.3 % of the resampled
    means, the second the standard error over models, 0 for one.
    """
    mean = models.mean(axis=0)
    known = mean[1:][np.isfinite(mean[1:])]
    if np.isnan(mean[0]) or not len(known):
        return float("nan"), float("nan"), float("nan")
    low, high = np.quantile(known, ONE_SIGMA)
    n = len(models)
    spread = np.std(models[:, 0], ddof=1) / np.sqrt(n) if n > 1 else 0.0
    return float(mean[0]), float(high - low) / 2, float(spread)
