"""Response of the parametric calorimeters to single particles.

    python benchmarks/single_particle_response.py [--detector clic] [--particles 1000]

Photons, charged pions and muons of 1 to 100 GeV enter the barrel and the endcaps (polar angles 30
to 150 degrees, uniform, the material in front of the calorimeter left out). The table gives mean
and standard deviation of the summed hit energy, and of the leading cluster. The last line is one
JSON object with the figures.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import SimulateSettings, simulate_settings
from particleforge.seeds import generator_of
from particleforge.simulation.calorimeter import simulate_hits
from particleforge.simulation.clustering import cluster_hits
from particleforge.simulation.columns import Entering, HitCollection, Kind

CONFIG = Path(__file__).parents[1] / "config"
PARTICLES = {
    "photon": (22, Kind.ELECTROMAGNETIC, 0.0),
    "pion": (211, Kind.HADRON, 1.0),
    "muon": (13, Kind.MUON, -1.0),
}
ENERGIES_GEV = (1, 2, 5, 10, 20, 50, 100)


def shoot(
    settings: SimulateSettings, name: str, energy: float, n: int, rng: np.random.Generator
) -> Entering:
    """Return n particles at the calorimeter's face, one per event."""
    pdg, kind, charge = PARTICLES[name]
    theta, phi = rng.uniform(np.radians(30), np.radians(150), n), rng.uniform(-np.pi, np.pi, n)
    direction = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
    tracker = settings.tracker
    path = np.minimum(
        tracker.radius_mm / np.sin(theta),
        tracker.half_length_mm / np.maximum(np.abs(np.cos(theta)), 1e-9),
    )
    event = np.arange(n, dtype=np.int32)
    constant = {"pdg": pdg, "kind": int(kind), "charge": charge, "energy": float(energy)}
    return Entering(
        event,
        event,
        *(np.full(n, value) for value in constant.values()),
        *(direction * path),
        *direction,
    )


def measure(settings: SimulateSettings, name: str, energy: float, n: int) -> dict[str, float]:
    """Return the figures of one particle and energy."""
    rng = generator_of("single_particle_response", name, energy)
    start = time.process_time()
    hits = simulate_hits(shoot(settings, name, energy, n, rng), n, settings, rng)
    seconds = time.process_time() - start
    clusters = cluster_hits(hits, n, settings)
    total = np.bincount(
        hits.event, hits.energy * (hits.collection != HitCollection.MUON), minlength=n
    )
    leading = np.zeros(n)
    np.maximum.at(leading, clusters.event, clusters.energy)
    return {
        "energy_gev": energy,
        "mean_gev": total.mean(),
        "mean_error_gev": total.std(ddof=1) / np.sqrt(n),
        "sigma_gev": total.std(ddof=1),
        "leading_cluster_gev": leading.mean(),
        "hits": len(hits) / n,
        "cpu_ms": 1e3 * seconds / n,
    }


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", default="clic")
    parser.add_argument(
        "--particles", type=int, default=1000, help="particles per row; a quarter above 20 GeV"
    )
    arguments = parser.parse_args()
    detector = load_detector(CONFIG, arguments.detector)
    settings = simulate_settings(load_run(CONFIG), detector, next(iter(detector.samples)))
    measure(settings, "pion", 1.0, 5)  # compiles
    figures: dict[str, list[dict[str, float]]] = {}
    print("particle  E/GeV    mean +- error      sigma  sigma/E  leading cluster   hits  CPU ms")
    for name in PARTICLES:
        for energy in ENERGIES_GEV:
            n = max(arguments.particles // (4 if energy > 20 else 1), 20)
            row = measure(settings, name, energy, n)
            figures.setdefault(name, []).append(
                {key: round(float(value), 4) for key, value in row.items()}
            )
            print(
                f"{name:8} {energy:6} {row['mean_gev']:8.3f} +- {row['mean_error_gev']:5.3f}"
                f" {row['sigma_gev']:8.3f} {row['sigma_gev'] / energy:7.1%}"
                f" {row['leading_cluster_gev']:12.3f} {row['hits']:10.0f} {row['cpu_ms']:7.2f}"
            )
    print(
        json.dumps(
            {"detector": arguments.detector, "particles": arguments.particles, "response": figures}
        )
    )


if __name__ == "__main__":
    main()
