"""The simulate stage as a whole: all shipped detectors, same bytes, and the file against the
records it was written from.
"""

import hashlib
import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from particleforge.config.collections import CollectionsConfig, first_name
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import SimulateSettings, simulate_settings
from particleforge.edm4hep.writer import PROVENANCE_KEY, collection_id, write_edm4hep
from particleforge.errors import UserError
from particleforge.simulation import generator, simulate
from particleforge.simulation.to_edm4hep import hit_names, to_chunk, types_of

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).parents[2] / "config"
_SHIPPED = sorted(path.stem for path in (CONFIG / "detectors").glob("*.yaml"))
# the others are only read from files
DETECTORS = [name for name in _SHIPPED if load_detector(CONFIG, name).collections.ecal_hits]


def make_settings(detector: str, n_events: int) -> SimulateSettings:
    loaded = load_detector(CONFIG, detector)
    settings = simulate_settings(load_run(CONFIG), loaded, next(iter(loaded.samples)))
    pile_up = settings.pile_up.model_copy(
        update={
            "mean_interactions": min(settings.pile_up.mean_interactions, 2.0),
        }
    )
    return settings.model_copy(update={"events_per_shard": n_events, "pile_up": pile_up})


def names_written(settings: SimulateSettings) -> CollectionsConfig:
    """Return the names in a simulated file: of alternatives the first."""
    names = settings.collections
    return names.model_copy(
        update={
            key: first_name(getattr(names, key))
            for key in ("particles", "tracks", "clusters", "candidates")
        }
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_gives_sane_events_and_the_same_bytes_again(
    detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "EVENTS_PER_BATCH", 3)  # several batches
    settings = make_settings(detector, 5)
    first, second = tmp_path / "first.root", tmp_path / "second.root"
    simulate.simulate_events(settings, "00003", first)
    simulate.simulate_events(settings, "00003", second)
    assert (
        hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    )
    names = names_written(settings)
    with uproot.open(first) as file:
        events = file["events"]
        assert events["EventHeader.runNumber"].array().to_list() == [[3]] * 5
        assert events["EventHeader.eventNumber"].array().to_list() == [[i] for i in range(5)]
        for leaf in (
            f"{names.particles}.PDG",
            f"{names.tracks}.chi2",
            f"{names.clusters}.energy",
            f"{names.candidates}.energy",
        ):
            assert ak.all(ak.num(events[leaf].array()) > 5)
        made = json.loads(file["metadata"]["GPStringValues"].array()[0][0][0])
        assert (made["settings"], made["part"]) == (settings.plain(), {"shard": "00003"})
        assert file["metadata"]["GPStringKeys"].array()[0].to_list() == [PROVENANCE_KEY]
    assert json.loads(Path(f"{first}.provenance.json").read_text())["circumstances"]["host"]


def test_shards_and_seeds_differ(tmp_path: Path) -> None:
    settings = make_settings("clic", 1)
    energies = []
    for number, (shard, seed) in enumerate((("00000", 1), ("00001", 1), ("00000", 2))):
        path = tmp_path / f"{number}.root"
        simulate.simulate_events(settings.model_copy(update={"seed": seed}), shard, path)
        with uproot.open(path) as file:
            energies.append(
                tuple(
                    file["events"][f"{names_written(settings).clusters}.energy"]
                    .array()[0]
                    .to_list()
                )
            )
    assert len(set(energies)) == 3


def test_shard_must_be_a_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a number"):
        simulate.simulate_events(make_settings("clic", 1), "first", tmp_path / "x.root")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory):
    """A batch of records and the file it was written to."""
    settings = make_settings("clic", 4)
    pythia = generator.make_pythia(settings.beams, settings.pythia, 11, "test")
    rng = np.random.default_rng(12)
    particles = generator.to_particles(
        generator.next_events(pythia, 4, "test"), settings.beams, rng
    )
    batch = simulate.simulate_batch(particles, np.arange(4), settings, rng)
    path = tmp_path_factory.mktemp("simulated") / "x.root"
    chunk = to_chunk(batch, 1, settings.b_field_tesla, settings.collections)
    write_edm4hep(path, types_of(settings.collections), [chunk], {})
    with uproot.open(path) as file:
        yield settings, batch, file["events"]


