"""Rules of the particle flow, case by case: hand-made showers of exact energies, so that the
outcome is certain.
"""

import numpy as np
import pytest

from particleforge.edm4hep.constants import CHARGED_HADRON, ELECTRON, MUON, NEUTRAL_HADRON, PHOTON
from particleforge.simulation.calorimeter import SUBDETECTOR, simulate_hits
from particleforge.simulation.clustering import cluster_hits
from particleforge.simulation.columns import HitCollection, Hits
from particleforge.simulation.particle_flow import reconstruct

from .calorimeter_fixtures import at_face, beam, clusters_at, tracks_of
from .simulation_fixtures import make_settings

CLIC = make_settings()
HEADS_ON = np.array([1.0, 0.0, 0.0])


def shower(energy, collection, offset_mm=0.0, spread_mm=0.0):
    """Return rows (collection, energy, x, y, z) of ten hits along x, displaced in y by
    ``offset_mm`` +- ``spread_mm``.
    """
    depth = {
        HitCollection.ECAL_BARREL: 1510.0,
        HitCollection.HCAL_BARREL: 1750.0,
        HitCollection.MUON: 4461.0,
    }[collection]
    rows = []
    for k in range(10):
        side = spread_mm if k % 2 else -spread_mm
        rows.append((collection, energy / 10, depth + 10.0 * k, offset_mm + side, 0.0))
    return rows


def run(track_energies, *clusters):
    """Return candidates of an event with tracks along x and clusters of these rows of hits."""
    rows = np.array([row for cluster in clusters for row in cluster], float).reshape(-1, 5)
    number = np.repeat(np.arange(len(clusters)), [len(cluster) for cluster in clusters])
    none = np.zeros(0, np.int64)
    hits = Hits(
        event=np.zeros(len(rows), np.int32),
        collection=rows[:, 0].astype(np.int8),
        cell_id=np.arange(len(rows), dtype=np.uint64),
        energy=rows[:, 1],
        x=rows[:, 2],
        y=rows[:, 3],
        z=rows[:, 4],
        contribution_hit=none,
        contribution_particle=none,
        contribution_energy=none,
    )
    n = len(track_energies)
    entering = at_face(
        CLIC, np.full(n, 211), np.array(track_energies, float), np.pi / 2, 0.0, np.zeros(n)
    )
    record = clusters_at(hits, number, SUBDETECTOR[hits.collection])
    found = reconstruct(tracks_of(CLIC, entering), record, hits, 1, CLIC)
    assert np.allclose(
        found.energy**2 - found.px**2 - found.py**2 - found.pz**2, found.mass**2, atol=1e-6
    )
    return found


def codes(candidates):
    return sorted(np.abs(candidates.pdg).tolist())


def hadron(energy, offset_mm=0.0):
    """Return a wide shower with a third of its energy in the ECAL."""
    ecal = shower(energy / 3, HitCollection.ECAL_BARREL, offset_mm, 15.0)
    return ecal + shower(2 * energy / 3, HitCollection.HCAL_BARREL, offset_mm, 30.0)


def test_compatible_energy_is_a_charged_hadron_with_the_momentum_of_the_track():
    found = run([10.0], hadron(11.0))
    assert codes(found) == [CHARGED_HADRON]
    assert np.hypot(found.px[0], np.hypot(found.py[0], found.pz[0])) == pytest.approx(10.0)
    assert (found.track[0], found.cluster[0], found.pdg[0], found.charge[0]) == (
        0,
        0,
        -CHARGED_HADRON,
        -1,
    )


def test_excess_in_the_ecal_is_a_photon():
    found = run([5.0], hadron(5.0) + shower(10.0, HitCollection.ECAL_BARREL))
    assert codes(found) == [PHOTON, CHARGED_HADRON]
    assert found.energy[found.pdg == PHOTON] == pytest.approx(10.0)
    assert found.track[found.pdg == PHOTON] == -1


def test_excess_in_the_hcal_is_a_neutral_hadron():
    found = run([5.0], hadron(5.0) + shower(15.0, HitCollection.HCAL_BARREL, 0.0, 30.0))
    assert codes(found) == [NEUTRAL_HADRON, CHARGED_HADRON]
    assert found.energy[found.pdg == NEUTRAL_HADRON] == pytest.approx(15.0)


def test_momenta_of_several_tracks_are_summed():
    found = run([10.0, 6.0], hadron(16.5))
    assert codes(found) == [CHARGED_HADRON] * 2
    found = run([10.0, 6.0], hadron(36.0))
    assert codes(found) == [NEUTRAL_HADRON, CHARGED_HADRON, CHARGED_HADRON]
    assert found.energy.sum() == pytest.approx(36.0, rel=0.01)


def test_fragments_are_absorbed_while_the_track_explains_them():
    fragment = shower(3.0, HitCollection.HCAL_BARREL, 120.0, 10.0)
    assert codes(run([10.0], hadron(7.0), fragment)) == [CHARGED_HADRON]
    assert codes(run([10.0], hadron(12.0), fragment)) == [NEUTRAL_HADRON, CHARGED_HADRON]
    distant = shower(3.0, HitCollection.HCAL_BARREL, 600.0, 10.0)
    assert codes(run([10.0], hadron(7.0), distant)) == [NEUTRAL_HADRON, CHARGED_HADRON]


