"""The dataset's truth against a slow, literal reference, on made-up events written to and read from
EDM4hep files.
"""

import math
from collections import Counter

import awkward as ak
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from particleforge.dataset.balance import DROPPED, INVISIBLE
from particleforge.errors import UserError
from particleforge.tables import schema
from particleforge.tables.schema import Fate

from .dataset_settings import dataset_settings
from .edm4hep_events import (
    HIT_COLLECTIONS,
    Event,
    as_simulated,
    random_event,
)
from .odd_events import HOLDS, ODDITIES
from .truth_events import built, particle, track, transverse, with_clusters
from .truth_reference import reference, with_hits_as_clusters

RULES = {
    "fraction": 0.1,
    "charged_gev": 0.5,
    "share": 0.2,
    "outside": 0.5,
    "pz_per_pt": 2539 / 250,  # from the HCAL endcap of clic
    "gev_per_mm": 0.299792458e-3 * 4,
    "reach_mm": 1500,
}


a_few_files = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking writes hundreds of files
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SIZES = st.tuples(st.integers(0, 14), st.integers(0, 5), st.integers(0, 6), st.integers(0, 6))
EVENTS = st.lists(st.one_of(SIZES, st.sampled_from(list(ODDITIES))), min_size=1, max_size=15)
ALL_ODDITIES = [*ODDITIES, (12, 5, 6, 6), *ODDITIES]


def made_up(rng, asked):
    """Return an event for each oddity, or tuple of sizes, that is asked for.

    An oddity is there whatever the random numbers are.
    """
    events = [
        ODDITIES[one](rng) if isinstance(one, str) else random_event(rng, *one) for one in asked
    ]
    for one, event in zip(asked, events, strict=True):
        if one != "status 1 throughout":
            as_simulated(event.particles)
        assert not isinstance(one, str) or HOLDS[one](event), one
    return events


@a_few_files
@given(
    seed=st.integers(0, 2**32 - 1),
    asked=EVENTS,
    modern=st.booleans(),
    hits=st.booleans(),
    chunk_events=st.integers(1, 25),
)
@example(seed=1, asked=ALL_ODDITIES, modern=True, hits=True, chunk_events=4)
@example(seed=2, asked=ALL_ODDITIES, modern=False, hits=True, chunk_events=100)
@example(seed=3, asked=ALL_ODDITIES, modern=True, hits=False, chunk_events=1)
@example(seed=4, asked=["nothing at all"], modern=True, hits=True, chunk_events=10)
def test_agrees_with_the_slow_reference(tmp_path, seed, asked, modern, hits, chunk_events):
    events = made_up(np.random.default_rng(seed), asked)
    table, metadata = built(tmp_path, events, modern, hits, chunk_events=chunk_events)
    assert_agrees(table, metadata, [reference(event, RULES, hits) for event in events])


@a_few_files
@given(
    seed=st.integers(0, 2**32 - 1),
    asked=EVENTS,
    modern=st.booleans(),
    hit_energy_min_mev=st.sampled_from([0.0, 300.0, 1e5]),
    chunk_events=st.integers(1, 25),
)
@example(seed=5, asked=ALL_ODDITIES, modern=True, hit_energy_min_mev=300.0, chunk_events=7)
def test_hits_as_elements_agree_with_the_slow_reference(
    tmp_path, seed, asked, modern, hit_energy_min_mev, chunk_events
):
    events = made_up(np.random.default_rng(seed), asked)
    chosen = {"calorimeter_elements": "hits", "hit_energy_min_mev": hit_energy_min_mev}
    table, metadata = built(tmp_path, events, modern, chunk_events=chunk_events, **chosen)
    events = [with_hits_as_clusters(event, hit_energy_min_mev / 1000) for event in events]
    assert_agrees(table, metadata, [reference(event, RULES) for event in events])
    for event, row in zip(events, table, strict=True):
        hits = row["clusters"]
        assert tuple(hits.fields) == schema.HITS.names
        assert hits["energy"].to_list() == [cluster["energy"] for cluster in event.clusters]
        system = [HIT_COLLECTIONS.index(cluster["hits"][0][0]) for cluster in event.clusters]
        assert [hits[name].to_list() for name in ("in_ecal", "in_hcal", "in_other")] == [
            [s == k for s in system] for k in range(3)
        ]
        for hit, cluster in zip(hits.to_list(), event.clusters, strict=True):
            x, y, z = cluster["position"]
            assert (hit["x"], hit["y"], hit["z"]) == (x, y, z)
            distance = math.hypot(x, y, z)
            expected = (
                cluster["energy"] * math.hypot(x, y) / distance,
                math.asinh(z / math.hypot(x, y)),
                math.atan2(y, x),
            )
            assert (hit["et"], hit["eta"], hit["phi"]) == pytest.approx(expected, rel=1e-6)
            ecal = dataset_settings().calorimeter.ecal
            face = min(
                ecal.barrel_inner_radius_mm * distance / math.hypot(x, y),
                ecal.endcap_z_min_mm * distance / abs(z),
            )
            assert hit["depth"] == pytest.approx(distance - face, rel=1e-6, abs=1e-3)


