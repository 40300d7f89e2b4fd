"""Ideal particle flow: everything is assigned rightly, energies are as measured.

Inputs -> outputs: truth particles and tracks of a block of events -> the particles that ideal
particle flow would output. Each visible particle keeps its true class, charge and direction; its
size is

* the momentum of its track if it is HOSTED on one, with the energy of its true mass;
* else the calibrated energy that it and its descendants left in the calorimeters, without mass.

Particles that left no energy are not there. So this view knows all that truth knows about which
particle is which and where it goes, and about energies only what the detector measured: how far a
reconstruction could go. It needs deposits; where a data set has none, there is no such view.
"""

from collections.abc import Iterable
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.compute as pc

from particleforge.tables import parquet, schema

_DEPOSITED = "particles.list.element.deposited_energy"


def has_deposits(selected: Iterable[Path]) -> bool:
    """Return whether any event of the files has a deposit; stops at the first that has."""
    return any(_has_deposits(path) for path in selected)


def _has_deposits(path: Path) -> bool:
    for block in parquet.iter_tables(path, [_DEPOSITED]):
        energies = pc.struct_field(pc.list_flatten(block["particles"]), "deposited_energy")
        if (pc.max(energies).as_py() or 0) > 0:
            return True
    return False


def ideal_particles(particles: ak.Array, tracks: ak.Array) -> ak.Array:
    """Return records (px, py, pz, energy in GeV, charge, class_id) of ideal particle flow."""
    counts = ak.num(particles)
    flat = {name: ak.to_numpy(ak.flatten(particles[name])) for name in particles.fields}
    momentum = np.sqrt(flat["px"] ** 2 + flat["py"] ** 2 + flat["pz"] ** 2)
    mass_squared = np.maximum(flat["energy"] ** 2 - momentum**2, 0)
    track = _track_of(flat, ak.to_numpy(counts), ak.to_numpy(ak.num(tracks)))
    on_track = track >= 0
    size = flat["deposited_energy"].astype(np.float64)
    size[on_track] = ak.to_numpy(ak.flatten(tracks.p))[track[on_track]]
    energy = np.where(on_track, np.sqrt(size**2 + mass_squared), size)
    seen = (flat["fate"] != int(schema.Fate.INVISIBLE)) & (size > 0) & (momentum > 0)
    scale = np.divide(size, momentum, out=np.zeros_like(size), where=seen)
    found = ak.zip(
        {
            **{name: flat[name] * scale for name in ("px", "py", "pz")},
            "energy": energy,
            **{name: flat[name] for name in ("charge", "class_id")},
        }
    )
    return ak.unflatten(found, counts)[ak.unflatten(seen, counts)]


def _track_of(
    particles: dict[str, np.ndarray], n_particles: np.ndarray, n_tracks: np.ndarray
) -> np.ndarray:
    """Return the flat index of the track that hosts each flat particle, -1 for none."""
    element = particles["element"].astype(np.int64)
    n_tracks = n_tracks.astype(np.int64)
    hosted = particles["fate"] == int(schema.Fate.HOSTED)
    on_track = hosted & (element >= 0) & (element < np.repeat(n_tracks, n_particles))
    first = np.repeat(np.cumsum(n_tracks) - n_tracks, n_particles)
    return np.where(on_track, first + element, -1)