def test_a_photon_near_a_hadron_is_not_absorbed():
    photon = shower(3.0, HitCollection.ECAL_BARREL, 60.0, 2.0)
    assert codes(run([10.0], hadron(9.0), photon)) == [PHOTON, CHARGED_HADRON]


def test_clusters_without_track_are_photons_or_neutral_hadrons():
    assert codes(run([], shower(5.0, HitCollection.ECAL_BARREL, 0.0, 3.0))) == [PHOTON]
    assert codes(run([], shower(5.0, HitCollection.ECAL_BARREL, 0.0, 40.0))) == [NEUTRAL_HADRON]
    assert codes(run([], hadron(5.0))) == [NEUTRAL_HADRON]


def test_electrons_have_their_energy_in_a_compact_ecal_cluster():
    found = run([20.0], shower(20.5, HitCollection.ECAL_BARREL, 0.0, 3.0))
    assert codes(found) == [ELECTRON]
    assert found.pdg[0] == ELECTRON  # negative charge, positive code
    assert codes(run([20.0], shower(15.0, HitCollection.ECAL_BARREL, 0.0, 3.0))) == [CHARGED_HADRON]
    assert codes(run([20.0], shower(20.0, HitCollection.ECAL_BARREL, 0.0, 20.0))) == [
        CHARGED_HADRON
    ]


def test_muons_have_hits_in_the_muon_system_and_little_energy():
    line = (
        shower(0.25, HitCollection.ECAL_BARREL)
        + shower(1.7, HitCollection.HCAL_BARREL)
        + shower(0.3, HitCollection.MUON)
    )
    assert codes(run([40.0], line)) == [MUON]
    assert codes(run([40.0], hadron(40.0) + shower(0.3, HitCollection.MUON))) == [CHARGED_HADRON]


def test_a_muon_in_a_cluster_leaves_the_rest_to_a_neutral():
    line = (
        shower(0.25, HitCollection.ECAL_BARREL)
        + shower(1.7, HitCollection.HCAL_BARREL)
        + shower(0.3, HitCollection.MUON)
    )
    found = run([40.0], line + shower(12.0, HitCollection.ECAL_BARREL, 40.0, 3.0))
    assert codes(found) == [MUON, PHOTON]
    assert found.energy[found.pdg == PHOTON] == pytest.approx(12.0, abs=1.0)


def test_a_track_that_did_not_reach_the_calorimeter_is_dropped():
    assert codes(run([20.0])) == []
    assert codes(run([0.3])) == [CHARGED_HADRON]  # so soft that its energy may be missed
    assert codes(run([20.0], shower(6.0, HitCollection.HCAL_BARREL, 400.0, 10.0))) == [
        NEUTRAL_HADRON
    ]


def test_every_track_and_cluster_is_used_once_and_events_do_not_mix():
    n = 12
    rng = np.random.default_rng(9)
    event = np.repeat(np.arange(n), 4)
    pdg = np.tile([211, 22, 130, 211], n)
    entering = at_face(
        CLIC,
        pdg,
        rng.uniform(1, 20, 4 * n),
        rng.uniform(1.2, 1.9, 4 * n),
        rng.uniform(-3, 3, 4 * n),
        event,
    )
    hits = simulate_hits(entering, n, CLIC, rng)
    tracks, clusters = tracks_of(CLIC, entering), cluster_hits(hits, n, CLIC)
    found = reconstruct(tracks, clusters, hits, n, CLIC)
    used = found.track[found.track >= 0]
    assert len(np.unique(used)) == len(used)
    neutral = found.cluster[found.track < 0]
    assert len(np.unique(neutral)) == len(neutral)
    np.testing.assert_array_equal(tracks.event[used], found.event[found.track >= 0])
    np.testing.assert_array_equal(clusters.event[neutral], found.event[found.track < 0])
    truth = np.bincount(event, entering.energy, minlength=n)
    assert np.bincount(found.event, found.energy, minlength=n).sum() == pytest.approx(
        truth.sum(), rel=0.1
    )


@pytest.mark.parametrize("n_events", [0, 2])
def test_empty_events_and_missing_tracks_or_clusters(n_events):
    nothing = beam(CLIC, 211, 5.0, 1).take(np.zeros(0, np.int64))
    hits = simulate_hits(nothing, n_events, CLIC, np.random.default_rng(1))
    clusters = cluster_hits(hits, n_events, CLIC)
    assert len(reconstruct(tracks_of(CLIC, nothing), clusters, hits, n_events, CLIC)) == 0
    if n_events:
        photons = beam(CLIC, 22, 5.0, n_events)
        hits = simulate_hits(photons, n_events, CLIC, np.random.default_rng(1))
        found = reconstruct(
            tracks_of(CLIC, nothing), cluster_hits(hits, n_events, CLIC), hits, n_events, CLIC
        )
        assert PHOTON in found.pdg
