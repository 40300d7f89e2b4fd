"""Particles at the calorimeter's face, tracks and bookkeeping for tests of the calorimeters and of
particle flow.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from particleforge.config.settings import SimulateSettings
from particleforge.simulation.columns import Clusters, Entering, Hits, Kind, SubDetector, Tracks

KIND_OF = {
    22: Kind.ELECTROMAGNETIC,
    11: Kind.ELECTROMAGNETIC,
    211: Kind.HADRON,
    130: Kind.HADRON,
    13: Kind.MUON,
}
CHARGED = (11, 13, 211)


def at_face(
    settings: SimulateSettings,
    pdg: Any,
    energy: Any,
    theta: Any,
    phi: Any,
    event: NDArray[np.integer] | None = None,
) -> Entering:
    """Return particles from the origin that enter the calorimeter.

    One event each unless ``event`` says otherwise.
    """
    pdg, energy, theta, phi = (
        np.atleast_1d(a) for a in np.broadcast_arrays(pdg, np.float64(energy), theta, phi)
    )
    direction = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1
    )
    tracker = settings.tracker
    path = np.minimum(
        tracker.radius_mm / np.sin(theta),
        tracker.half_length_mm / np.maximum(np.abs(np.cos(theta)), 1e-9),
    )
    x, y, z = (direction * path[:, None]).T
    n = len(pdg)
    return Entering(
        event=np.arange(n, dtype=np.int32) if event is None else np.asarray(event, np.int32),
        particle=np.arange(n),
        pdg=pdg,
        kind=np.array([KIND_OF[abs(int(code))] for code in pdg], np.int8),
        charge=np.where(np.isin(np.abs(pdg), CHARGED), -1.0, 0.0),
        energy=energy,
        x=x,
        y=y,
        z=z,
        dx=direction[:, 0],
        dy=direction[:, 1],
        dz=direction[:, 2],
    )


def beam(settings: SimulateSettings, pdg: int, energy: float, n: int, seed: int = 5) -> Entering:
    """Return n particles in as many events, spread over the barrel."""
    rng = np.random.default_rng(seed)
    return at_face(
        settings, np.full(n, pdg), energy, rng.uniform(1.0, 2.1, n), rng.uniform(-np.pi, np.pi, n)
    )


def energy_per_event(hits: Hits, n_events: int) -> NDArray[np.float64]:
    """Return the calorimeter energy of each event, muon system excluded."""
    return np.bincount(hits.event, hits.energy * (hits.collection < 4), minlength=n_events)


def tracks_of(settings: SimulateSettings, entering: Entering) -> Tracks:
    """Return perfect tracks of the charged particles, straight from the origin.

    Without parameters that particle flow ignores.
    """
    e = entering.take(entering.charge != 0)
    n = len(e)
    pt = e.energy * np.hypot(e.dx, e.dy)
    zero, one = np.zeros(n), np.ones(n)
    return Tracks(
        event=e.event,
        particle=e.particle,
        charge=e.charge.astype(np.int8),
        pt=pt,
        eta=np.arctanh(e.dz),
        phi0=np.arctan2(e.dy, e.dx),
        p=e.energy,
        omega=zero,
        tan_lambda=e.dz / np.hypot(e.dx, e.dy),
        d0=zero,
        z0=zero,
        chi2=one,
        ndf=np.ones(n, np.int64),
        n_hits=np.full(n, 12),
        dedx=zero,
        dedx_error=zero,
        radius_innermost_hit=zero,
        x_calo=e.x,
        y_calo=e.y,
        z_calo=e.z,
        dx_calo=e.dx,
        dy_calo=e.dy,
        dz_calo=e.dz,
        link_track=np.arange(n),
        link_particle=e.particle,
        link_weight=one,
    )


def clusters_at(
    hits: Hits, cluster_of_hit: NDArray[np.integer], detector: NDArray[np.integer]
) -> Clusters:
    """Return the clusters that ``cluster_of_hit`` (numbered from 0 without gaps) makes of hits."""
    n = int(cluster_of_hit.max()) + 1 if len(cluster_of_hit) else 0
    total = np.bincount(cluster_of_hit, hits.energy, minlength=n)
    x, y, z = (
        np.bincount(cluster_of_hit, hits.energy * values, minlength=n) / total
        for values in (hits.x, hits.y, hits.z)
    )
    energies = np.bincount(
        cluster_of_hit * len(SubDetector) + detector, hits.energy, minlength=n * len(SubDetector)
    )
    event = np.zeros(n, np.int32)
    event[cluster_of_hit] = hits.event
    return Clusters(event, total, x, y, z, energies.reshape(-1, len(SubDetector)), cluster_of_hit)
