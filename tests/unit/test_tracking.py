"""Tracks: efficiency, resolution and conventions as configured, within the statistics of fixed
seeds.
"""

import numpy as np
import pytest

from particleforge.edm4hep.constants import GEV_PER_TESLA_MM
from particleforge.simulation import propagation, tracking
from particleforge.simulation.columns import Particles, Tracks

from .simulation_fixtures import gun, make_settings, without_material

CLIC = without_material(make_settings())
CMS = without_material(make_settings("cms_like"))


def tracks_of(particles: Particles, settings=CLIC, seed: int = 1) -> tuple[Particles, Tracks]:
    rng = np.random.default_rng(seed)
    record, _, flights = propagation.propagate(particles, settings, rng)
    return record, tracking.make_tracks(record, flights, settings, rng)


@pytest.mark.parametrize("theta", [np.pi / 2, 0.6, 0.25])
@pytest.mark.parametrize("p", [1.0, 50.0])
def test_momentum_resolution_is_the_configured_one(theta: float, p: float) -> None:
    n = 4000
    _, tracks = tracks_of(gun(-13, p, theta, n))
    eta, pt = -np.log(np.tan(theta / 2)), p * np.sin(theta)
    region = next(r for r in CLIC.tracker.momentum_resolution if eta <= r.abs_eta_max)
    expected = np.hypot(region.curvature_per_gev * pt, region.constant)
    pulls = (tracks.omega * pt / (GEV_PER_TESLA_MM * CLIC.b_field_tesla) - 1) / expected
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * n))
    assert pulls.mean() == pytest.approx(0, abs=4 / np.sqrt(n))


@pytest.mark.parametrize(
    ("p", "theta", "efficiency"),
    [(5.0, np.pi / 2, 0.97), (20.0, 0.25, 0.87), (0.8, np.pi / 2, 0.8)],
)
def test_efficiency_is_that_of_the_region(p: float, theta: float, efficiency: float) -> None:
    n = 10000
    _, tracks = tracks_of(gun(13, p, theta, n), CMS)
    assert len(tracks) / n == pytest.approx(
        efficiency, abs=4 * np.sqrt(efficiency * (1 - efficiency) / n)
    )


def test_nothing_is_found_outside_the_acceptance() -> None:
    assert len(tracks_of(gun(13, 0.4, np.pi / 2, 200), CMS)[1]) == 0  # below pt_min
    assert len(tracks_of(gun(13, 20.0, 0.12, 200), CMS)[1]) == 0  # |eta| = 2.8
    assert len(tracks_of(gun(22, 20.0, 1.0, 200))[1]) == 0


def test_parameters_have_their_conventions_and_resolutions() -> None:
    n = 4000
    tracker = CLIC.tracker
    for pdg, charge in ((13, -1), (-13, 1)):
        particles, tracks = tracks_of(gun(pdg, 10.0, 1.0, n))
        assert np.all(tracks.charge == charge)
        assert np.all(np.sign(tracks.omega) == charge)
        assert np.allclose(tracks.pt, GEV_PER_TESLA_MM * CLIC.b_field_tesla / np.abs(tracks.omega))
        assert np.allclose(tracks.p, tracks.pt * np.hypot(1, tracks.tan_lambda))
        row = tracks.particle
        turn = (
            np.mod(
                tracks.phi0 - np.arctan2(particles.py[row], particles.px[row]) + np.pi, 2 * np.pi
            )
            - np.pi
        )
        impact = np.hypot(
            tracker.impact_resolution_mm,
            tracker.impact_scattering_mm_gev / (10.0 * np.sin(1.0) ** 1.5),
        )
        for values, sigma in (
            (turn, tracker.angle_resolution_rad),
            (tracks.d0, impact),
            (tracks.z0, impact),
        ):
            assert values.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * n))


