"""Made-up events of a few particles, and the dataset that is built of them."""

import math
from pathlib import Path

from particleforge.config.dataset import DatasetConfig
from particleforge.dataset.build import build_dataset
from particleforge.tables.parquet import read_metadata, read_table

from .dataset_settings import NO_LIMITS, dataset_settings
from .edm4hep_events import (
    leaves_of,
    write_leaves,
)


def built(folder: Path, events, modern=True, hits=True, **dataset):
    """Return the dataset of made-up events (or of leaves), and its metadata."""
    leaves = events if isinstance(events, dict) else leaves_of(events, modern, hits)
    write_leaves(folder / "events.root", leaves, modern)
    settings = dataset_settings(dataset=DatasetConfig(**(NO_LIMITS | dataset)))
    build_dataset(settings, [folder / "events.root"], folder / "dataset.parquet")
    return read_table(folder / "dataset.parquet"), read_metadata(folder / "dataset.parquet")


def particle(pdg, charge, p, mass=0.0, status=1, parents=()):
    return {
        "pdg": pdg,
        "status": status,
        "charge": charge,
        "mass": mass,
        "p": list(p),
        "parents": list(parents),
    }


def track(omega=1e-3):
    return {"omega": omega, "phi": 0.0, "tan_lambda": 0.0, "location": 1}


def with_clusters(event, *members):
    """Give the event one ECAL hit and one cluster for each (energy, particle)."""
    for number, (energy, left_by) in enumerate(members):
        event.hits["ECALBarrel"].append(
            {"energy": energy, "position": [1600.0, 0.0, 10.0 * number]}
        )
        event.clusters.append(
            {
                "energy": energy,
                "position": [1600.0, 0.0, 10.0 * number],
                "hits": [("ECALBarrel", number)],
            }
        )
        event.hit_links.append((("ECALBarrel", number), left_by, 1.0))
    return event


def transverse(pdg, charge, energy, mass, angle=0.0, status=0, parents=(0,), vertex=(0.0, 0.0)):
    """Return a particle of this energy that flies across the beam, at an angle."""
    p = math.sqrt(energy**2 - mass**2)
    made = particle(
        pdg, charge, (p * math.cos(angle), p * math.sin(angle), 0), mass, status, list(parents)
    )
    return made | {"vertex": vertex}