def flat(events, leaf: str) -> np.ndarray:
    return ak.to_numpy(ak.flatten(events[leaf].array()))


def global_rows(events, index_leaf: str, target_leaf: str) -> np.ndarray:
    """Return references of a file as rows of the batch."""
    index, counts = events[index_leaf].array(), ak.num(events[target_leaf].array())
    first = np.cumsum(counts) - counts
    return ak.to_numpy(ak.flatten(index + first))


def test_particles_and_tracks_are_read_back(simulated) -> None:
    settings, batch, events = simulated
    names, particles, tracks = names_written(settings), batch.particles, batch.tracks
    for leaf, column in {
        "PDG": "pdg",
        "generatorStatus": "generator_status",
        "simulatorStatus": "simulator_status",
    }.items():
        assert np.array_equal(flat(events, f"{names.particles}.{leaf}"), getattr(particles, column))
    for axis in "xyz":
        for leaf, column in {
            "vertex": axis,
            "endpoint": f"endpoint_{axis}",
            "momentum": f"p{axis}",
        }.items():
            assert np.array_equal(
                flat(events, f"{names.particles}.{leaf}.{axis}"), getattr(particles, column)
            )
    for relation in ("parents", "daughters"):
        rows = global_rows(events, f"_{names.particles}_{relation}.index", f"{names.particles}.PDG")
        assert np.array_equal(rows, getattr(particles, f"{relation}_index"))
    location = flat(events, f"_{names.tracks}_trackStates.location")
    for leaf, column in {
        "omega": "omega",
        "tanLambda": "tan_lambda",
        "D0": "d0",
        "Z0": "z0",
        "phi": "phi0",
    }.items():
        values = flat(events, f"_{names.tracks}_trackStates.{leaf}")[location == 1]
        assert np.array_equal(values, getattr(tracks, column).astype(np.float32))
    at_face = np.stack(
        [
            flat(events, f"_{names.tracks}_trackStates.referencePoint.{axis}")[location == 4]
            for axis in "xyz"
        ]
    )
    assert np.allclose(at_face, [tracks.x_calo, tracks.y_calo, tracks.z_calo], rtol=1e-6)
    first = [
        flat(events, f"_{names.tracks}_trackStates.referencePoint.{axis}")[location == 2]
        for axis in "xy"
    ]
    reached = np.hypot(*first) > 1.01 * np.abs(tracks.d0)
    assert np.allclose(np.hypot(*first)[reached], tracks.radius_innermost_hit[reached], rtol=1e-3)
    assert np.array_equal(
        flat(events, f"{names.tracks}_dQdx.dQdx.value"), tracks.dedx.astype(np.float32)
    )
    n_hits = flat(events, f"{names.tracks}.trackerHits_end") - flat(
        events, f"{names.tracks}.trackerHits_begin"
    )
    assert np.array_equal(n_hits, tracks.n_hits)
    link = names.track_links[0]
    assert np.array_equal(
        global_rows(events, f"_{link}_from.index", f"{names.tracks}.chi2"), tracks.link_track
    )
    assert np.array_equal(
        global_rows(events, f"_{link}_to.index", f"{names.particles}.PDG"), tracks.link_particle
    )


