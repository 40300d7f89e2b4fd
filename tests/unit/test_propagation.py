"""Flight to the calorimeter: decays, conversions, interactions, and the record they leave."""

import numpy as np
import pytest

from particleforge.edm4hep.datamodel import CREATED_IN_SIMULATION
from particleforge.simulation import decays, interactions, propagation
from particleforge.simulation.columns import Kind, Particles

from .simulation_fixtures import gun, make_settings, without_material

SETTINGS = make_settings()


def four_momentum(particles: Particles, rows: np.ndarray) -> np.ndarray:
    return np.stack([getattr(particles, name)[rows] for name in ("px", "py", "pz", "energy")])


def check_record(particles: Particles) -> None:
    """Parents and daughters are each other's inverse, within one event, and daughters begin where
    parents say.
    """
    child = np.repeat(np.arange(len(particles)), np.diff(particles.parents_offsets))
    parent = np.repeat(np.arange(len(particles)), np.diff(particles.daughters_offsets))
    pairs = set(zip(child.tolist(), particles.parents_index.tolist(), strict=True))
    assert pairs == set(zip(particles.daughters_index.tolist(), parent.tolist(), strict=True))
    assert np.all(particles.event[child] == particles.event[particles.parents_index])
    assert np.all(np.diff(particles.event) >= 0)
    made = particles.generator_status[child] == 0
    child, parent = child[made], particles.parents_index[made]
    assert np.all(particles.simulator_status[child] & CREATED_IN_SIMULATION)
    detached = (
        particles.simulator_status[child] & propagation.VERTEX_IS_NOT_ENDPOINT_OF_PARENT
    ) != 0
    for axis in "xyz":
        end = getattr(particles, f"endpoint_{axis}")[parent]
        assert np.allclose(getattr(particles, axis)[child][~detached], end[~detached], atol=1e-6)


@pytest.mark.parametrize("pdg", sorted(decays.CHANNELS) + [-321, -3122, -3334])
def test_decays_conserve_four_momentum_and_charge(pdg: int) -> None:
    parents = gun(pdg, 3.0, 1.0, 500)
    p = np.stack([parents.px, parents.py, parents.pz, parents.energy])
    products = decays.decay(parents.pdg.astype(np.int64), *p, np.random.default_rng(1))
    energy = np.sqrt(products.px**2 + products.py**2 + products.pz**2 + products.mass**2)
    daughters = np.stack(
        [
            np.bincount(products.parent, values)
            for values in (products.px, products.py, products.pz, energy)
        ]
    )
    assert np.allclose(daughters, p, atol=1e-9)
    charge = np.bincount(products.parent, propagation.species.charge_of(products.pdg))
    assert np.array_equal(charge, parents.charge)


def test_kaons_decay_with_their_lifetime_and_branching() -> None:
    n = 20000
    particles, _, _ = propagation.propagate(
        gun(310, 1.0, np.pi / 2, n), without_material(SETTINGS), np.random.default_rng(2)
    )
    check_record(particles)
    kaons = np.flatnonzero(particles.pdg == 310)
    decayed = kaons[(particles.simulator_status[kaons] & propagation.DECAYED_IN_TRACKER) > 0]
    flight = np.hypot(particles.endpoint_x, particles.endpoint_y)[decayed]
    length = 26.842 * 1.0 / 0.49761
    assert len(decayed) / n == pytest.approx(1, abs=1e-3)
    assert flight.mean() == pytest.approx(length, rel=4 / np.sqrt(n))
    first = particles.daughters_index[particles.daughters_offsets[decayed]]
    charged = np.mean(np.abs(particles.pdg[first]) == 211)
    assert charged == pytest.approx(0.692 / 0.9989, abs=4 * np.sqrt(0.21 / n))


def test_conversions_conserve_energy_and_follow_the_material() -> None:
    n = 20000
    particles, entering, _ = propagation.propagate(
        gun(22, 10.0, 1.2, n), SETTINGS, np.random.default_rng(3)
    )
    check_record(particles)
    photons = np.flatnonzero(particles.generator_status == 1)
    converted = photons[(particles.simulator_status[photons] & propagation.DECAYED_IN_TRACKER) > 0]
    expected = -np.expm1(-7 / 9 * SETTINGS.tracker.material_radiation_lengths / np.sin(1.2))
    assert len(converted) / n == pytest.approx(expected, abs=4 * np.sqrt(expected / n))
    pair = np.stack(
        [particles.daughters_index[particles.daughters_offsets[converted] + i] for i in (0, 1)]
    )
    assert np.array_equal(
        np.sort(particles.pdg[pair], axis=0), np.broadcast_to([[-11], [11]], pair.shape)
    )
    total = four_momentum(particles, pair[0]) + four_momentum(particles, pair[1])
    original = four_momentum(particles, converted)
    assert np.allclose(total[3], original[3], rtol=1e-12)
    # the nucleus takes up m^2 / (2 E1) + m^2 / (2 E2) at most
    softest = particles.energy[pair].min(axis=0)
    assert np.all(
        np.abs(total[:3] - original[:3]) <= 2 * interactions.ELECTRON_MASS**2 / softest + 1e-12
    )
    assert set(np.unique(entering.kind)) == {Kind.ELECTROMAGNETIC}