def test_state_at_the_calorimeter_is_close_to_the_true_crossing() -> None:
    record, entering, flights = propagation.propagate(
        gun(13, 10.0, np.linspace(0.3, 2.8, 2000), 2000), CLIC, np.random.default_rng(1)
    )
    tracks = tracking.make_tracks(record, flights, CLIC, np.random.default_rng(2))
    where = np.searchsorted(entering.particle, tracks.particle)
    assert np.array_equal(entering.particle[where], tracks.particle)
    distance = np.sqrt(
        sum(
            (getattr(tracks, f"{axis}_calo") - getattr(entering, axis)[where]) ** 2
            for axis in "xyz"
        )
    )
    assert np.median(distance) < 1.0
    cosine = sum(
        getattr(tracks, f"d{axis}_calo") * getattr(entering, f"d{axis}")[where] for axis in "xyz"
    )
    assert np.all(cosine > 0.999)


def test_layers_crossed_are_counted_exactly() -> None:
    _, central = tracks_of(gun(13, 50.0, np.pi / 2, 50))
    assert np.all(central.n_hits == len(CLIC.tracker.barrel_layers))
    assert np.allclose(central.radius_innermost_hit, CLIC.tracker.barrel_layers[0].radius_mm)
    assert np.all(central.ndf == 2 * central.n_hits - 5)
    theta = 0.35
    tangent = np.tan(theta)
    barrel = sum(
        layer.radius_mm < layer.half_length_mm * tangent for layer in CLIC.tracker.barrel_layers
    )
    disks = sum(
        disk.inner_radius_mm < disk.z_mm * tangent < disk.outer_radius_mm
        for disk in CLIC.tracker.disks
    )
    _, forward = tracks_of(gun(13, 1000.0, theta, 50))
    assert np.all(forward.n_hits == barrel + disks)


def test_short_tracks_are_worse_and_decays_too_far_out_make_none() -> None:
    record, tracks = tracks_of(gun(310, np.full(20000, 10.0), np.pi / 2, 20000))
    from_kaon = np.abs(record.pdg[tracks.particle]) == 211
    vertex = np.hypot(record.x, record.y)[tracks.particle]
    assert from_kaon.any()
    assert (
        vertex[from_kaon].max()
        < sorted(layer.radius_mm for layer in CLIC.tracker.barrel_layers)[-CLIC.tracker.hits_min]
    )
    pt = np.hypot(record.px, record.py)[tracks.particle]
    error = np.abs(tracks.pt / pt - 1)
    assert np.median(error[from_kaon & (vertex > 400)]) > 1.5 * np.median(
        error[from_kaon & (vertex < 100)]
    )


def test_ionisation_has_its_minimum_and_its_rise() -> None:
    momentum = np.geomspace(0.3, 1e4, 400)
    loss = tracking.ionisation(momentum)
    lowest = momentum[np.argmin(loss)]
    assert 3 < lowest < 4.5
    assert loss.min() == pytest.approx(3.88e-4, rel=0.03)  # PDG: 1.664 MeV cm2/g in silicon
    assert loss[0] > 4 * loss.min()
    _, tracks = tracks_of(gun(13, 10.0, 1.0, 4000))
    assert np.std(tracks.dedx) / np.mean(tracks.dedx) == pytest.approx(
        CLIC.tracker.dedx_resolution, rel=0.05
    )


def test_links_share_hits_between_neighbours() -> None:
    settings = CLIC.model_copy(
        update={"tracker": CLIC.tracker.model_copy(update={"shared_hit_probability": 0.3})}
    )
    particles = gun(13, 5.0, 1.0, 3000)
    crowded = Particles(**{**particles.__dict__, "event": (particles.event // 3).astype(np.int32)})
    _, tracks = tracks_of(crowded, settings)
    n_links = np.bincount(tracks.link_track, minlength=len(tracks))
    assert np.allclose(np.bincount(tracks.link_track, tracks.link_weight, len(tracks)), 1)
    assert np.mean(n_links == 2) == pytest.approx(0.3, abs=0.04)
    assert np.all(np.diff(tracks.link_track) >= 0)
    assert np.all(crowded.event[tracks.link_particle] == tracks.event[tracks.link_track])
    _, lonely = tracks_of(particles, settings)
    assert np.array_equal(lonely.link_particle, lonely.particle)
