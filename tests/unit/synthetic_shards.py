"""Training shards of random events in the columns that ``write_shards`` writes, for tests of the
model and its training.

The events have structure that a network can learn: tracks carry charged particles of nearly their
momentum; half of the clusters belong to neutral particles of about 1.2 times their energy, the
others to none.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from particleforge.config.model import ModelConfig
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.model.saved import save_model
from particleforge.tables import parquet
from particleforge.tables.schema import N_SHARES

TRACK = [
    ("pt", "log"),
    ("eta", "none"),
    ("sin_phi", "none"),
    ("cos_phi", "none"),
    ("p", "log"),
    ("charge", "none"),
    ("d0", "asinh"),
]
TRACK += [("eta_calo", "none"), ("sin_phi_calo", "none"), ("cos_phi_calo", "none")]
CLUSTER = [
    ("et", "log"),
    ("eta", "none"),
    ("sin_phi", "none"),
    ("cos_phi", "none"),
    ("energy", "log"),
    ("energy_ecal", "log1p"),
]
CLASSES = [
    {"name": "none"},
    {
        "name": "charged_hadron",
        "label": "charged hadron",
        "pdg": 211,
        "charged": True,
        "mass_gev": 0.13957,
    },
    {
        "name": "neutral_hadron",
        "label": "neutral hadron",
        "pdg": 130,
        "charged": False,
        "mass_gev": 0.49761,
    },
    {"name": "photon", "label": "photon", "pdg": 22, "charged": False, "mass_gev": 0.0},
]
N_FEATURES = len(TRACK)


def uneven(numbers: np.ndarray) -> np.ndarray:
    """Return event weights over three orders of magnitude, 0 for every fifth event."""
    return np.where(numbers % 5 == 0, 0.0, 10.0 ** (numbers % 7 / 2 - 12))


def random_elements(rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
    """Return element types, features [n, F], target classes, charges and momenta [n, 4] of n
    elements.
    """
    is_track = rng.random(n) < 0.6
    pt = rng.exponential(3.0, n) + 0.2
    eta = rng.uniform(-2.4, 2.4, n)
    phi = rng.uniform(-np.pi, np.pi, n)
    energy = pt * np.cosh(eta)
    sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    ecal_share = rng.random(n)
    features = np.stack(
        [
            pt,
            eta,
            np.sin(phi),
            np.cos(phi),
            energy,
            np.where(is_track, sign, energy * ecal_share),
            rng.normal(0, 0.1, n),
        ],
        1,
    )
    bend = 0.3 * sign / pt
    features = np.concatenate(
        [features, np.stack([eta, np.sin(phi + bend), np.cos(phi + bend)], 1)], 1
    )
    features[~is_track, 6:] = 0
    neutral = np.where(ecal_share > 0.7, 3, np.where(ecal_share > 0.4, 2, 0))
    target_class = np.where(is_track, 1, neutral)
    scale = np.where(is_track, 1.0 + rng.normal(0, 0.005, n), 1.2 + rng.normal(0, 0.1, n))[:, None]
    p4 = (
        np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy], 1)
        * scale
        * (target_class > 0)[:, None]
    )
    return (
        np.where(is_track, 1, 2),
        features.astype(np.float32),
        target_class,
        np.where(is_track, sign, 0).astype(int),
        p4.astype(np.float32),
    )


def random_shares(
    rng: np.random.Generator, types: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return hosts [n, H] and shares [n, H + 1] of the elements of events of these lengths.

    A cluster gives one to three elements of its event, and the sink, a part; tracks give nothing.
    """
    n_elements = np.repeat(lengths, lengths)
    given = np.arange(N_SHARES) < rng.integers(1, 4, len(types))[:, None]
    # places that follow each other differ from each other in events of three elements and more
    host = (rng.integers(0, 1000, len(types))[:, None] + np.arange(N_SHARES)) % n_elements[:, None]
    given &= (types == 2)[:, None] & (np.arange(N_SHARES) < n_elements[:, None])
    parts = rng.exponential(1.0, (len(types), N_SHARES + 1))
    parts[:, :N_SHARES] *= given
    parts *= (types == 2)[:, None]
    whole = parts.sum(1, keepdims=True)
    share = np.divide(parts, whole, out=np.zeros_like(parts), where=whole > 0)
    return np.where(given, host, -1).astype(np.int32), share.astype(np.float32)


def random_network(inputs: ModelInputs, config: ModelConfig, seed: int = 0) -> ParticleFlowNetwork:
    """Return a network whose outputs differ much from element to element, as a trained one's do."""
    torch.manual_seed(seed)
    network = ParticleFlowNetwork(config, inputs).eval()
    for block in network.blocks:
        torch.nn.init.normal_(block.query_key_value.weight, std=0.4)
    for head, std in ((network.identity_head, 1.5), (network.momentum_head, 0.3)):
        torch.nn.init.normal_(head[-1].weight, std=std)
        torch.nn.init.zeros_(head[-1].bias)
    return network


