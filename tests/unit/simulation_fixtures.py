"""Settings and particle guns for tests of the simulation."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import SimulateSettings, simulate_settings
from particleforge.simulation import species
from particleforge.simulation.columns import Particles, lists_from_parents

CONFIG = Path(__file__).parents[2] / "config"


def make_settings(
    detector: str = "clic", sample: str = "ttbar", **changes: Any
) -> SimulateSettings:
    """Return a shipped detector's settings, with changed fields."""
    return simulate_settings(load_run(CONFIG), load_detector(CONFIG, detector), sample).model_copy(
        update=changes
    )


def without_material(settings: SimulateSettings) -> SimulateSettings:
    """Return settings with an empty tracker."""
    tracker = settings.tracker.model_copy(
        update={"material_radiation_lengths": 0.0, "material_interaction_lengths": 0.0}
    )
    return settings.model_copy(update={"tracker": tracker})


def gun(
    pdg: int,
    p: float | NDArray[np.float64],
    theta: float | NDArray[np.float64],
    n: int,
    seed: int = 1,
) -> Particles:
    """Return one stable particle per event from the origin, with random azimuths."""
    rng = np.random.default_rng(seed)
    phi = rng.uniform(-np.pi, np.pi, n)
    momentum, polar = np.broadcast_to(p, n), np.broadcast_to(theta, n)
    codes = np.full(n, pdg, np.int32)
    mass, zero = species.mass_of(codes), np.zeros(n)
    none = np.zeros(0, np.int64)
    return Particles(
        event=np.arange(n, dtype=np.int32),
        pdg=codes,
        generator_status=np.ones(n, np.int32),
        simulator_status=np.zeros(n, np.int32),
        charge=species.charge_of(codes),
        px=momentum * np.sin(polar) * np.cos(phi),
        py=momentum * np.sin(polar) * np.sin(phi),
        pz=momentum * np.cos(polar),
        energy=np.hypot(momentum, mass),
        mass=mass,
        x=zero,
        y=zero.copy(),
        z=zero.copy(),
        time=zero.copy(),
        endpoint_x=zero.copy(),
        endpoint_y=zero.copy(),
        endpoint_z=zero.copy(),
        **lists_from_parents(none, none, n),
    )