def test_hits_clusters_and_links_are_read_back(simulated) -> None:
    settings, batch, events = simulated
    names, hits, clusters = names_written(settings), batch.hits, batch.clusters
    by_id = {}
    for kind, name in hit_names(names).items():
        rows = np.flatnonzero(hits.collection == kind)
        by_id[collection_id(name)] = (name, rows)
        assert np.array_equal(flat(events, f"{name}.cellID"), hits.cell_id[rows])
        assert np.array_equal(flat(events, f"{name}.energy"), hits.energy[rows].astype(np.float32))
        assert np.array_equal(flat(events, f"{name}.position.z"), hits.z[rows].astype(np.float32))

    def hit_rows(stem: str) -> np.ndarray:
        identity = flat(events, f"{stem}.collectionID")
        found = np.full(len(identity), -1)
        for code, (name, rows) in by_id.items():
            here = identity == code
            found[here] = rows[global_rows(events, f"{stem}.index", f"{name}.energy")[here]]
        return found

    assert np.array_equal(
        flat(events, f"{names.clusters}.energy"), clusters.energy.astype(np.float32)
    )
    counts = flat(events, f"{names.clusters}.hits_end") - flat(
        events, f"{names.clusters}.hits_begin"
    )
    member = hit_rows(f"_{names.clusters}_hits")
    assert np.array_equal(
        clusters.cluster_of_hit[member], np.repeat(np.arange(len(clusters)), counts)
    )
    assert len(np.unique(member)) == (clusters.cluster_of_hit >= 0).sum()
    energies = flat(events, f"_{names.clusters}_subdetectorEnergies").reshape(-1, 3)
    assert np.allclose(energies, clusters.energies, rtol=1e-6)

    link = names.hit_links[0]
    hit = hit_rows(f"_{link}_from")
    particle = global_rows(events, f"_{link}_to.index", f"{names.particles}.PDG")
    given = sorted(
        zip(
            hits.contribution_hit,
            hits.contribution_particle,
            hits.contribution_energy.astype(np.float32),
            strict=True,
        )
    )
    assert sorted(zip(hit, particle, flat(events, f"{link}.weight"), strict=True)) == given

    link = names.cluster_links[0]
    cluster = global_rows(events, f"_{link}_from.index", f"{names.clusters}.energy")
    owner = global_rows(events, f"_{link}_to.index", f"{names.particles}.PDG")
    weight = flat(events, f"{link}.weight")
    total = np.bincount(cluster, weight, len(clusters))
    assert np.allclose(total[total > 0], 1, atol=1e-5)
    for row in range(0, len(cluster), 17):
        of_cluster = clusters.cluster_of_hit[hits.contribution_hit] == cluster[row]
        own = of_cluster & (hits.contribution_particle == owner[row])
        share = hits.contribution_energy[own].sum() / hits.contribution_energy[of_cluster].sum()
        assert weight[row] == pytest.approx(share, rel=1e-5)


def test_candidates_are_read_back(simulated) -> None:
    settings, batch, events = simulated
    names, candidates = names_written(settings), batch.candidates
    for leaf, column in {
        "PDG": "pdg",
        "energy": "energy",
        "charge": "charge",
        "momentum.x": "px",
        "momentum.z": "pz",
    }.items():
        assert np.allclose(
            flat(events, f"{names.candidates}.{leaf}"), getattr(candidates, column), rtol=1e-6
        )
    for relation, rows, target in (
        ("tracks", candidates.track, f"{names.tracks}.chi2"),
        ("clusters", candidates.cluster, f"{names.clusters}.energy"),
    ):
        assert np.array_equal(
            global_rows(events, f"_{names.candidates}_{relation}.index", target), rows[rows >= 0]
        )


def test_the_detector_sees_most_of_the_visible_energy(simulated) -> None:
    _, batch, _ = simulated
    particles = batch.particles
    stable = (particles.generator_status == 1) & ~np.isin(np.abs(particles.pdg), (12, 14, 16))
    eta = np.arcsinh(particles.pz / np.maximum(np.hypot(particles.px, particles.py), 1e-12))
    visible = particles.energy[stable & (np.abs(eta) < 2.5)].sum()
    assert batch.candidates.energy.sum() == pytest.approx(visible, rel=0.15)