def write_shard(
    path: Path,
    lengths: Sequence[int],
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
) -> dict[str, object]:
    """Write one shard and return its entry in the manifest."""
    lengths = np.asarray(lengths)
    weights = np.ones(len(lengths)) if weights is None else weights
    types, features, classes, charges, p4 = random_elements(rng, int(lengths.sum()))
    hosts, shares = random_shares(rng, types, lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)

    def lists(values: np.ndarray, kind: str, per_element: int = 1) -> pa.Array:
        return pa.ListArray.from_arrays(
            offsets * per_element, pa.array(values.reshape(-1).astype(kind))
        )

    table = pa.Table.from_arrays(
        [
            pa.array(rng.integers(0, 2**63, len(lengths)).astype(np.uint64)),
            pa.array(["synthetic"] * len(lengths)),
            pa.array(weights),
            pa.array(lengths.astype(np.int32)),
            lists(types, "int8"),
            lists(features, "float32", N_FEATURES),
            lists(classes, "int8"),
            lists(charges, "int8"),
            lists(p4, "float32", 4),
            lists(hosts, "int32", N_SHARES),
            lists(shares, "float32", N_SHARES + 1),
        ],
        schema=parquet.SHARD_SCHEMA,
    )
    parquet.write_shard(path, table, {})
    return {
        "file": f"{path.parent.name}/{path.name}",
        "n_events": len(lengths),
        "n_elements": int(lengths.sum()),
        "sha256": "",
    }


def write_synthetic(
    folder: Path,
    *,
    train: Sequence[int] = (40, 40, 40),
    valid: int = 30,
    test: int = 30,
    longest: int = 24,
    weight_of: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """Write shards with the given numbers of events and return the manifest's path.

    ``weight_of`` gives the weights of events by their numbers, which go through all splits.
    """
    rng = np.random.default_rng(7)
    splits = {}
    first, mean_weight = 0, None
    for split, sizes in (("train", train), ("valid", (valid,)), ("test", (test,))):
        shards, weights = [], []
        for i, n in enumerate(sizes):
            path, lengths = folder / split / f"{i:05d}.parquet", rng.integers(0, longest + 1, n)
            numbers = np.arange(first, first + n)
            weights.append(weight_of(numbers) if weight_of else np.ones(n))
            first += n
            shards.append(write_shard(path, lengths, rng, weights[-1]))
        if split == "train" and weight_of:
            mean_weight = float(np.concatenate(weights).mean())
        splits[split] = {
            "n_events": sum(sizes),
            "n_elements": sum(s["n_elements"] for s in shards),
            "shards": shards,
        }
    elements = {
        "track": [{"name": name, "transform": transform, "unit": ""} for name, transform in TRACK],
        "cluster": [
            {"name": name, "transform": transform, "unit": ""} for name, transform in CLUSTER
        ],
    }
    manifest = {
        "schema_version": 1,
        "provenance": {},
        "elements": elements,
        "n_features": N_FEATURES,
        "classes": CLASSES,
        "mean_weight": mean_weight,
    }
    manifest |= {"samples": ["synthetic"], "splits": splits}
    normalisation = {
        "track": {
            "mean": [0.9, 0.0, 0.0, 0.0, 1.7, *[0.0] * 5],
            "std": [0.9, 1.4, 0.7, 0.7, 1.1, 1.0, 0.1, 1.4, 0.7, 0.7],
        },
        "cluster": {"mean": [0.9, 0.0, 0.0, 0.0, 1.7, 1.3], "std": [0.9, 1.4, 0.7, 0.7, 1.1, 0.9]},
        "n_events": sum(train),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "normalisation.json").write_text(json.dumps(normalisation))
    return folder / "manifest.json"


def write_model(folder: Path) -> tuple[Path, Path]:
    """Write shards and best.pt as a training of them does; return manifest and model."""
    manifest = write_synthetic(folder / "shards", train=(4,), valid=4, test=4, longest=4)
    inputs, config = ModelInputs.from_manifest(manifest), ModelConfig(width=8, n_layers=1)
    content = {
        "weights": random_network(inputs, config).state_dict(),
        "model": config.model_dump(mode="json"),
        "inputs": inputs.plain(),
        "training": {},
        "step": 1,
        "valid_loss": 1.0,
        "provenance": {},
    }
    save_model(folder / "best.pt", content)
    return manifest, folder / "best.pt"
