"""Real EDM4hep files against a slow reference: plain uproot arrays, event by event, one object
after the other.

The reference knows where each file keeps things, spelled out in ``FILES``, and shares no code with
the reader.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import uproot

from particleforge.config.load import load_detector
from particleforge.dataset.build import build_dataset
from particleforge.edm4hep.reader import read_chunks
from particleforge.inputs.inspection import inspect_file
from particleforge.tables.parquet import read_metadata, read_table

from .dataset_settings import CONFIG, dataset_settings
from .real_files import real_file

CLD = ("SiTracks_Refitted", "_SiTracks_Refitted_trackStates", ("PandoraClusters",), "PandoraPFOs")
FCC = (
    "EFlowTrack",
    "EFlowTrack_1",
    ("EFlowPhoton", "EFlowNeutralHadron"),
    "ReconstructedParticles",
)
FOUR_MOMENTUM = ("momentum.x", "momentum.y", "momentum.z", "mass")
HITS = ("ECALBarrel", "ECALEndcap", "ECALOther", "HCALBarrel", "HCALEndcap", "HCALOther", "MUON")


@dataclass(frozen=True)
class File:
    """Where one file keeps things.

    Links are (collection, leaf of the reconstructed end, leaf of the particle end).
    """

    detector: str
    n_events: int
    particles: str
    parents: str
    tracks: str | None
    states: str | None
    clusters: tuple[str, ...]
    candidates: str
    hits: tuple[str, ...] = ()
    track_links: tuple[str, str, str] | None = None
    cluster_links: tuple[str, str, str] | None = None
    hit_links: tuple[str, str, str] | None = None
    candidate_links: tuple[str, str, str] | None = None
    pdg: str = "PDG"
    at_ip: int = 1


def ends(link, first="_{}_from", second="_{}_to"):
    return link, first.format(link), second.format(link)


FCC_LINKS = ends("MCRecoAssociations", "{}#0", "{}#1")
FILES = {
    "cld_hbb_full_rec_1ev.edm4hep.root": File(
        "cld",
        1,
        "MCParticles",
        "_MCParticles_parents",
        *CLD,
        HITS,
        ends("SiTracksMCTruthLink"),
        ends("ClusterMCTruthLink"),
        ends("CalohitMCTruthLink"),
    ),
    "clic_photons_2021_layout_3ev.edm4hep.root": File(
        "clic",
        3,
        "MCParticles",
        "MCParticles#0",
        None,
        None,
        ("PandoraClusters",),
        "PandoraPFOs",
        HITS,
        hit_links=ends("CalohitMCTruthLink", "{}#0", "{}#1"),
        pdg="type",
    ),
    "edm4hep_ILD_mumuH_v01-00_podio_v01-07_10ev.root": File(
        "cld",
        10,
        "MCParticles",
        "_MCParticles_parents",
        *CLD,
        (),
        ends("SiTracksMCTruthLink"),
        ends("ClusterMCTruthLink"),
    ),
    "p8_ee_WW_ecm240_edm4hep.root": File(
        "fcc_delphes",
        10,
        "Particle",
        "_Particle_parents",
        "EFlowTrack",
        "_EFlowTrack_trackStates",
        *FCC[2:],
        ("CalorimeterHits",),
        candidate_links=ends("MCRecoAssociations"),
        at_ip=0,
    ),
    "test_FCC_Spring2021.root": File(
        "fcc_delphes",
        100,
        "Particle",
        "Particle#0",
        *FCC,
        candidate_links=FCC_LINKS,
        pdg="type",
        at_ip=0,
    ),
    "test_FCC_Winter2023.root": File(
        "fcc_delphes",
        100,
        "Particle",
        "Particle#0",
        *FCC,
        ("CalorimeterHits",),
        candidate_links=FCC_LINKS,
        pdg="type",
        at_ip=0,
    ),
}


class Events:
    """Leaves as nested lists."""

    def __init__(self, path):
        self.tree = uproot.open(path)["events"]
        self.lists = {}

    def __call__(self, leaf):
        if leaf not in self.lists:
            self.lists[leaf] = self.tree[leaf].array(library="ak").to_list()
        return self.lists[leaf]

    def column(self, leaf, event):
        return self(leaf)[event] if leaf in self.tree else None


def slow_sums(path, file):
    """Return counts and sums over the file's events."""
    read, found = Events(path), Counter()
    for event in range(file.n_events):
        for i in range(len(read(f"{file.particles}.PDG")[event])):
            px, py, pz, mass = (
                float(read(f"{file.particles}.{leaf}")[event][i])
                for leaf in ("momentum.x", "momentum.y", "momentum.z", "mass")
            )
            found["particles"] += 1
            found["stable"] += read(f"{file.particles}.generatorStatus")[event][i] == 1
            found["particle energy"] += math.sqrt(px * px + py * py + pz * pz + mass * mass)
            begin, end = (
                read(f"{file.particles}.parents_{edge}")[event][i] for edge in ("begin", "end")
            )
            for place in range(begin, end):
                index = read(f"{file.parents}.index")[event][place]
                found["parents"] += 1
                found["parents' px"] += read(f"{file.particles}.momentum.x")[event][index]
        slow_tracks(read, file, event, found)
        for name in file.clusters:
            for energy in read(f"{name}.energy")[event]:
                found["clusters"] += 1
                found["cluster energy"] += energy
        for name in file.hits:
            energies = read.column(f"{name}.energy", event)
            found["hits"] += len(energies or [])
            found["hit energy"] += sum(energies or [])
        for i, energy in enumerate(read(f"{file.candidates}.energy")[event]):
            found["candidates"] += 1
            found["candidate energy"] += energy
            found["candidate pdg"] += read(f"{file.candidates}.{file.pdg}")[event][i]
        for kind in ("track", "cluster", "hit"):
            slow_links(read, file, kind, event, found)
    return found