def test_pair_energies_follow_bethe_heitler() -> None:
    share = interactions._pair_share(200_000, np.random.default_rng(4))
    counts, edges = np.histogram(share, 10, (0, 1))
    middle = 0.5 * (edges[1:] + edges[:-1])
    expected = (1 - 4 / 3 * middle * (1 - middle)) * 9 / 7 * 0.1 * len(share)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected) + 0.002 * expected)


def test_electrons_lose_energy_to_photons_they_radiate() -> None:
    n = 20000
    settings = SETTINGS
    particles, entering, flights = propagation.propagate(
        gun(11, 20.0, np.pi / 2, n), settings, np.random.default_rng(5)
    )
    check_record(particles)
    thickness = settings.tracker.material_radiation_lengths
    primary = particles.generator_status[entering.particle] == 1
    left = np.zeros(n)
    left[entering.event[primary]] = entering.energy[primary] / 20.0
    # <z> of -ln z ~ Gamma(t / ln 2) is 2^(-t / ln 2)
    assert left[left > 0].mean() == pytest.approx(2 ** (-thickness / np.log(2)), abs=0.01)
    everything = np.bincount(entering.event, entering.energy, n)
    original = particles.energy[particles.generator_status == 1]
    # momentum is conserved, energy up to the mass
    assert np.all(everything < original + interactions.ELECTRON_MASS)
    # the others lost soft electrons that circle in the tracker
    assert np.mean(everything > 0.999 * original) > 0.9
    assert np.all(flights.momentum_share <= 1)


def test_broken_up_nuclei_never_yield_energy() -> None:
    n = 5000
    parents = gun(-211, np.geomspace(0.6, 100, n), 1.0, n)
    state = propagation.State(
        *(getattr(parents, name) for name in ("x", "y", "z", "px", "py", "pz", "charge"))
    )
    products = interactions.break_up(
        parents.pdg.astype(np.int64), state, parents.mass, np.random.default_rng(6)
    )
    energy = np.bincount(
        products.parent,
        np.sqrt(products.px**2 + products.py**2 + products.pz**2 + products.mass**2),
    )
    assert np.all(energy <= parents.energy)
    assert np.all(energy > 0.5 * parents.energy)
    leading = np.flatnonzero(np.diff(products.parent, prepend=-1))
    assert np.all(products.pdg[leading] == -211)


def test_slow_circling_particles_stop_and_those_in_the_beam_hole_leave() -> None:
    slow = propagation.propagate(
        gun(13, 0.05, np.pi / 2 - 1e-4, 20), SETTINGS, np.random.default_rng(7)
    )
    assert np.all(
        slow[0].simulator_status[:20] & (propagation.STOPPED | propagation.DECAYED_IN_TRACKER)
    )
    assert len(slow[1]) == 0
    forward = propagation.propagate(
        gun(22, 50.0, 0.02, 20), without_material(SETTINGS), np.random.default_rng(8)
    )
    assert np.all(forward[0].simulator_status == propagation.LEFT_DETECTOR)
    assert len(forward[1]) == 0


def test_what_enters_lies_on_the_face_with_what_can_be_measured() -> None:
    settings = without_material(SETTINGS)
    tracker = settings.tracker
    for pdg, visible in (
        (2212, np.hypot(5.0, 0.93827) - 0.93827),
        (-2112, np.hypot(5.0, 0.93957) + 0.93957),
        (130, np.hypot(5.0, 0.49761)),
    ):
        particles, entering, _ = propagation.propagate(
            gun(pdg, 5.0, np.linspace(0.3, 2.8, 300), 300), settings, np.random.default_rng(9)
        )
        kept = entering.pdg == pdg
        assert np.allclose(entering.energy[kept], visible, atol=1e-4)
        on_barrel = np.isclose(np.hypot(entering.x, entering.y), tracker.radius_mm, atol=1e-3)
        on_end = np.isclose(np.abs(entering.z), tracker.half_length_mm, atol=1e-3)
        assert np.all(on_barrel | on_end)
        assert np.allclose(entering.dx**2 + entering.dy**2 + entering.dz**2, 1)
        assert np.all(
            entering.x * entering.dx + entering.y * entering.dy + entering.z * entering.dz > 0
        )
        assert np.array_equal(particles.event[entering.particle], entering.event)
