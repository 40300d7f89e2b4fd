"""Which particles are stable, which truth a cluster has, and the limits that make a bad file."""

import awkward as ak
import numpy as np
import pytest

from particleforge.dataset.accounting import accounting_text
from particleforge.errors import UserError

from .edm4hep_events import (
    Event,
    leaves_of,
)
from .truth_events import built, particle, track, transverse, with_clusters


def decay(status, *, daughters=1, daughter_energy=1.0):
    """Return a kaon of this status that became two pions, one of them with a track."""
    kaon = transverse(310, 0, 4.0, 0.4976, status=status, parents=())
    pions = [
        transverse(sign * 211, sign, 2.0 * daughter_energy, 0.1396, status=daughters)
        for sign in (1, -1)
    ]
    return Event(particles=[kaon, *pions], tracks=[track()], track_links=[(0, 1, 1.0)])


def test_what_a_decayed_particle_left_goes_to_those_that_came_of_it(tmp_path):
    event = with_clusters(decay(2), (1.9, 1), (1.5, 0))
    table, metadata = built(tmp_path, [event])
    assert table["particles", "pdg"].to_list() == [[211, -211]]
    assert table["particles", "deposited_energy"][0].to_list() == pytest.approx([1.9, 1.5])
    assert table["targets", "energy"].to_list() == [[pytest.approx(2.0), 0.0, pytest.approx(2.0)]]
    assert metadata["energy_balance_gev"]["orphan_deposits"] == 0


def test_leaves_of_the_history_are_stable_where_all_have_status_1(tmp_path, caplog):
    table, metadata = built(tmp_path, [with_clusters(decay(1), (1.9, 1), (1.5, 2))])
    assert table["particles", "pdg"].to_list() == [[211, -211]]
    assert metadata["energy_balance_gev"]["generated"] == pytest.approx(4.0)
    assert "1 particles of generatorStatus 1 have daughters of the generator" in caplog.text


def test_what_the_simulation_made_is_not_stable_whatever_its_status(tmp_path):
    event = with_clusters(decay(1, daughter_energy=0.5), (1.9, 1))
    for pion in event.particles[1:]:
        pion["simulator_status"] = 1 << 30
    table, _ = built(tmp_path, [event])
    assert table["particles", "pdg"].to_list() == [[310, 211]]  # split: the pion made the track
    assert ak.sum(table["particles", "energy"]) == pytest.approx(4.0)


@pytest.mark.fault("status that does not tell what is stable")
def test_daughters_with_another_energy_than_their_parents_are_refused(tmp_path):
    with pytest.raises(
        UserError,
        match=(
            r"events.root: 1 particles of generatorStatus 1 have daughters of the generator, with"
            r" 20.0% of their energy: which particles are stable cannot be told"
        ),
    ):
        built(tmp_path, [with_clusters(decay(1, daughter_energy=0.2), (1.9, 1))])


@pytest.mark.fault("deposits of nobody")
def test_energy_linked_to_particles_without_a_stable_one_is_shown_and_refused(tmp_path):
    event = with_clusters(decay(2), (1.9, 1), (1.5, 2), (0.6, 3))
    event.particles.append(transverse(2112, 0, 1.0, 0.9396, parents=()))
    _, metadata = built(tmp_path, [event], orphan_energy_fraction_max=0.2)
    assert metadata["energy_balance_gev"]["orphan_deposits"] == pytest.approx(0.6)
    assert "15.00 %" in accounting_text([tmp_path / "dataset.parquet"])
    with pytest.raises(
        UserError,
        match=(
            r"events.root: 15.0% of the calorimeter energy \(0.6 GeV\) is linked to particles for"
            r" which no stable particle of the generator stands, allowed 10.0%"
        ),
    ):
        built(tmp_path, [event], orphan_energy_fraction_max=0.1)