def test_made_up_events_reach_every_rule():
    """What the comparisons above cover is not left to luck."""
    found, fates = Counter(), Counter()
    for seed in (1, 2, 3):  # those of the examples above
        for event in made_up(np.random.default_rng(seed), ALL_ODDITIES):
            expected = reference(event, RULES)
            found.update(expected["balance"])
            fates.update(row[5] for row in expected["particles"])
    assert all(fates[fate] > 10 for fate in Fate)
    assert all(
        found[name] > 0 for name in ("generated", "visible", "merged", *DROPPED, *INVISIBLE)
    ), found


def test_chunks_and_neighbours_do_not_matter(tmp_path):
    events = made_up(np.random.default_rng(6), ALL_ODDITIES)
    whole, at_once = built(tmp_path, events, chunk_events=100)
    for chunk_events in (1, 3, len(events) - 1):
        table, metadata = built(tmp_path, events, chunk_events=chunk_events)
        assert ak.array_equal(table, whole, equal_nan=False)
        assert metadata["counts"] == at_once["counts"]
        assert metadata["energy_balance_gev"] == pytest.approx(
            at_once["energy_balance_gev"], rel=1e-12
        )


@pytest.mark.fault("history in circles")
@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    "parents",
    [{2: [2]}, {2: [3], 3: [2]}, {1: [4], 3: [1], 4: [3], 2: [4]}, {2: [0, 3], 3: [1, 2]}],
    ids=["own", "two", "three", "second"],
)
def test_a_history_that_runs_in_circles_is_refused(tmp_path, parents, modern):
    events = made_up(np.random.default_rng(7), list(ODDITIES))
    history = [particle(22, 0, (1, 0, 0)) for _ in range(5)]
    for entry, its_parents in parents.items():
        history[entry]["parents"] = its_parents
    events.insert(8, Event(particles=history))
    for chunk_events in (3, 100):
        with pytest.raises(
            UserError,
            match=(
                rf"^\S*events.root: event 8: particle {min(parents)} of MCParticles is its own"
                r" ancestor;.*$"
            ),
        ):
            built(tmp_path, events, modern, chunk_events=chunk_events)
    assert not (tmp_path / "dataset.parquet").exists()


def assert_agrees(table, metadata, events):
    """Compare a dataset with what the reference says of its ``events``."""
    totals = Counter()
    for expected, row in zip(events, table, strict=True):
        found = [
            (
                p["pdg"],
                p["px"],
                p["py"],
                p["pz"],
                p["energy"],
                p["fate"],
                p["element"],
                p["deposited_energy"],
            )
            for p in row["particles"].to_list()
        ]
        assert len(found) == len(expected["particles"])
        np.testing.assert_allclose(
            np.array(found, float).reshape(-1, 8),
            np.array(expected["particles"], float).reshape(-1, 8),
            rtol=1e-6,
            atol=1e-6,
        )
        targets = row["targets"].to_list()
        assert len(targets) == len(row["tracks"]) + len(row["clusters"]) == len(expected["targets"])
        for target, wanted in zip(targets, expected["targets"], strict=True):
            assert (target["particle"], target["n_merged"]) == (wanted["owner"], wanted["n_merged"])
            np.testing.assert_allclose(
                [target[n] for n in ("px", "py", "pz", "energy")],
                wanted["p4"],
                rtol=1e-6,
                atol=1e-6,
            )
            assert (target["class_id"] == 0) == (wanted["owner"] < 0)
        assert row["candidates"]["element"].to_list() == expected["candidates"]
        totals.update(expected["balance"])
    (account,) = metadata["files"]
    balance = metadata["energy_balance_gev"]
    assert balance == pytest.approx(account["energy_balance_gev"], rel=1e-12)
    balance |= {name: metadata["counts"][name] for name in totals if name.startswith("n_")}
    assert {name: balance[name] for name in totals} == pytest.approx(totals, rel=1e-6, abs=1e-6)
    assert balance["target"] + balance["dropped"] == pytest.approx(
        balance["visible"], rel=1e-6, abs=1e-6
    )
    assert sum(balance[name] for name in DROPPED) == pytest.approx(
        balance["dropped"], rel=1e-6, abs=1e-6
    )
    assert balance["visible"] + sum(balance[name] for name in INVISIBLE) == pytest.approx(
        balance["generated"], rel=1e-6, abs=1e-6
    )
    for collection in ("tracks", "clusters", "candidates"):
        for name in table[collection].fields:
            assert np.all(np.isfinite(ak.to_numpy(ak.flatten(table[collection, name]))))