def slow_tracks(read, file, event, found):
    """Add the tracks of one event: pT from the curvature of the state at the interaction point."""
    if file.tracks is None:
        return
    for i in range(len(read(f"{file.tracks}.chi2")[event])):
        found["tracks"] += 1
        begin, end = (
            read(f"{file.tracks}.trackStates_{edge}")[event][i] for edge in ("begin", "end")
        )
        for state in range(begin, end):
            if read(f"{file.states}.location")[event][state] == file.at_ip:
                found["states at the interaction point"] += 1
                found["1/|omega|"] += 1 / abs(read(f"{file.states}.omega")[event][state])


def slow_links(read, file, kind, event, found):
    """Add links of one kind: those of the file, or through candidates.

    The weighted sum of the particles' px tells them apart.
    """
    link = getattr(file, f"{kind}_links")
    px = read(f"{file.particles}.momentum.x")[event]
    if link is not None:
        name, _, to = link
        for i, weight in enumerate(read(f"{name}.weight")[event]):
            found[f"{kind} links"] += 1
            found[f"{kind} links' px"] += weight * px[read(f"{to}.index")[event][i]]
    elif file.candidate_links is not None and kind != "hit":
        _, origin, to = file.candidate_links
        for i, candidate in enumerate(read(f"{origin}.index")[event]):
            begin, end = (
                read(f"{file.candidates}.{kind}s_{edge}")[event][candidate]
                for edge in ("begin", "end")
            )
            particle = read(f"{to}.index")[event][i]
            momentum = [read(f"{file.particles}.{leaf}")[event][particle] for leaf in FOUR_MOMENTUM]
            weight = 1.0 if kind == "track" else math.sqrt(sum(value * value for value in momentum))
            found[f"{kind} links"] += end - begin
            found[f"{kind} links' px"] += (end - begin) * weight * px[particle]


def read_sums(path, detector):
    """Return the same from the reader."""
    found = Counter()
    for raw in read_chunks(path, load_detector(CONFIG, detector).collections, 4):
        found["particles"] += raw.particles.n_rows
        found["stable"] += int(np.sum(raw.particles["status"] == 1))
        found["particle energy"] += raw.particles["energy"].sum()
        found["parents"] += len(raw.parents.left)
        found["parents' px"] += raw.particles["px"][raw.parents.right].sum()
        at_ip = raw.states["location"] == 1
        found["tracks"] += raw.tracks.n_rows
        found["states at the interaction point"] += int(at_ip.sum())
        found["1/|omega|"] += np.sum(1 / np.abs(raw.states["omega"][at_ip].astype(np.float64)))
        for name in ("cluster", "hit", "candidate"):
            table = getattr(raw, f"{name}s")
            found[f"{name}s"] += table.n_rows
            found[f"{name} energy"] += table["energy"].astype(np.float64).sum()
        found["candidate pdg"] += int(raw.candidates["pdg"].sum())
        for kind in ("track", "cluster", "hit"):
            links = getattr(raw, f"{kind}_links")
            found[f"{kind} links"] += len(links.left)
            found[f"{kind} links' px"] += np.sum(links.weight * raw.particles["px"][links.right])
    return found


@pytest.mark.parametrize("name", list(FILES))
def test_counts_and_sums_are_those_of_a_slow_reference(name):
    path, file = real_file(name), FILES[name]
    expected, found = slow_sums(path, file), read_sums(path, file.detector)
    assert expected["particles"] > 0
    assert expected["clusters"] > 0
    for key in expected.keys() | found.keys():
        assert found[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-6), key


@pytest.mark.parametrize("name", list(FILES))
def test_becomes_a_dataset_whose_energy_closes(tmp_path, name):
    path, file = real_file(name), FILES[name]
    build_dataset(dataset_settings(file.detector), [path], tmp_path / "out.parquet")
    table, metadata = read_table(tmp_path / "out.parquet"), read_metadata(tmp_path / "out.parquet")
    balance = metadata["energy_balance_gev"]
    assert len(table) == file.n_events
    assert balance["visible"] == pytest.approx(balance["target"] + balance["dropped"], rel=1e-6)
    assert balance["target"] > 0.95 * balance["visible"] > 0
    assert inspect_file(path, load_detector(CONFIG, file.detector)).refused is None


