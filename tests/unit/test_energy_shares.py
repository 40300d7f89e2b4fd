"""Shares of clusters' energy in the shards: whose energy is it, and what is left over."""

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.preprocessing.energy_shares import energy_shares
from particleforge.tables.schema import N_SHARES, Fate


def event(
    n_tracks: int,
    clusters: list[float],
    particles: list[tuple[Fate, int]],
    links: list[tuple[int, int, float]],
) -> dict[str, list[dict[str, float]]]:
    """Return an event: energies of clusters, fate and host of particles, links (who, where, E)."""
    return {
        "tracks": [{"pt": 1.0}] * n_tracks,
        "clusters": [{"energy": energy} for energy in clusters],
        "particles": [{"fate": int(fate), "element": host} for fate, host in particles],
        "cluster_links": [
            {"particle": who, "cluster": where, "energy": energy} for who, where, energy in links
        ],
    }


def shares_of(*events: dict[str, list[dict[str, float]]]) -> tuple[np.ndarray, np.ndarray]:
    found = energy_shares(typed(events))
    return found["share_host"], found["share"]


def typed(events: tuple[dict[str, list[dict[str, float]]], ...]) -> ak.Array:
    """Return events in which lists have their members even where all of them are empty."""
    example = event(1, [1.0], [(Fate.HOSTED, 0)], [(0, 0, 1.0)])
    return ak.Array([example, *events])[1:]


def test_energy_belongs_to_hosts_and_what_is_left_to_none() -> None:
    hosts, share = shares_of(
        event(
            1,
            [10.0, 4.0],
            [(Fate.HOSTED, 0), (Fate.HOSTED, 2), (Fate.MERGED, 2), (Fate.INVISIBLE, -1)],
            [(0, 0, 5.0), (1, 0, 2.0), (2, 0, 1.0), (3, 0, 1.0), (1, 1, 4.0)],
        )
    )
    assert hosts.tolist() == [[-1] * 4, [0, 2, -1, -1], [2, -1, -1, -1]]
    np.testing.assert_allclose(share[0], 0)
    np.testing.assert_allclose(share[1], [0.5, 0.3, 0, 0, 0.2], atol=1e-7)
    np.testing.assert_allclose(share[2], [1, 0, 0, 0, 0], atol=1e-7)


def test_more_deposited_than_measured_is_the_whole() -> None:
    _, share = shares_of(
        event(0, [1.0], [(Fate.HOSTED, 0), (Fate.INVISIBLE, -1)], [(0, 0, 3.0), (1, 0, 1.0)])
    )
    np.testing.assert_allclose(share[0], [0.75, 0, 0, 0, 0.25], atol=1e-7)


def test_hosts_beyond_the_largest_leave_their_energy_to_these() -> None:
    n = N_SHARES + 2
    hosts, share = shares_of(
        event(
            0,
            [float(n)] * n,
            [(Fate.HOSTED, i) for i in range(n)],
            [(i, 0, 1.0 + 0.01 * i) for i in range(n)] + [(1, 1, 1.0)],
        )
    )
    assert hosts[0].tolist() == [5, 4, 3, 2]
    assert share[0].sum() == pytest.approx(1)
    assert share[0, -1] == pytest.approx(0, abs=1e-6)


def test_events_without_deposits_are_not_known() -> None:
    known = event(0, [2.0], [(Fate.HOSTED, 0)], [(0, 0, 2.0)])
    unknown = event(0, [2.0], [(Fate.HOSTED, 0)], [])
    hosts, share = shares_of(known, unknown, event(0, [], [], []))
    assert (share.sum(1) > 0).tolist() == [True, False]
    assert hosts[1].tolist() == [-1] * N_SHARES


def test_a_cluster_without_links_beside_linked_ones_is_noise() -> None:
    _, share = shares_of(event(0, [2.0, 3.0], [(Fate.HOSTED, 0)], [(0, 0, 2.0)]))
    np.testing.assert_allclose(share[1], [0, 0, 0, 0, 1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_events=st.integers(0, 4))
def test_shares_are_those_of_a_sum_over_links(seed: int, n_events: int) -> None:
    rng = np.random.default_rng(seed)
    events = []
    for _ in range(n_events):
        n_tracks, n_clusters, n_particles = rng.integers(0, 4, 3)
        n_elements = n_tracks + n_clusters
        fates = rng.choice([Fate.HOSTED, Fate.MERGED, Fate.INVISIBLE], n_particles)
        hosts = rng.integers(0, max(n_elements, 1), n_particles)
        n_links = rng.integers(0, 9) if n_clusters and n_particles else 0
        links = [
            (int(rng.integers(n_particles)), int(rng.integers(n_clusters)), float(rng.random()))
            for _ in range(n_links)
        ]
        particles = [
            (fate, int(host) if fate != Fate.INVISIBLE and n_elements else -1)
            for fate, host in zip(fates, hosts, strict=True)
        ]
        particles = [(fate if host >= 0 else Fate.INVISIBLE, host) for fate, host in particles]
        energies = rng.exponential(1.0, n_clusters).tolist()
        events.append((int(n_tracks), energies, particles, links))
    hosts, share = shares_of(*(event(*parts) for parts in events))
    row = 0
    for n_tracks, energies, particles, links in events:
        for element in range(n_tracks + len(energies)):
            cluster = element - n_tracks
            own = [(who, e) for who, where, e in links if where == cluster]
            total = max(sum(e for _, e in own), energies[cluster] if cluster >= 0 else 0)
            expected: dict[int, float] = {}
            for who, e in own:
                expected[particles[who][1]] = expected.get(particles[who][1], 0) + e / total
            found = dict(zip(hosts[row].tolist(), share[row].tolist(), strict=False))
            for host, value in expected.items():
                if host >= 0 and cluster >= 0 and len(expected) <= N_SHARES:
                    assert found[host] == pytest.approx(value, abs=1e-5)
            assert share[row].sum() == pytest.approx(float(cluster >= 0 and bool(links)), abs=1e-5)
            row += 1
    assert row == len(hosts)
