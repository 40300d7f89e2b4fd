"""The share of the gap from baseline to ideal particle flow that the model closes.

Inputs -> outputs: responses of a batch -> counts in the resampled histograms; these -> a share with
its statistical error.

The share is (baseline - mlpf) / (baseline - ideal) of a resolution: 0 where the model is as wide as
the baseline, 1 where it is as narrow as right assignments make measured energies. The three
resolutions come from the same events, so their errors must not be taken for independent: all of an
event is drawn together. Each resampling counts an event as often as a Poisson number of mean 1
says, which is the bootstrap over events without knowing their number beforehand (Chamandy et al.,
"Estimating Uncertainty for Massive Data Streams", 2012). The numbers follow from the seed and the
first event of a batch, not from the order of files.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from particleforge.config.settings import ValidateSettings
from particleforge.seeds import generator_of
from particleforge.validation.events import EventBatch
from particleforge.validation.histograms import Hists, inside_of
from particleforge.validation.quantiles import MIN_ENTRIES, Floats, quantiles

ONE_SIGMA = (0.1585, 0.8415)
Draws = npt.NDArray[np.int64]  # [n_resamplings, n_events], how often each counts each event


def draw_events(batch: EventBatch, settings: ValidateSettings) -> Draws:
    """Return how often each resampling counts each event of a batch."""
    first = int(batch.events.event_id[0])
    generator = generator_of(settings.seed, "validate", "resampling", batch.sample, first)
    return generator.poisson(1.0, (settings.validation.n_bootstrap, batch.n_events))


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


def gap_closed(counts: dict[str, np.ndarray], edges: Floats) -> dict[str, Any] | None:
    """Return ``{"value", "error"}`` of the share that mlpf closes, or None.

    ``counts`` has of ideal, mlpf and baseline those of all entries, then those of each resampling,
    [1 + n_resamplings, bins]. There is no share where one of them has too few entries, or the
    baseline is no wider than ideal. The error is half of the central interval of 68.3 %: a ratio
    whose denominator comes near 0 has no standard deviation.
    """
    three = np.stack([counts[name] for name in ("ideal", "mlpf", "baseline")])
    total = three.sum(axis=2)
    if (total[:, 0] < MIN_ENTRIES).any():
        return None
    drawn = (total > 0).all(axis=0)  # of a handful of events, a resampling may count none
    q25, q50, q75 = np.moveaxis(quantiles(three[:, drawn], edges, (0.25, 0.5, 0.75)), -1, 0)
    ideal, mlpf, baseline = (q75 - q25) / q50
    if baseline[0] <= ideal[0]:
        return None
    known = baseline > ideal
    share = (baseline[known] - mlpf[known]) / (baseline[known] - ideal[known])
    low, high = np.quantile(share, ONE_SIGMA)
    return {"value": float(share[0]), "error": float(high - low) / 2}
