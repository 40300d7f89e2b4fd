"""Clustering: what merges, what does not, and bookkeeping."""

import numpy as np
import pytest

from particleforge.simulation.calorimeter import simulate_hits
from particleforge.simulation.clustering import cluster_hits
from particleforge.simulation.columns import Hits

from .calorimeter_fixtures import at_face, beam
from .simulation_fixtures import make_settings

CLIC = make_settings()


def pairs_of_photons(distance_mm, n=40):
    """Return clusters per event of two 10 GeV photons this far apart at the calorimeter's face."""
    radius = CLIC.tracker.radius_mm
    phi = np.linspace(-3, 3, n).repeat(2) + np.tile([0, distance_mm / radius], n)
    entering = at_face(CLIC, np.full(2 * n, 22), 10.0, 1.5, phi, np.arange(n).repeat(2))
    hits = simulate_hits(entering, n, CLIC, np.random.default_rng(4))
    clusters = cluster_hits(hits, n, CLIC)
    return np.bincount(clusters.event, clusters.energy > 2.0, minlength=n)


def test_close_photons_merge_and_distant_ones_do_not():
    assert pairs_of_photons(8.0).mean() == pytest.approx(1.0, abs=0.05)
    assert pairs_of_photons(100.0).mean() == pytest.approx(2.0, abs=0.05)


def test_parts_of_a_hadron_shower_in_both_calorimeters_are_joined():
    n = 100
    hits = simulate_hits(beam(CLIC, 211, 20.0, n), n, CLIC, np.random.default_rng(6))
    clusters = cluster_hits(hits, n, CLIC)
    leading = np.unique(clusters.event, return_index=True)[1]
    assert clusters.energy[leading].mean() > 0.8 * 20
    both = (clusters.energies[leading, :2] > 0.1).all(axis=1)
    assert both.mean() > 0.8


def test_sums_over_hits_are_those_of_the_clusters():
    n = 20
    hits = simulate_hits(beam(CLIC, 211, 10.0, n), n, CLIC, np.random.default_rng(7))
    clusters = cluster_hits(hits, n, CLIC)
    inside = clusters.cluster_of_hit >= 0
    cluster, weight = clusters.cluster_of_hit[inside], hits.energy[inside]
    np.testing.assert_allclose(np.bincount(cluster, weight), clusters.energy, rtol=1e-9)
    np.testing.assert_allclose(clusters.energies.sum(axis=1), clusters.energy, rtol=1e-9)
    np.testing.assert_allclose(
        np.bincount(cluster, weight * hits.x[inside]) / clusters.energy, clusters.x, rtol=1e-9
    )
    np.testing.assert_array_equal(hits.event[inside], clusters.event[cluster])
    assert np.all(clusters.energy > CLIC.clustering.energy_min_mev / 1e3)
    same_event = np.diff(clusters.event) == 0
    assert np.all(np.diff(clusters.energy)[same_event] <= 0)


def test_events_do_not_mix():
    n = 8
    hits = simulate_hits(beam(CLIC, 211, 15.0, n), n, CLIC, np.random.default_rng(8))
    together = cluster_hits(hits, n, CLIC)
    for event in range(n):
        rows = np.flatnonzero(hits.event == event)
        columns = {
            name: getattr(hits, name)[rows]
            for name in ("collection", "cell_id", "energy", "x", "y", "z")
        }
        none = np.zeros(0, np.int64)
        single = Hits(
            np.zeros(len(rows), np.int32),
            **columns,
            contribution_hit=none,
            contribution_particle=none,
            contribution_energy=none,
        )
        alone = cluster_hits(single, 1, CLIC)
        same = together.event == event
        np.testing.assert_array_equal(together.energy[same], alone.energy)
        first = np.flatnonzero(same)[0]
        expected = np.where(alone.cluster_of_hit >= 0, alone.cluster_of_hit + first, -1)
        np.testing.assert_array_equal(together.cluster_of_hit[rows], expected)


def test_no_hits_no_clusters():
    nothing = beam(CLIC, 22, 1.0, 1).take(np.zeros(0, np.int64))
    for n_events in (0, 3):
        hits = simulate_hits(nothing, n_events, CLIC, np.random.default_rng(1))
        assert len(cluster_hits(hits, n_events, CLIC)) == 0