def test_conversion_gives_its_tracks_to_electrons(tmp_path):
    photon = particle(22, 0, (4, 0, 0))
    electron = particle(11, -1, (3, 0, 0))
    positron = particle(-11, 1, (1, 0, 0))
    for daughter in (electron, positron):
        daughter.update(status=0, parents=[0])
    event = Event(particles=[photon, electron, positron], tracks=[track(-1e-4), track(3e-4)])
    event.track_links = [(0, 1, 1.0), (1, 2, 1.0)]
    table, metadata = built(tmp_path, [with_clusters(event, (2.8, 1), (0.9, 2))])
    assert table["targets", "energy"].to_list() == [[3.0, 1.0, 0.0, 0.0]]
    assert table["targets", "charge"].to_list() == [[-1, 1, 0, 0]]
    assert table["targets", "class_id"].to_list() == [[4, 4, 0, 0]]
    assert table["particles", "fate"].to_list() == [[Fate.HOSTED, Fate.HOSTED]]
    assert metadata["counts"]["n_split"] == 2


def test_one_tracked_daughter_leaves_a_remainder(tmp_path):
    kaon = particle(310, 0, (4, 0, 0), 0.4976)
    pion = particle(211, 1, (2.5, 0.1, 0), 0.1396, 0, [0])
    event = Event(particles=[kaon, pion], tracks=[track()], track_links=[(0, 1, 1.0)])
    table, _ = built(tmp_path, [with_clusters(event, (1.0, 1), (1.5, 0))])
    energy = table["targets", "energy"][0]
    assert table["targets", "class_id"].to_list() == [[1, 0, 2]]
    assert energy[0] + energy[2] == pytest.approx(np.hypot(4, 0.4976))


def test_track_of_a_secondary_counts_nothing_beside_its_ancestors_own(tmp_path):
    pion = particle(211, 1, (9, 0, 0), 0.1396)
    proton = particle(2212, 1, (0.8, 0, 0), 0.9383, 0, [0])
    event = Event(
        particles=[pion, proton], tracks=[track(), track()], track_links=[(0, 0, 1.0), (1, 1, 1.0)]
    )
    table, _ = built(tmp_path, [with_clusters(event, (5.0, 1))])
    assert table["targets", "class_id"].to_list() == [[1, 0, 0]]
    assert table["particles", "deposited_energy"].to_list() == [[5.0]]


def test_unphysical_split_is_cancelled(tmp_path):
    pion = particle(211, 1, (0.5, 0, 0), 0.1396)
    proton = particle(2212, 1, (0.8, 0, 0), 0.9383, 0, [0])
    event = Event(particles=[pion, proton], tracks=[track()], track_links=[(0, 1, 1.0)])
    table, _ = built(tmp_path, [with_clusters(event, (0.4, 1))])
    # the charged pion is hosted by a cluster
    assert table["targets", "class_id"].to_list() == [[0, 2]]
    assert table["targets", "charge"].to_list() == [[0, 0]]


def test_parent_stands_in_for_daughters_that_were_never_simulated(tmp_path):
    kaon = particle(310, 0, (4, 0, 0), 0.4976, 2)
    daughters = [
        particle(211, 1, (2, 0, 0), 0.1396, 1, [0]),
        particle(-211, -1, (2, 0, 0), 0.1396, 1, [0]),
    ]
    event = Event(particles=[kaon, *daughters, particle(2112, 0, (1, 0, 0), 0.9396, 0, [0])])
    table, metadata = built(tmp_path, [with_clusters(event, (3.0, 3))])
    assert table["particles", "pdg"].to_list() == [[310]]
    assert table["targets", "class_id"].to_list() == [[2]]
    assert metadata["counts"]["n_stand_ins"] == 1


