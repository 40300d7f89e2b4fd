"""Which cost of a network a search can trust: a count of operations, or a measured time?

    python benchmarks/inference_cost.py [--lengths 128 1000] [--repeats 3] [--threads 1]

For networks of seven sizes per backbone, over events of each length: ``inference_gflop`` as the
search counts it, and the CPU time of a forward pass, the best of ``--repeats``, measured twice.
Prints by backbone and length the rank correlation of count and time, the largest difference between
the two measurements of one network, and how many of the 21 pairs of networks they put in different
orders. Last line: one JSON object.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from backbone_cost import random_events
from scipy.stats import spearmanr

from particleforge.config.model import ModelConfig
from particleforge.hpo.objectives import inference_gflop
from particleforge.model.backbones import BACKBONES
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.tables.schema import ELEMENT_TYPES, REQUIRED_FEATURES, SCHEMA_VERSION

# width, layers, factor
SIZES = [
    (32, 1, 2.0),
    (32, 3, 2.0),
    (48, 3, 2.0),
    (64, 3, 2.0),
    (64, 6, 4.0),
    (128, 3, 2.0),
    (128, 6, 2.0),
]
ELEMENTS = 1024


def write_manifest(folder: Path, n: int) -> Path:
    """Describe shards of events with ``n`` elements each, with only the features models need."""
    elements = {
        name: [{"name": f, "transform": "none", "unit": ""} for f in REQUIRED_FEATURES[name]]
        for name in ELEMENT_TYPES
    }
    classes = [
        {"name": "none"},
        *({"name": str(i), "pdg": i, "charged": i < 3, "mass_gev": 0.0} for i in range(5)),
    ]
    split = {"n_events": 1, "n_elements": n, "shards": []}
    described = {
        "schema_version": SCHEMA_VERSION,
        "elements": elements,
        "classes": classes,
        "splits": {"train": split},
    }
    moments = {
        name: {"mean": [0.0] * len(listed), "std": [1.0] * len(listed)}
        for name, listed in elements.items()
    }
    (folder / "normalisation.json").write_text(json.dumps(moments))
    (folder / "manifest.json").write_text(json.dumps(described))
    return folder / "manifest.json"


def best_time(network: ParticleFlowNetwork, n: int, repeats: int) -> float:
    """Return the seconds per event of the fastest of ``repeats`` forward passes.

    Each is over about ``ELEMENTS`` elements.
    """
    n_events = max(1, ELEMENTS // n)
    batch = random_events(network, n_events, n)
    times = []
    with torch.inference_mode():
        network(*batch)
        for _ in range(repeats):
            start = time.perf_counter()
            network(*batch)
            times.append((time.perf_counter() - start) / n_events)
    return min(times)


def compare(backbone: str, n: int, repeats: int) -> dict[str, object]:
    """Print and return how counts and times of a backbone's networks agree."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_manifest(Path(folder), n)
        models = [
            ModelConfig(backbone=backbone, width=w, n_layers=layers, feedforward_factor=factor)
            for w, layers, factor in SIZES
        ]
        counts = [inference_gflop(model, manifest) for model in models]
        networks = [
            ParticleFlowNetwork(model, ModelInputs.from_manifest(manifest)).eval()
            for model in models
        ]
    times = np.array([[best_time(network, n, repeats) for _ in range(2)] for network in networks])
    one, two = times.T
    pairs = itertools.combinations(range(len(models)), 2)
    found = {
        "rank_correlation": float(spearmanr(counts, one).statistic),
        "difference_max": float(np.abs(two / one - 1).max()),
        "pairs_reversed": int(sum((one[a] < one[b]) != (two[a] < two[b]) for a, b in pairs)),
        "ms_per_gflop": [round(float(1e3 * t / c), 1) for t, c in zip(one, counts, strict=True)],
    }
    print(backbone, n, found, flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        json.dumps(
            {
                name: {n: compare(name, n, options.repeats) for n in options.lengths}
                for name in BACKBONES
            }
        )
    )


if __name__ == "__main__":
    main()