def test_tracks_of_simulated_hits_are_those_of_the_links():
    """In full simulation the truth of tracks derived from tracker hits is what the reconstruction
    wrote, and likewise that of hits.
    """
    path = real_file("cld_hbb_full_rec_1ev.edm4hep.root")
    names = load_detector(CONFIG, "cld").collections
    pixels = ("VXDTrackerHitRelations", "VXDEndcapTrackerHitRelations")
    strips = tuple(
        f"{layer}Tracker{part}HitsRelations"
        for layer in ("Inner", "Outer")
        for part in ("Barrel", "Endcap")
    )
    derived = {"track_links": (), "tracker_hit_sim_links": pixels + strips}
    derived |= {"hit_links": (), "hit_sim_links": ("RelationCaloHit", "RelationMuonHit")}
    (stored,), (found,) = (
        list(read_chunks(path, these, 10)) for these in (names, names.model_copy(update=derived))
    )

    def as_dict(links):
        return dict(
            zip(
                zip(links.left.tolist(), links.right.tolist(), strict=True),
                links.weight.tolist(),
                strict=True,
            )
        )

    assert as_dict(found.track_links) == pytest.approx(as_dict(stored.track_links), abs=1e-6)
    hits, stored_hits = as_dict(found.hit_links), as_dict(stored.hit_links)
    # the rest: secondaries below its threshold
    assert len(hits.keys() & stored_hits.keys()) > 0.998 * len(stored_hits)


def test_ids_follow_from_references_as_a_table_says(monkeypatch):
    """The file of spring 2021 has a table; without it the same collections are found."""
    path = real_file("test_FCC_Spring2021.root")
    names = load_detector(CONFIG, "fcc_delphes").collections
    with_table = list(read_chunks(path, names, 1000))
    monkeypatch.setattr("particleforge.edm4hep.rootfile.table_of_ids", lambda _: None)
    without = list(read_chunks(path, names, 1000))
    for relation in (
        "parents",
        "track_links",
        "cluster_links",
        "candidate_tracks",
        "candidate_clusters",
    ):
        (one,), (other,) = (
            [getattr(raw, relation) for raw in chunks] for chunks in (with_table, without)
        )
        assert len(one.left) > 1000
        np.testing.assert_array_equal(one.right, other.right)


EXAMPLES = {
    f"edm4hep_example_v{version}.root": version
    for version in ("00-99-02_podio_v01-03", "00-99-03_podio_v01-06")
}
EXAMPLES |= {
    f"edm4hep_example_v{version}.root": version
    for version in ("00-99-04_podio_v01-06", "01-01_podio_v01-07")
}
EXAMPLES |= {"edm4hep.root": "00-99-01"}


@pytest.mark.parametrize(("name", "version"), EXAMPLES.items(), ids=EXAMPLES.values())
def test_schema_examples_are_read(name, version):
    """One object of every type, named after it.

    The collections of one file are those of its data model.
    """
    path = real_file(name)
    given = {
        "particles": "MCParticleCollection",
        "tracks": "TrackCollection",
        "clusters": "ClusterCollection",
    }
    given |= {
        "candidates": "ReconstructedParticleCollection",
        "ecal_hits": ("CalorimeterHitCollection",),
        "dqdx": "RecDqdxCollection",
    }
    given |= {
        f"{kind}_links": (f"{word}MCParticleLinkCollection",)
        for kind, word in (("track", "Track"), ("cluster", "Cluster"))
    }
    given |= {"hit_links": ("CaloHitMCParticleLinkCollection",)}
    detector = load_detector(CONFIG, "cld")
    would_fit = {
        kind: [names if isinstance(names, str) else names[0]]
        for kind, names in given.items()
        if kind not in ("ecal_hits", "dqdx")
    }
    hits = {
        "ecal/hcal/other_hits": ["CalorimeterHitCollection"],
        "candidate_links": ["RecoMCParticleLinkCollection"],
    }
    assert inspect_file(path, detector).fitting == would_fit | hits
    detector = detector.model_copy(
        update={"collections": detector.collections.model_copy(update=given)}
    )
    (raw,) = read_chunks(path, detector.collections, 10)
    assert (
        raw.n_events,
        raw.particles.n_rows,
        raw.tracks.n_rows,
        raw.clusters.n_rows,
        raw.hits.n_rows,
    ) == (3, 9, 3, 3, 3)
    assert len(raw.track_links.left) == len(raw.cluster_links.left) == len(raw.hit_links.left) == 3
    tree = uproot.open(path)["events"]
    np.testing.assert_array_equal(
        raw.tracks["dedx"], np.concatenate(tree["RecDqdxCollection.dQdx.value"].array(library="np"))
    )
    np.testing.assert_array_equal(
        raw.clusters["energy"], np.concatenate(tree["ClusterCollection.energy"].array(library="np"))
    )
    inspected = inspect_file(path, detector)
    assert inspected.versions["EDM4hep"] == ".".join(
        str(int(part)) for part in (version.split("_")[0] + "-0").split("-")[:3]
    )
    assert {found.name: found.type for found in inspected.collections}["TrackCollection"] == "Track"