def test_particle_without_free_element_is_merged_or_dropped(tmp_path):
    photons = [
        particle(22, 0, (4, 0, 0)),
        particle(22, 0, (2, 0, 0)),
        particle(22, 0, (1, 0, 0)),
        particle(12, 0, (9, 0, 0)),
    ]
    event = Event(particles=photons)
    event.hits["ECALBarrel"] = [
        {"energy": energy, "position": [1600.0, 0.0, 0.0]} for energy in (5.0, 1.0)
    ]
    event.clusters = [{"energy": 5.0, "position": [1600.0, 0.0, 0.0], "hits": [("ECALBarrel", 0)]}]
    event.hit_links = [
        (("ECALBarrel", 0), 0, 0.6),
        (("ECALBarrel", 0), 1, 0.4),
        (("ECALBarrel", 1), 2, 1.0),
    ]
    table, metadata = built(tmp_path, [event])
    assert table["particles", "fate"].to_list() == [
        [Fate.HOSTED, Fate.MERGED, Fate.DROPPED, Fate.INVISIBLE]
    ]
    assert table["targets", "energy"].to_list() == [[6.0]]
    assert table["cluster_links", "energy"].to_list() == [[3.0, 2.0]]
    balance = metadata["energy_balance_gev"]
    assert (balance["visible"], balance["merged"], balance["dropped"]) == pytest.approx(
        (7.0, 2.0, 1.0)
    )


def test_what_flies_past_the_calorimeters_is_invisible(tmp_path):
    event = Event(
        particles=[
            particle(211, 1, (0.5, 0, 30.0), 0.1396),
            particle(22, 0, (0.1, 0, 9.0)),
            particle(22, 0, (1, 0, 9.0)),
        ]
    )
    table, _ = built(tmp_path, [with_clusters(event, (4.0, 0), (5.0, 1), (4.0, 2))])
    assert table["particles", "fate"].to_list() == [[Fate.INVISIBLE, Fate.HOSTED, Fate.HOSTED]]


@pytest.mark.parametrize("n_tracks", [1, 2])
def test_a_nucleus_may_take_momentum_when_a_photon_converts(tmp_path, n_tracks):
    photon = transverse(22, 0, 0.7476, 0.0, status=1, parents=())
    pair = [
        transverse(-11, 1, 0.3563, 0.000511, angle=0.004, vertex=(30.0, 0.0)),
        transverse(11, -1, 0.3913, 0.000511, angle=-0.001, vertex=(30.0, 0.0)),
    ]
    event = Event(particles=[photon, *pair], tracks=[track(1e-3), track(-1e-3)][:n_tracks])
    event.track_links = [(0, 1, 1.0), (1, 2, 1.0)][:n_tracks]
    table, metadata = built(tmp_path, [with_clusters(event, (0.3, 1), (0.3, 2))])
    assert table["targets", "energy"][0].to_list()[:n_tracks] == pytest.approx(
        [0.3563, 0.3913][:n_tracks], rel=1e-6
    )
    assert metadata["energy_balance_gev"]["generated"] == pytest.approx(0.7476, rel=1e-6)
    momenta = np.sqrt(
        table["particles", "px"] ** 2
        + table["particles", "py"] ** 2
        + table["particles", "pz"] ** 2
    )
    assert ak.all(momenta <= table["particles", "energy"] * (1 + 1e-6))


# at 4 T, 100 mm across the field turn 0.12 GeV
@pytest.mark.parametrize(
    ("distance_mm", "angle", "split"),
    [(300.0, 0.5, True), (10.0, 0.5, False), (10.0, 0.02, True), (0.0, 0.5, True)],
)
def test_the_field_bends_a_particle_before_it_decays(tmp_path, distance_mm, angle, split):
    pion = transverse(211, 1, 0.6115, 0.13957, status=1, parents=())
    muon = transverse(-13, 1, 0.5191, 0.10566, angle, vertex=(0.0, distance_mm))
    event = Event(particles=[pion, muon], tracks=[track(1e-3)], track_links=[(0, 1, 1.0)])
    table, metadata = built(tmp_path, [with_clusters(event, (0.5, 1))])
    assert (metadata["counts"]["n_split"] == 1) == split
    assert table["targets", "energy"][0, 0] == pytest.approx(0.5191 if split else 0.0, rel=1e-6)
    assert metadata["energy_balance_gev"]["generated"] == pytest.approx(0.6115, rel=1e-6)
