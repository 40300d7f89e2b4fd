"""Simulated events of every shipped detector through the dataset stage: response, classes and
closed accounting.
"""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings, simulate_settings
from particleforge.dataset.build import build_dataset
from particleforge.simulation.simulate import simulate_events
from particleforge.tables.parquet import read_metadata, read_table
from particleforge.tables.schema import Fate

CONFIG = Path(__file__).parents[2] / "config"


def simulated_detectors():
    """Return the shipped detectors that have hit collections to simulate.

    The others describe files of others only.
    """
    names = sorted(path.stem for path in (CONFIG / "detectors").glob("*.yaml"))
    return [name for name in names if load_detector(CONFIG, name).collections.ecal_hits]


@pytest.mark.integration
@pytest.mark.parametrize("detector", simulated_detectors())
def test_simulated_events(tmp_path, detector):
    run = load_run(CONFIG, {"simulation": {"events_per_shard": 6}})
    chosen = load_detector(CONFIG, detector)
    sample = next(iter(chosen.samples))
    simulate_events(simulate_settings(run, chosen, sample), "00000", tmp_path / "sim.root")
    build_dataset(
        DatasetSettings.of(run, chosen, sample_name=sample),
        [tmp_path / "sim.root"],
        tmp_path / "out.parquet",
    )
    table, metadata = read_table(tmp_path / "out.parquet"), read_metadata(tmp_path / "out.parquet")
    balance, counts = metadata["energy_balance_gev"], metadata["counts"]
    assert len(table) == counts["events"] == 6
    assert balance["target"] + balance["dropped"] == pytest.approx(balance["visible"], rel=1e-6)
    assert balance["dropped"] < 0.05 * balance["visible"]
    assert counts["references_dropped"] == counts["hits_dropped"] == counts["tracks_dropped"] == 0

    targets, n_tracks = table["targets"], ak.num(table["tracks"])
    on_track = ak.local_index(targets["energy"]) < n_tracks
    owned = targets["class_id"][on_track] > 0
    momentum = np.sqrt(sum(targets[name][on_track] ** 2 for name in ("px", "py", "pz")))
    response = ak.to_numpy(ak.flatten(table["tracks", "p"][owned] / momentum[owned]))
    assert abs(np.median(response) - 1) < 0.02
    assert (
        np.mean(
            ak.to_numpy(
                ak.flatten((table["tracks", "charge"] == targets["charge"][on_track])[owned])
            )
        )
        > 0.98
    )
    assert set(ak.to_numpy(ak.flatten(targets["charge"][~on_track]))) == {0}
    # What the rule-based baseline finds is close to what the targets hold: two independent ways
    # through the same elements.
    assert ak.sum(table["candidates", "energy"]) == pytest.approx(balance["target"], rel=0.15)
    assert ak.all(ak.num(targets["energy"]) == n_tracks + ak.num(table["clusters"]))
    particles = table["particles"]
    hosted = particles[particles["fate"] == int(Fate.HOSTED)]
    assert ak.all(
        targets["particle"][hosted["element"]]
        == ak.local_index(particles["pdg"])[particles["fate"] == int(Fate.HOSTED)]
    )
