"""The presence threshold of particle lists, chosen on the valid split.

Sums of energies and momenta multiply every candidate by its weight and need no threshold. A list
of particles, for efficiency or fake rate, is a decision per element, and the best one depends on
the training. Nothing of the test split is seen.

Inputs -> outputs: a ``Decoder`` in torch, some events of the valid split -> the threshold of a grid
that has the largest F1 = 2 TP / (2 TP + FP + FN) for "this element hosts a particle". Of equally
good ones the nearest to 0.5 is taken.

Invariant: with fewer than ``PARTICLES_MIN`` particles, which a figure of two digits cannot be
chosen on, the threshold is ``NOT_CHOSEN``.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from particleforge.model.decode import OUTPUT_NAMES, Decoder
from particleforge.model.inputs import read_manifest
from particleforge.tables.schema import NONE_CLASS, PADDING
from particleforge.training.loader import ShardLoader

log = logging.getLogger(__name__)
PARTICLES_MIN = 100
NOT_CHOSEN = 0.5
GRID = np.arange(5, 96) / 100
_ELEMENTS_PER_BATCH = 16_384


def presence_threshold(decoder: Decoder, manifest: Path, n_events: int) -> float:
    """Return the threshold that is best for ``n_events`` events of the valid split, or for all."""
    weight, hosts = _weights(decoder, manifest, n_events)
    if hosts.sum() < PARTICLES_MIN:
        log.info(
            "presence threshold of particle lists: %g, not chosen, as the valid split has %d"
            " particles",
            NOT_CHOSEN,
            hosts.sum(),
        )
        return NOT_CHOSEN
    score = f1_scores(weight, hosts)
    best = GRID[score == score.max()]
    chosen = float(best[np.abs(best - NOT_CHOSEN).argmin()])
    log.info(
        "presence threshold of particle lists: %g, F1 %.4f (%.4f at %g) for %d elements",
        chosen,
        score.max(),
        score[np.abs(GRID - NOT_CHOSEN).argmin()],
        NOT_CHOSEN,
        len(hosts),
    )
    return chosen


def f1_scores(weight: NDArray[np.float32], hosts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return F1 of calling elements particles whose weight reaches each threshold of the grid.

    ``hosts`` [n] tells which of the elements are, of which there must be one.
    """
    true_positives, false_positives = (
        len(found) - np.searchsorted(np.sort(found), GRID.astype(np.float32), side="left")
        for found in (weight[hosts], weight[~hosts])
    )
    # 2 TP + FP + FN, as particles are TP + FN
    scores: NDArray[np.float64] = (
        2 * true_positives / (true_positives + false_positives + hosts.sum())
    )
    return scores


@torch.no_grad()
def _weights(
    decoder: Decoder, manifest: Path, n_events: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the weights of elements of the valid split, and which of them host particles."""
    weights, hosts = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    if read_manifest(manifest)["splits"]["valid"]["n_events"]:
        loader = ShardLoader(
            manifest,
            "valid",
            decoder.network.inputs,
            budget=_ELEMENTS_PER_BATCH,
            shards_in_memory=1,
            seed=0,
            max_events=n_events,
        )
        for batch in loader.once():
            real = batch.element_type != PADDING
            outputs = decoder(batch.features, batch.element_type)
            weight = outputs[OUTPUT_NAMES.index("weight")]
            weights.append(weight[real].numpy())
            hosts.append((batch.target_class[real] != NONE_CLASS).numpy())
    return np.concatenate(weights), np.concatenate(hosts)
