"""Pairs of selected and reconstructed files for tests of validation and report, from synthetic
events.
"""

from collections.abc import Sequence
from pathlib import Path

import awkward as ak
import numpy as np

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ValidateSettings
from particleforge.tables import parquet, schema

from .synthetic import synthetic_events

CONFIG = Path(__file__).parents[2] / "config"
PRESENCE_THRESHOLD = 0.5


def validate_settings(detector: str = "clic") -> ValidateSettings:
    run = load_run(CONFIG, {"preset": "smoke"})
    return ValidateSettings.of(run, load_detector(CONFIG, detector))


_WHAT = ("pdg", "class_id", "charge", "element")


def visible(events: ak.Array, *, scale: float = 1.0) -> ak.Array:
    """Return the visible generator particles as candidates of weight 1, four-momenta times
    ``scale``.
    """
    particles = events.particles[events.particles.fate != int(schema.Fate.INVISIBLE)]
    momenta = {name: particles[name] * scale for name in ("px", "py", "pz", "energy")}
    weight = ak.ones_like(particles.energy, dtype=np.float32)
    return ak.zip({**{name: particles[name] for name in _WHAT}, **momenta, "weight": weight})


def smeared(events: ak.Array, seed: int, *, width: float, efficiency: float) -> ak.Array:
    """Return the events' candidates, of weight 1, with some more smearing and loss."""
    rng = np.random.default_rng(seed)
    candidates = events.candidates
    counts = ak.num(candidates)
    candidates = candidates[ak.unflatten(rng.random(ak.sum(counts)) < efficiency, counts)]
    counts = ak.num(candidates)
    scale = ak.unflatten(1 + width * rng.standard_normal(ak.sum(counts)), counts)
    momenta = {name: candidates[name] * scale for name in ("px", "py", "pz", "energy")}
    weight = ak.ones_like(candidates.energy, dtype=np.float32)
    return ak.zip({**{name: candidates[name] for name in _WHAT}, **momenta, "weight": weight})


def write_pair(
    folder: Path,
    events: ak.Array,
    model: ak.Array,
    baseline: ak.Array | None = None,
    *,
    sample: str = "ttbar",
    splits: Sequence[str] = ("test",),
) -> tuple[Path, Path]:
    """Write every third event as train, the rest as test, and the model's candidates of ``splits``
    in reverse order.
    """
    split = np.where(np.arange(len(events)) % 3 == 0, "train", "test")
    selected = ak.with_field(
        events, ak.Array(list(split)) if len(events) else ak.Array([""])[:0], "split"
    )
    if baseline is not None:
        selected = ak.with_field(selected, baseline, "candidates")
    paths = folder / f"{sample}_selected.parquet", folder / f"{sample}_reconstructed.parquet"
    parquet.write_table(
        paths[0],
        [parquet.to_arrow(selected, parquet.SELECTED_SCHEMA)],
        parquet.SELECTED_SCHEMA,
        {"sample": sample},
        row_group_size=40,
    )
    kept = np.flatnonzero(np.isin(split, splits))[::-1]
    found = ak.with_field(events, model, "candidates")[kept]
    parquet.write_table(
        paths[1],
        [parquet.to_arrow(found, parquet.RECONSTRUCTED_SCHEMA)],
        parquet.RECONSTRUCTED_SCHEMA,
        {"sample": sample, "presence_threshold": PRESENCE_THRESHOLD},
    )
    return paths


def many_events(n: int, seed: int = 0, mean_particles: float = 40.0) -> ak.Array:
    """Return events of weight 1."""
    return ak.with_field(
        synthetic_events(n, seed, mean_particles=mean_particles), np.ones(n), "weight"
    )


def without_deposits(events: ak.Array) -> ak.Array:
    """Return events of a file that does not tell who left which energy."""
    nothing = ak.zeros_like(events.particles.deposited_energy)
    particles = ak.with_field(events.particles, nothing, "deposited_energy")
    return ak.with_field(events, particles, "particles")


def rewrite(selected: Path, events: ak.Array) -> None:
    """Replace the events of a selected file, keeping its metadata."""
    types = parquet.SELECTED_SCHEMA
    described = parquet.read_metadata(selected)
    parquet.write_table(selected, [parquet.to_arrow(events, types)], types, described)
