"""The model against the baseline on the same events, and the share of the gap to ideal it closes.

Inputs -> outputs: responses of a batch -> counts in the resampled histograms; these -> a ratio, or
a share, with its statistical error.

The ratio is that of resolutions, mlpf / baseline. The share is (baseline - mlpf) / (baseline -
ideal): 0 where the model is as wide as the baseline, 1 where it is as narrow as right assignments
make measured energies. The resolutions come from the same events, so their errors must not be taken
for independent: all of an event is drawn together. Each resampling counts an event as often as a
Poisson number of mean 1 says, which is the bootstrap over events without knowing their number
beforehand (Chamandy et al., "Estimating Uncertainty for Massive Data Streams", 2012), times the
event's weight. The numbers follow from the seed and the first event of a batch, not from the order
of files.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from particleforge.config.settings import ValidateSettings
from particleforge.seeds import generator_of
from particleforge.validation.events import EventBatch
from particleforge.validation.histograms import Hists, inside_of
from particleforge.validation.quantiles import MIN_ENTRIES, Floats, quantiles, without_negative

ONE_SIGMA = (0.1585, 0.8415)
Draws = npt.NDArray[np.float64]  # [n_resamplings, n_events], what each event weighs in each


def draw_events(batch: EventBatch, settings: ValidateSettings) -> Draws:
    """Return what each event of a batch weighs in each resampling."""
    first = int(batch.events.event_id[0])
    generator = generator_of(settings.seed, "validate", "resampling", batch.sample, first)
    drawn = generator.poisson(1.0, (settings.validation.n_bootstrap, batch.n_events))
    return np.asarray(drawn * batch.weights)


def fill_resampled(
    hists: Hists,
    name: str,
    values: npt.NDArray[np.float64],
    events: npt.NDArray[np.int64],
    draws: Draws,
    **where: str,
) -> None:
    """Fill the resampled histogram of a response with ``values`` of the batch's ``events``."""
    histogram = hists[f"{name}_resampled_fine"]
    resampling, entry = np.nonzero(draws[:, events])
    histogram.fill(
        **where,
        resampling=resampling,
        response=inside_of(histogram.axes[-1], values)[entry],
        weight=draws[resampling, events[entry]],
    )


def over_baseline(
    counts: dict[str, np.ndarray], edges: Floats, n_effective: float
) -> dict[str, Any] | None:
    """Return ``{"value", "error"}`` of the resolution of mlpf over that of the baseline, or None.

    Arguments as for ``gap_closed``; the error is the standard deviation over resamplings.
    """
    found = _resolutions([counts[name] for name in ("mlpf", "baseline")], edges, n_effective)
    if found is None or not (found[1] > 0).all():
        return None
    ratio = found[0] / found[1]
    return {"value": float(ratio[0]), "error": float(np.std(ratio[1:], ddof=1))}


def gap_closed(
    counts: dict[str, np.ndarray], edges: Floats, n_effective: float
) -> dict[str, Any] | None:
    """Return ``{"value", "error"}`` of the share that mlpf closes, or None.

    ``counts`` has of ideal, mlpf and baseline those of all entries, then those of each resampling,
    [1 + n_resamplings, bins]; ``n_effective`` is the least number of entries of the three. There is
    no share where these are too few, or the baseline is no wider than ideal. The error is half of
    the central interval of 68.3 %: a ratio whose denominator comes near 0 has no standard
    deviation.
    """
    found = _resolutions(
        [counts[name] for name in ("ideal", "mlpf", "baseline")], edges, n_effective
    )
    if found is None:
        return None
    ideal, mlpf, baseline = found
    if baseline[0] <= ideal[0]:
        return None
    known = baseline > ideal
    share = (baseline[known] - mlpf[known]) / (baseline[known] - ideal[known])
    low, high = np.quantile(share, ONE_SIGMA)
    return {"value": float(share[0]), "error": float(high - low) / 2}


def _resolutions(
    counts: list[np.ndarray], edges: Floats, n_effective: float
) -> npt.NDArray[np.float64] | None:
    """Return IQR / median of reconstructions [n, 1 + resamplings], None of too few entries.

    Of a handful of events a resampling may count none; it is left out.
    """
    stacked = np.stack(counts)
    total = stacked.sum(axis=2)
    if n_effective < MIN_ENTRIES or (total[:, 0] <= 0).any():
        return None
    kept = without_negative(stacked[:, (total > 0).all(axis=0)])
    q25, q50, q75 = np.moveaxis(quantiles(kept, edges, (0.25, 0.5, 0.75)), -1, 0)
    found: npt.NDArray[np.float64] = (q75 - q25) / q50
    return found