def test_a_cluster_takes_its_links_where_its_hits_are_empty_or_not_read(tmp_path, caplog):
    photons = [particle(22, 0, (4, 0, 0)), particle(22, 0, (3, 0, 0)), particle(22, 0, (2, 0, 0))]
    event = with_clusters(Event(particles=photons), (3.5, 0))
    for energy, hits in ((2.8, []), (1.9, [("SomethingElse", 0)])):
        event.clusters.append({"energy": energy, "position": [0.0, 1600.0, 0.0], "hits": hits})
    event.cluster_links = [(0, 2, 1.0), (1, 1, 1.0), (2, 2, 1.0)]
    leaves = leaves_of([event])
    leaves["SomethingElse.energy"] = ([[1.9]], np.float32)
    table, metadata = built(tmp_path, leaves)
    # the first has hits, and these say more than its link
    assert table["targets", "energy"].to_list() == [[4.0, 3.0, 2.0]]
    left = table["particles", "deposited_energy"][0].to_list()
    assert left == pytest.approx([3.5, 2.8, 1.9])
    assert (
        "hits of clusters lie in SomethingElse, which the detector's 'collections'" in caplog.text
    )
    assert metadata["energy_balance_gev"]["unlinked_clusters"] == 0


@pytest.mark.fault("truth half lost")
@pytest.mark.parametrize(
    ("unread", "reason"),
    [
        (True, "hits lie in SomethingElse, which 'collections' do not name"),
        (False, "42.9% of the clusters' energy is linked to no particle"),
    ],
)
def test_a_file_in_which_much_is_faint_is_refused_with_the_reason(tmp_path, unread, reason):
    photons = [particle(22, 0, (4, 0, 0)), particle(22, 0, (3, 0, 0)), particle(12, 0, (9, 0, 0))]
    event = with_clusters(Event(particles=photons), (4.0, 0))
    position = [0.0, 1600.0, 0.0]
    hits = [("SomethingElse", 0)] if unread else []
    event.clusters.append({"energy": 3.0, "position": position, "hits": hits})
    leaves = leaves_of([event])
    leaves["SomethingElse.energy"] = ([[3.0]], np.float32)
    with pytest.raises(
        UserError,
        match=(
            "events.root: 42.9% of the generated energy, without neutrinos and what flies past the"
            " calorimeters, left too little to be seen, allowed 40.0%: " + reason
        ),
    ):
        built(tmp_path, leaves, faint_energy_fraction_max=0.4)


@pytest.mark.fault("no element at all")
@pytest.mark.parametrize("elements", ["clusters", "hits"])
def test_events_without_any_element_are_refused(tmp_path, elements):
    events = [Event(particles=[particle(12, 0, (4, 0, i))]) for i in range(3)]
    assert len(built(tmp_path, events, empty_events_fraction_max=1.0)[0]) == 3
    with pytest.raises(
        UserError,
        match=(
            f"3 of 3 events have neither a track nor a {elements[:-1]}, allowed 90.0%; see"
            " particleforge inspect"
        ),
    ):
        built(tmp_path, events, empty_events_fraction_max=0.9, calorimeter_elements=elements)


def muons(scale, *, linked=True, number=4):
    """Return an event of muons, with tracks of ``scale`` times their pT in 4 T and candidates."""
    event = Event()
    for i in range(number):
        pt = 2.0 + i
        event.particles.append(particle(13, -1, (pt, 0, 0), 0.1057))
        event.tracks.append(track(-0.299792458e-3 * 4 / (scale * pt)))
        if linked:
            event.track_links.append((i, i, 1.0))
        event.candidates.append(
            {"pdg": 13, "charge": -1, "energy": pt, "p": [pt, 0, 0], "tracks": [i], "clusters": []}
        )
    return with_clusters(event, *((p["p"][0], i) for i, p in enumerate(event.particles)))


@pytest.mark.fault("wrong magnetic field")
@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize(("scale", "field"), [(2.0, "2"), (0.5, "8"), (4 / 3.5, "3.5")])
def test_tracks_of_another_field_than_the_detectors_are_refused(tmp_path, scale, field, linked):
    of = "the particles linked to them" if linked else "the candidates made of them"
    with pytest.raises(
        UserError,
        match=(
            rf"events.root: tracks have {scale:.3g} times the pT of {of} \(median of 4\): with"
            f" b_field_tesla 4, where {field} would fit"
        ),
    ):
        built(tmp_path, [muons(scale, linked=linked)], track_pt_deviation_max=0.1)


def test_a_field_that_fits_and_links_that_scatter_are_no_wrong_field(tmp_path):
    built(tmp_path, [muons(1.05)], track_pt_deviation_max=0.1)
    built(tmp_path, [muons(2.0, number=2)], track_pt_deviation_max=0.1)
    scattered = muons(2.0, number=9)
    scattered.candidates = []
    scattered.track_links = [(i, (i * 5 + 1) % 9, 1.0) for i in range(9)]
    built(tmp_path, [scattered], track_pt_deviation_max=0.1)
