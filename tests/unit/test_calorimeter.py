"""Calorimeter response: energies, shapes and bookkeeping of hits, within the statistics of fixed
seeds.
"""

import numpy as np
import pytest

from particleforge.simulation.calorimeter import simulate_hits
from particleforge.simulation.calorimeter_geometry import (
    cell_centres,
    cells_of_points,
    collection_of_cells,
    trace_rays,
    volume_table,
)
from particleforge.simulation.columns import HitCollection

from .calorimeter_fixtures import at_face, beam, energy_per_event
from .simulation_fixtures import make_settings

CLIC = make_settings()


def response(pdg, energy, n, settings=CLIC, seed=3):
    hits = simulate_hits(beam(settings, pdg, energy, n), n, settings, np.random.default_rng(seed))
    return energy_per_event(hits, n) / energy, hits


@pytest.mark.parametrize("energy", [1.0, 10.0, 50.0])
def test_photons_are_linear_and_as_resolved_as_configured(energy):
    n = 300
    measured, _ = response(22, energy, n)
    ecal = CLIC.calorimeter.ecal
    expected = np.hypot(ecal.em_stochastic / np.sqrt(energy), ecal.em_constant)
    assert measured.mean() == pytest.approx(1, abs=4 * expected / np.sqrt(n) + 0.01)
    assert measured.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * n) + 0.02)


@pytest.mark.parametrize("energy", [5.0, 20.0])
def test_hadrons_are_linear_and_as_resolved_as_configured(energy):
    n = 500
    measured, _ = response(211, energy, n)
    low, high = (
        np.hypot(stochastic / np.sqrt(energy), constant)
        for stochastic, constant in (
            (CLIC.calorimeter.hcal.hadronic_stochastic, CLIC.calorimeter.hcal.hadronic_constant),
            (CLIC.calorimeter.ecal.hadronic_stochastic, CLIC.calorimeter.ecal.hadronic_constant),
        )
    )
    assert measured.mean() == pytest.approx(1, abs=4 * high / np.sqrt(n) + 0.02)
    # the leakage of the few that interact deep adds to it
    assert 0.9 * low < measured.std() < 1.15 * high


def test_muons_leave_a_line_of_minimum_ionisation_and_reach_the_chambers():
    n = 200
    measured, hits = response(13, 20.0, n)
    entering, (ecal, hcal) = beam(CLIC, 13, 20.0, n), (CLIC.calorimeter.ecal, CLIC.calorimeter.hcal)
    expected = (
        (ecal.n_layers * ecal.mip_mev + hcal.n_layers * hcal.mip_mev)
        / 1e3
        / np.hypot(entering.dx, entering.dy)
    )
    assert (measured * 20).mean() == pytest.approx(expected.mean(), rel=0.02)
    chambers = np.bincount(hits.event, hits.collection == HitCollection.MUON, minlength=n)
    muon = CLIC.calorimeter.muon
    assert chambers.mean() == pytest.approx(muon.n_layers * muon.hit_efficiency, rel=0.03)


def test_a_slow_muon_stops_with_all_its_energy():
    measured, hits = response(13, 0.8, 50)
    assert measured.mean() == pytest.approx(1, abs=0.03)
    assert not (hits.collection == HitCollection.MUON).any()


def test_photon_showers_peak_deeper_by_the_logarithm_of_energy():
    depths = []
    for energy in (1.0, 30.0):
        _, hits = response(22, energy, 150)
        barrel = hits.collection == HitCollection.ECAL_BARREL
        layer = (hits.cell_id[barrel] >> np.uint64(48)) & np.uint64(0xFF)
        depths.append(
            np.average(layer.astype(float), weights=hits.energy[barrel])
            * CLIC.calorimeter.ecal.radiation_lengths_per_layer
        )
    assert depths[1] - depths[0] == pytest.approx(np.log(30.0), rel=0.25)


def test_photon_showers_are_narrower_than_hadron_showers():
    widths = []
    for pdg in (22, 211):
        _, hits = response(pdg, 20.0, 100)
        entering = beam(CLIC, pdg, 20.0, 100)
        axis = np.stack([entering.dx, entering.dy, entering.dz], axis=1)[hits.event]
        position = np.stack([hits.x, hits.y, hits.z], axis=1)
        distance = np.linalg.norm(
            position - (position * axis).sum(axis=1, keepdims=True) * axis, axis=1
        )
        widths.append(np.average(distance, weights=hits.energy))
    assert widths[0] < CLIC.calorimeter.ecal.moliere_radius_mm < widths[1] / 2


def test_contributions_sum_to_the_energy_without_noise():
    quiet = {"noise_mev": 0.0, "threshold_mev": 0.0}
    calorimeter = CLIC.calorimeter.model_copy(
        update={
            name: getattr(CLIC.calorimeter, name).model_copy(update=quiet)
            for name in ("ecal", "hcal")
        }
    )
    settings = CLIC.model_copy(update={"calorimeter": calorimeter})
    n = 30
    event = np.repeat(np.arange(10), 3)
    entering = at_face(
        settings, np.tile([22, 211, 130], 10), 8.0, 1.4, np.tile([0.3, 0.31, 0.32], 10), event
    )
    hits = simulate_hits(entering, 10, settings, np.random.default_rng(1))
    sums = np.bincount(hits.contribution_hit, hits.contribution_energy, minlength=len(hits))
    np.testing.assert_allclose(sums, hits.energy, rtol=1e-12)
    per_particle = np.bincount(hits.contribution_particle, hits.contribution_energy, minlength=n)
    assert np.all(per_particle > 0)
    np.testing.assert_array_equal(
        hits.event[hits.contribution_hit], event[hits.contribution_particle]
    )
    assert len(hits.contribution_hit) > len(hits)  # cells are shared between the neighbours


