"""The EDM4hep writer: what it is given is what uproot reads, whatever the shapes.

And bytes repeat.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from particleforge.edm4hep import datamodel
from particleforge.edm4hep.writer import (
    HEADER,
    PROVENANCE_KEY,
    Chunk,
    Collection,
    Relation,
    Vector,
    collection_id,
    event_headers,
    write_edm4hep,
)

TYPES = {
    HEADER: datamodel.EVENT_HEADER,
    "Particles": datamodel.MCPARTICLE,
    "HitsA": datamodel.CALORIMETER_HIT,
    "HitsB": datamodel.CALORIMETER_HIT,
    "Clusters": datamodel.CLUSTER,
    "Tracks": datamodel.TRACK,
    "Links": datamodel.LINK,
}


def rows_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def make_chunk(counts: list[list[int]], seed: int) -> Chunk:
    """Return a chunk with ``counts[collection][event]`` rows and random relations within events."""
    rng = np.random.default_rng(seed)
    n_events = len(counts[0])
    events = [rows_of(count) for count in counts]

    def pointing(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        first = np.searchsorted(target, source)
        size = np.bincount(target, minlength=n_events)[source]
        return np.where(size > 0, first + (rng.random(len(source)) * size).astype(int), -1)

    particles, hits_a, hits_b, clusters, tracks, links = events
    n_hits = rng.integers(0, 4, len(clusters))
    owner = np.repeat(clusters, n_hits)
    which = rng.integers(0, 2, len(owner))
    to_hits = np.where(which == 0, pointing(owner, hits_a), pointing(owner, hits_b))
    n_parents = rng.integers(0, 3, len(particles))
    n_states = rng.integers(0, 4, len(tracks))
    collections = {
        HEADER: event_headers(7, np.arange(n_events) + 10),
        "Particles": Collection(
            particles,
            {
                "PDG": rng.integers(-5000, 5000, len(particles)),
                "vertex.y": rng.normal(size=len(particles)),
            },
            {
                "parents": Relation(
                    ("Particles",), pointing(np.repeat(particles, n_parents), particles), n_parents
                )
            },
        ),
        "HitsA": Collection(
            hits_a, {"cellID": rng.integers(0, 2**63, len(hits_a)).astype(np.uint64)}
        ),
        "HitsB": Collection(hits_b, {"position.z": rng.normal(size=len(hits_b))}),
        "Clusters": Collection(
            clusters,
            {"energy": rng.random(len(clusters))},
            {"hits": Relation(("HitsA", "HitsB"), to_hits, n_hits, which)},
            {
                "subdetectorEnergies": Vector(
                    np.full(len(clusters), 3), rng.random(3 * len(clusters))
                )
            },
        ),
        "Tracks": Collection(
            tracks,
            {"ndf": np.arange(len(tracks))},
            {"trackerHits": Relation((), np.full(2 * len(tracks), -1), np.full(len(tracks), 2))},
            {"trackStates": Vector(n_states, {"omega": rng.normal(size=n_states.sum())})},
        ),
        "Links": Collection(
            links,
            {"weight": rng.random(len(links))},
            {
                "from": Relation(("Clusters",), pointing(links, clusters)),
                "to": Relation(("Particles",), pointing(links, particles)),
            },
        ),
    }
    return Chunk(n_events, collections)


def per_event(chunk: Chunk, name: str, values: np.ndarray) -> list:
    counts = np.bincount(chunk.collections[name].event, minlength=chunk.n_events)
    return ak.unflatten(values, counts).to_list()


def check_references(chunk: Chunk, name: str, relation: str, tree, begin: int) -> None:
    """Follow every reference of the file back to the flat row that it was made from."""
    given_relation = chunk.collections[name].relations[relation]
    event = chunk.collections[name].event
    counts = np.ones(len(event), int) if given_relation.counts is None else given_relation.counts
    ids = {collection_id(target): target for target in given_relation.targets}
    index = tree[f"_{name}_{relation}.index"].array(
        entry_start=begin, entry_stop=begin + chunk.n_events
    )
    identity = tree[f"_{name}_{relation}.collectionID"].array(
        entry_start=begin, entry_stop=begin + chunk.n_events
    )
    of_event = np.repeat(event, counts)
    assert ak.num(index).to_list() == np.bincount(of_event, minlength=chunk.n_events).tolist()
    found = []
    for row, (i, c) in enumerate(zip(ak.flatten(index), ak.flatten(identity), strict=True)):
        if i < 0:
            found.append(-1)
            continue
        target = chunk.collections[ids[c]].event
        found.append(int(np.searchsorted(target, of_event[row]) + i))
        assert target[found[-1]] == of_event[row]
    assert found == given_relation.index.tolist()
    if given_relation.which is not None:
        names = [given_relation.targets[w] for w in given_relation.which]
        assert [ids.get(c) for c, i in zip(ak.flatten(identity), found, strict=True) if i >= 0] == [
            n for n, i in zip(names, found, strict=True) if i >= 0
        ]
    if given_relation.counts is not None:
        starts = ak.flatten(
            tree[f"{name}.{relation}_begin"].array(
                entry_start=begin, entry_stop=begin + chunk.n_events
            )
        )
        ends = ak.flatten(
            tree[f"{name}.{relation}_end"].array(
                entry_start=begin, entry_stop=begin + chunk.n_events
            )
        )
        assert (ends - starts).to_list() == counts.tolist()


counts_of_events = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n), min_size=6, max_size=6)
)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shapes=st.lists(counts_of_events, min_size=1, max_size=3), seed=st.integers(0, 100))
def test_what_is_read_is_what_was_written(tmp_path: Path, shapes: list, seed: int) -> None:
    chunks = [make_chunk(counts, seed + i) for i, counts in enumerate(shapes)]
    path = tmp_path / "x.root"
    write_edm4hep(path, TYPES, iter(chunks), {"n": 1})
    with uproot.open(path) as file:
        tree = file["events"]
        assert tree.num_entries == sum(chunk.n_events for chunk in chunks)
        begin = 0
        for chunk in chunks:
            for name, collection in chunk.collections.items():
                for member, dtype in datamodel.TYPES[TYPES[name]].members.items():
                    values = tree[f"{name}.{member}"].array(
                        entry_start=begin, entry_stop=begin + chunk.n_events
                    )
                    flat = collection.members.get(member, np.zeros(len(collection.event)))
                    assert values.to_list() == per_event(
                        chunk, name, np.asarray(flat).astype(dtype)
                    )
                for relation in collection.relations:
                    if collection.relations[relation].targets:
                        check_references(chunk, name, relation, tree, begin)
            begin += chunk.n_events
        states = tree["_Tracks_trackStates.omega"].array()
        given_states = np.concatenate(
            [chunk.collections["Tracks"].vectors["trackStates"].values["omega"] for chunk in chunks]
        )
        assert ak.flatten(states).to_list() == given_states.astype(np.float32).tolist()


def test_metadata_names_collections_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    write_edm4hep(path, TYPES, [make_chunk([[1, 2]] * 6, 1)], {"settings": {"a": [1, 2]}})
    with uproot.open(path) as file:
        table = file["podio_metadata"]
        names = table["events___idTable.m_names"].array()[0].to_list()
        identities = table["events___idTable.m_collectionIDs"].array()[0].to_list()
        assert dict(zip(names, identities, strict=True)) == {
            name: collection_id(name) for name in TYPES
        }
        assert table["events___CollectionTypeInfo.dataType"].array()[0].to_list() == list(
            TYPES.values()
        )
        assert file["metadata"]["GPStringKeys"].array()[0].to_list() == [PROVENANCE_KEY]
        assert json.loads(file["metadata"]["GPStringValues"].array()[0][0][0]) == {
            "settings": {"a": [1, 2]}
        }


def test_identifiers_are_those_of_podio() -> None:
    # from a file that Key4hep wrote
    known = {
        "MCParticles": 0xA1CBA250,
        "SiTracks_Refitted": 0xF4957AFA,
        "PandoraPFOs": 0xFA28D9BE,
        "EventHeader": 0xD793AB91,
    }
    # MurmurHash3 of other implementations, each length of the rest that is no whole word
    known |= {"": 0, "a": 1009084850, "ab": 2613040991, "abc": 3017643002, "abcd": 1139631978}
    assert {name: collection_id(name) for name in known} == known


def test_same_content_same_bytes_whenever_and_wherever(tmp_path: Path) -> None:
    digests = []
    for name in ("one.root", "folder/another_name.root"):
        write_edm4hep(
            tmp_path / name,
            TYPES,
            [make_chunk([[2, 1]] * 6, 3), make_chunk([[0, 4]] * 6, 4)],
            {"n": 1},
        )
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
        time.sleep(1.1)  # ROOT's dates have a resolution of one second
    assert digests[0] == digests[1]
    write_edm4hep(tmp_path / "other.root", TYPES, [make_chunk([[2, 1]] * 6, 3)], {"n": 2})
    with uproot.open(tmp_path / "one.root") as one, uproot.open(tmp_path / "other.root") as other:
        assert one.file.uuid != other.file.uuid


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[Chunk]:
        yield make_chunk([[1]] * 6, 1)
        raise RuntimeError("no more events")

    with pytest.raises(RuntimeError, match="no more events"):
        write_edm4hep(tmp_path / "x.root", TYPES, broken(), {})
    assert list(tmp_path.iterdir()) == []
