"""Leaves of trees are read as uproot itself reads them, whatever the blocks of the file.

Compiled loops do what plain ones do.
"""

from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.edm4hep import kernels
from particleforge.edm4hep.group import Group
from particleforge.edm4hep.history import on_cycle
from particleforge.edm4hep.leaves import LOCAL_FILE, Leaves, NotAListError, leaves_of
from particleforge.edm4hep.raw_events import Pairs, Table, grouped, joined, joined_sums

BLOCKS = (3, 4, 1, 7)  # events


def events(n_events: int, seed: int) -> dict[str, ak.Array]:
    """Return a collection of two members, one of them nested, and a bare list."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, n_events)
    inner = ak.zip({"x": ak.unflatten(rng.random(counts.sum()), counts)})
    member = ak.unflatten(np.arange(counts.sum(), dtype=np.int32), counts)
    return {
        "X": ak.zip({"n": member, "at": inner}, depth_limit=2),
        "V": ak.unflatten(rng.random(2 * n_events), np.full(n_events, 2)),
    }


@pytest.fixture(scope="module", params=["TTree", "RNTuple"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("leaves") / "file.root"
    with uproot.recreate(path) as out:
        tree = None
        for seed, n_events in enumerate(BLOCKS):
            block = events(n_events, seed)
            if request.param == "TTree":
                block = {
                    "X.n": block["X"].n,
                    "X.at.x": block["X"].at.x,
                    "V": block["V"],
                    "s": np.arange(n_events),
                }
                tree = tree or out.mktree(
                    "events",
                    {name: ak.type(array).content for name, array in block.items() if name != "s"}
                    | {"s": "int64"},
                )
                tree.extend(block)
            else:
                block = {
                    **block,
                    "s": np.arange(n_events),
                    "W": ak.Array([["text"]] * n_events),
                    "D": ak.Array([[[1.0]]] * n_events),
                }
                tree = tree or out.mkrntuple(
                    "events", {name: ak.type(array).content for name, array in block.items()}
                )
                tree.extend(block)
    return path


@pytest.fixture
def leaves(file: Path) -> Iterator[Leaves]:
    with uproot.open(file, **LOCAL_FILE) as opened:
        yield leaves_of(opened["events"])


@pytest.mark.parametrize("leaf", ["X.n", "X.at.x", "V"])
def test_any_range_of_events_is_what_was_written(leaves, leaf):
    wanted = ak.concatenate([events(n, seed)[leaf.split(".")[0]] for seed, n in enumerate(BLOCKS)])
    for member in leaf.split(".")[1:]:
        wanted = wanted[member]
    assert leaves.n_events == sum(BLOCKS)
    for start in range(leaves.n_events):
        for stop in range(start, leaves.n_events + 1):
            offsets, values = leaves.flat(leaf, start, stop)
            assert ak.to_list(ak.unflatten(values, np.diff(offsets))) == ak.to_list(
                wanted[start:stop]
            ), (start, stop)


def test_events_are_cut_where_blocks_end(leaves):
    assert list(leaves.ranges(8, 15)) == [(0, 8), (8, 15)]
    assert list(leaves.ranges(7, 15)) == [(0, 7), (7, 8), (8, 15)]
    assert list(leaves.ranges(4, 15)) == [(0, 3), (3, 7), (7, 8), (8, 12), (12, 15)], (
        "a block that is too long is cut"
    )
    assert list(leaves.ranges(8, 10)) == [(0, 8), (8, 10)]
    assert list(leaves.ranges(100, 0)) == []


def test_a_block_is_read_once_even_if_it_is_longer_than_what_is_asked_for(leaves, monkeypatch):
    read = []
    original = leaves.read
    monkeypatch.setattr(
        leaves,
        "read",
        lambda leaf, start, stop: read.append((start, stop)) or original(leaf, start, stop),
    )
    for start, stop in leaves.ranges(2, 15):
        leaves.flat("X.n", start, stop)
    assert read == [(0, 3), (3, 7), (7, 8), (8, 15)]


def test_what_is_no_list_of_numbers_is_told_so(leaves):
    for leaf in ("s", *(("W", "D") if leaves.kind == "RNTuple" else ())):
        with pytest.raises(NotAListError):
            leaves.flat(leaf, 0, 3)


rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=40)


@settings(deadline=None)  # the first call compiles
@given(rows, rows)
def test_pairs_join_where_they_meet(first, second):
    left, right = (
        Pairs.of(*(np.array(pairs, np.int64).reshape(-1, 2).T), np.arange(len(pairs)))
        for pairs in (first, [p[::-1] for p in second])
    )
    found = joined(left, right, 7)
    wanted = [(a, d, n) for a, b in first for n, (d, c) in enumerate(second) if b == c]
    assert list(zip(found.left, found.right, found.weight, strict=True)) == wanted
    sums, summed = joined_sums(left, right, 6, 7, 6), grouped(found, 6, 6)
    assert [getattr(sums, key).tolist() for key in vars(sums)] == [
        getattr(summed, key).tolist() for key in vars(summed)
    ]


@settings(deadline=None)  # the first call compiles
@given(
    rows,
    st.lists(st.integers(-1, 9), min_size=6, max_size=6),
    st.lists(st.integers(-1, 9), min_size=7, max_size=7),
)
def test_pairs_are_renumbered(pairs, of_left, of_right):
    given_pairs = Pairs.of(*np.array(pairs, np.int64).reshape(-1, 2).T, np.arange(len(pairs)))
    for lefts, rights in ((of_left, of_right), (of_left, None), (None, of_right)):
        found = given_pairs.renumber(
            *(None if rows is None else np.array(rows, np.int64) for rows in (lefts, rights))
        )
        new = [
            (a if lefts is None else lefts[a], b if rights is None else rights[b], n)
            for n, (a, b) in enumerate(pairs)
        ]
        assert list(zip(found.left, found.right, found.weight, strict=True)) == [
            one for one in new if min(one) >= 0
        ]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_what_leads_back_to_itself_is_found(edges):
    leads = {row: {b for a, b in edges if a == row} for row in range(6)}
    for _ in range(6):
        leads = {row: after.union(*(leads[one] for one in after)) for row, after in leads.items()}
    wanted = [row in after for row, after in leads.items()]
    pairs = Pairs.of(*np.array(edges, np.int64).reshape(-1, 2).T)
    assert kernels.without_cycle(pairs.left, pairs.right, 6) == (not any(wanted))
    assert on_cycle(pairs, 6).tolist() == wanted


@settings(deadline=None)  # the first call compiles
@given(rows)
def test_pairs_are_summed(pairs):
    weight = np.random.default_rng(len(pairs)).random(len(pairs))
    found = grouped(Pairs.of(*np.array(pairs, np.int64).reshape(-1, 2).T, weight), 6, 7)
    sums: dict[tuple[int, int], float] = {}
    for pair, one in zip(pairs, weight, strict=True):
        sums[pair] = sums.get(pair, 0.0) + one
    assert list(zip(found.left, found.right, strict=True)) == sorted(sums)
    assert found.weight.tolist() == [sums[pair] for pair in sorted(sums)]


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5
    )
)
def test_collections_are_laid_event_by_event(counts):
    tables = {}
    for k, of_events in enumerate(zip(*counts, strict=True)):
        offsets = np.concatenate([[0], np.cumsum(of_events)]).astype(np.int64)
        event = np.repeat(np.arange(len(of_events)), of_events)
        tables[f"c{k}"] = Table(
            offsets, {"value": 100 * event + 10 * k + np.arange(offsets[-1]) - offsets[event]}
        )
    group = Group.of(tables, Table.empty(len(counts), {}))
    assert group.table["value"].tolist() == sorted(
        np.concatenate([table["value"] for table in tables.values()])
    )
    assert group.table.counts.tolist() == [sum(event) for event in counts]
    for name, table in tables.items():
        assert group.table["value"][group.rows_of(name)].tolist() == table["value"].tolist()
    for event in range(len(counts)):
        references = Table(
            np.repeat([0, 4], [event + 1, len(counts) - event]),
            {"index": np.array([-1, 0, 2, 9]), "id": np.full(4, -2)},
        )
        known = tables["c1"].counts[event]
        wanted = [100 * event + 10 + i if 0 <= i < known else None for i in (-1, 0, 2, 9)]
        found = group.resolve(references, {-2 & 0xFFFFFFFF: "c1", 5: "not read"})
        assert [None if row < 0 else int(group.table["value"][row]) for row in found] == wanted


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=10))
def test_ranges_expand(ranges):
    begin, end = np.array([sorted(one) for one in ranges], np.int64).reshape(-1, 2).T
    n = len(ranges)
    owner, member = kernels.expand(begin, end, np.array([0, n // 2, n]), np.array([0, 4, 8]))
    assert list(zip(owner, member, strict=True)) == [
        (i, (4 if i >= n // 2 else 0) + j) for i in range(n) for j in range(begin[i], end[i])
    ]


@pytest.mark.fault("two branches of one name")
def test_of_two_branches_of_one_name_the_first_is_found(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "file.root") as out:
        tree = out.mktree("events", {"X.n": "float64", "Y.n": "float64", "s": "int64"})
        tree.extend({"X.n": np.ones(2), "Y.n": np.zeros(2), "s": np.arange(2)})
    content = (tmp_path / "file.root").read_bytes()
    (tmp_path / "file.root").write_bytes(content.replace(b"Y.n", b"X.n"))
    with uproot.open(tmp_path / "file.root") as file:
        leaves = leaves_of(file["events"])
        np.testing.assert_array_equal(leaves.fields["X.n"].array(library="np"), np.ones(2))
    assert leaves.doubled == (
        "two branches are called X.n; the first (double) is read, the second (double) is not",
    )