def test_hits_pass_thresholds_and_cells_are_unique():
    _, hits = response(211, 10.0, 100)
    thresholds = np.array([1.8, 1.8, 12.0, 12.0, 0.0]) / 1e3
    assert np.all(hits.energy >= thresholds[hits.collection])
    keys = np.stack([hits.event.astype(np.uint64), hits.cell_id], axis=1)
    assert len(np.unique(keys, axis=0)) == len(hits)
    assert np.all(np.diff(hits.event) >= 0)
    np.testing.assert_array_equal(hits.collection, collection_of_cells(hits.cell_id))


def test_same_generator_state_gives_the_same_hits():
    first, second = (response(211, 10.0, 20)[1] for _ in range(2))
    for name in ("event", "cell_id", "energy", "contribution_particle", "contribution_energy"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_noise_cells_come_at_the_configured_rate_without_contributions():
    noisy = CLIC.calorimeter.ecal.model_copy(update={"noise_cells_per_event": 20.0})
    settings = CLIC.model_copy(
        update={"calorimeter": CLIC.calorimeter.model_copy(update={"ecal": noisy})}
    )
    n = 200
    nothing = beam(settings, 22, 1.0, 1).take(np.zeros(0, np.int64))
    hits = simulate_hits(nothing, n, settings, np.random.default_rng(2))
    assert len(hits) / n == pytest.approx(20.0, abs=4 * np.sqrt(20.0 / n))
    assert len(hits.contribution_hit) == 0
    assert np.all(hits.energy >= noisy.threshold_mev / 1e3)


def test_dead_cells_are_the_same_in_all_events_and_as_many_as_configured():
    dead = {"dead_cells_fraction": 0.2}
    parts = {
        name: getattr(CLIC.calorimeter, name).model_copy(update=dead) for name in ("ecal", "hcal")
    }
    settings = CLIC.model_copy(update={"calorimeter": CLIC.calorimeter.model_copy(update=parts)})
    (_, whole), (_, found) = (response(211, 10.0, 100, one) for one in (CLIC, settings))
    keys = [list(zip(one.event, one.cell_id, strict=True)) for one in (whole, found)]
    assert set(keys[1]) < set(keys[0])
    lost = set(whole.cell_id.tolist()) - set(found.cell_id.tolist())
    assert not lost & set(found.cell_id.tolist())
    n = len(set(whole.cell_id.tolist()))
    assert len(lost) / n == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / n))
    assert found.contribution_hit.max() < len(found)


def test_no_particles_no_events():
    nothing = beam(CLIC, 22, 1.0, 1).take(np.zeros(0, np.int64))
    for n_events in (0, 3):
        hits = simulate_hits(nothing, n_events, CLIC, np.random.default_rng(1))
        assert len(hits) == len(hits.contribution_hit) == 0


@pytest.mark.parametrize("detector", ["clic", "cld", "cms_like"])
def test_centres_of_cells_lie_in_their_cells(detector):
    settings = make_settings(detector)
    n = 60
    entering = at_face(
        settings, np.full(n, 211), 30.0, np.linspace(0.35, 2.8, n), np.linspace(-3, 3, n)
    )
    hits = simulate_hits(entering, n, settings, np.random.default_rng(1))
    calo = hits.collection < HitCollection.MUON
    volumes = volume_table(settings.calorimeter)
    point = np.stack(cell_centres(settings.calorimeter, hits.cell_id[calo]), axis=1)
    size, zero = len(point), np.zeros(len(point))
    unused = np.zeros((size, 3))
    own = np.repeat(hits.collection[calo].astype(np.int64)[:, None], 4, axis=1)
    again = cells_of_points(
        volumes,
        np.arange(size),
        zero,
        zero.astype(np.int8),
        zero,
        zero,
        point,
        unused,
        unused,
        unused,
        own,
    )
    # Cells at the rim of a volume may have their centre just outside.
    assert (again == hits.cell_id[calo]).mean() > 0.99
    assert set(np.unique(hits.collection)) >= {0, 1, 2, 3}


def test_rays_cross_all_material_in_order():
    entering = at_face(CLIC, np.full(50, 22), 1.0, np.linspace(0.3, 1.5, 50), 0.4)
    origin, direction = (
        np.stack([getattr(entering, c) for c in names], axis=1)
        for names in (("x", "y", "z"), ("dx", "dy", "dz"))
    )
    rays = trace_rays(volume_table(CLIC.calorimeter), origin, direction)
    used = rays.length > 0
    assert np.all(used[:, 0])
    assert np.all(np.diff(np.where(used, rays.start, 1e9), axis=1) >= 0)
    central = np.abs(direction[:, 2]) < 0.5
    ecal = CLIC.calorimeter.ecal
    depth = (rays.length * rays.x0)[central][:, 0] * np.hypot(
        direction[central, 0], direction[central, 1]
    )
    np.testing.assert_allclose(depth, ecal.n_layers * ecal.radiation_lengths_per_layer, rtol=0.02)
