"""Generated events: four-momentum, record structure, vertices, seeds, failures.

And pile-up on top of them.
"""

import awkward as ak
import numpy as np
import pytest

from particleforge.config.detector import PileUpConfig
from particleforge.errors import UserError
from particleforge.simulation import generator
from particleforge.simulation.pile_up import PileUp
from particleforge.simulation.propagation import OVERLAY

from .simulation_fixtures import make_settings

N = 40


def events(detector: str, sample: str, seed: int = 3, n: int = N):
    settings = make_settings(detector, sample)
    pythia = generator.make_pythia(settings.beams, settings.pythia, seed, sample)
    records = generator.next_events(pythia, n, sample)
    return (
        settings,
        records,
        generator.to_particles(records, settings.beams, np.random.default_rng(seed)),
    )


@pytest.mark.parametrize(("detector", "sample"), [("clic", "ttbar"), ("clic", "qq"), ("cld", "ww")])
def test_stable_particles_carry_the_four_momentum_of_the_beams(detector: str, sample: str) -> None:
    settings, records, particles = events(detector, sample)
    stable = particles.generator_status == 1
    energy = np.bincount(particles.event[stable], particles.energy[stable])
    assert np.allclose(energy, settings.beams.com_energy_gev, rtol=1e-6)
    for name in ("px", "py", "pz"):
        assert np.allclose(
            np.bincount(particles.event[stable], getattr(particles, name)[stable]), 0, atol=1e-4
        )
    assert stable.sum() == ak.sum(records.status > 0)
    charge = np.bincount(particles.event[stable], particles.charge[stable])
    assert np.allclose(charge, 0)


def test_initial_state_radiation_takes_energy_along_the_beams() -> None:
    _, _, particles = events("clic", "qq")
    photons = (particles.generator_status == 1) & (particles.pdg == 22)
    along = np.abs(particles.pz[photons]) > 0.999 * particles.energy[photons]
    assert particles.energy[photons][along].max() > 50


def test_record_has_the_parents_of_pythia() -> None:
    _, records, particles = events("clic", "ttbar")
    first_row = np.searchsorted(particles.event, np.arange(N))
    assert np.all(particles.generator_status[first_row] == 4)  # the beams
    child = np.repeat(np.arange(len(particles)), np.diff(particles.parents_offsets))
    assert np.all(particles.parents_index < child) or np.all(
        particles.event[child] == particles.event[particles.parents_index]
    )
    has_parents = np.diff(particles.parents_offsets) > 0
    assert np.all(has_parents | (particles.generator_status == 4))
    # every decayed hadron hands its four-momentum to its daughters
    row = np.flatnonzero((np.abs(particles.pdg) == 511) & (particles.generator_status == 2))
    for parent in row[:20]:
        daughters = particles.daughters_index[
            particles.daughters_offsets[parent] : particles.daughters_offsets[parent + 1]
        ]
        assert particles.energy[daughters].sum() == pytest.approx(
            particles.energy[parent], rel=1e-6
        )
    one = ak.to_list(records[0][["id", "mother1", "mother2", "status"]])
    last = len(one) - 2  # row 0 of Pythia's record is left out
    mothers = particles.parents_index[
        particles.parents_offsets[last] : particles.parents_offsets[last + 1]
    ]
    assert mothers[0] == one[-1]["mother1"] - 1


def test_vertices_follow_the_luminous_region_and_flight() -> None:
    settings, _, particles = events("clic", "qq", n=200)
    beam = particles.generator_status == 4
    z = particles.z[beam]
    assert z.std() == pytest.approx(settings.beams.spot_sigma_mm[2], rel=0.2)
    decayed = (np.abs(particles.pdg) == 411) & (particles.generator_status == 2)  # D mesons fly
    flight = np.sqrt(
        sum(
            (getattr(particles, f"endpoint_{a}") - getattr(particles, a))[decayed] ** 2
            for a in "xyz"
        )
    )
    assert 0.1 < np.median(flight) < 20


def test_seeds_decide() -> None:
    same, again, other = (events("clic", "ttbar", seed)[2] for seed in (5, 5, 6))
    assert np.array_equal(same.px, again.px)
    assert len(same) != len(other) or not np.array_equal(same.px, other.px)


def test_mistakes_in_settings_name_the_sample() -> None:
    settings = make_settings()
    with pytest.raises(UserError, match=r"samples\.x.*Top:nonsense = on"):
        generator.make_pythia(settings.beams, ["Top:nonsense = on"], 1, "samples.x")
    with pytest.raises(UserError, match=r"samples\.x: Pythia8 cannot start"):
        generator.make_pythia(settings.beams, [], 1, "samples.x")


def test_pile_up_has_its_mean_its_spread_and_leaves_the_signal_alone() -> None:
    settings, signal = make_settings("cms_like"), events("clic", "ttbar", n=4)[2]
    mean, n_events = 3.0, 400
    # starts fast
    processes = ("HardQCD:all = on", "PhaseSpace:pTHatMin = 20.", "PartonLevel:MPI = off")
    pile_up = PileUpConfig(mean_interactions=mean, abs_eta_max=2.0, processes=processes)
    merged = PileUp(settings.beams, pile_up, 9, "pile_up").overlay(
        signal, n_events, np.random.default_rng(4)
    )
    overlaid = (merged.simulator_status & OVERLAY) > 0
    # each has a vertex of its own, at which most of its particles begin; decays have few
    n_interactions = np.sum(np.unique(merged.z[overlaid], return_counts=True)[1] > 3)
    assert n_interactions / n_events == pytest.approx(mean, rel=0.15)
    for name in ("pdg", "px", "z", "generator_status"):
        assert np.array_equal(getattr(merged, name)[~overlaid], getattr(signal, name))
    assert np.all(np.diff(merged.event) >= 0)
    assert np.all(np.diff(merged.parents_offsets)[overlaid] == 0)
    child = np.repeat(np.arange(len(merged)), np.diff(merged.parents_offsets))
    assert np.array_equal(
        merged.pdg[child],
        signal.pdg[np.repeat(np.arange(len(signal)), np.diff(signal.parents_offsets))],
    )
    assert np.array_equal(merged.pdg[merged.parents_index], signal.pdg[signal.parents_index])
    assert merged.z[overlaid].std() == pytest.approx(53, rel=0.1)
    momentum = np.hypot(merged.px, merged.py)[overlaid]
    assert np.all(np.abs(np.arcsinh(merged.pz[overlaid] / momentum)) < 2.0)


def test_no_two_events_share_a_pile_up_interaction() -> None:
    settings, signal = make_settings("cms_like"), events("clic", "ttbar", n=4)[2]
    processes = ("HardQCD:all = on", "PhaseSpace:pTHatMin = 20.", "PartonLevel:MPI = off")
    pile_up = PileUpConfig(mean_interactions=3.0, processes=processes)

    def overlaid(seed: int) -> np.ndarray:
        """Return what turning about the beam leaves as it is, of all pile-up of two batches."""
        one = PileUp(settings.beams, pile_up, seed, "pile_up")
        rng = np.random.default_rng(4)
        batches = [one.overlay(signal, 50, rng) for _ in range(2)]
        return np.concatenate(
            [batch.pz[(batch.simulator_status & OVERLAY) > 0] for batch in batches]
        )

    first, again, other = overlaid(9), overlaid(9), overlaid(10)
    assert len(first) > 1000
    assert len(np.unique(first)) == len(first)
    assert np.array_equal(first, again)
    assert not np.intersect1d(first, other).size
