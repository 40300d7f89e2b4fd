"""Events as long as those of a full simulation, from the parametric one, to time the data stages.

Inputs -> outputs: a detector and a number of events -> an EDM4hep file (RNTuple), and the same
content as a TTree.

tt and WW events alternate, batch by batch: in the CLIC-like detector they have about 8 000 hits,
100 clusters and 50 tracks. What the parametric simulation lacks is the history of showers: it links
hits to the particles that entered the calorimeters, where Geant4's links lead to the thousands of
secondaries that left the energy. So each particle gets a tree of secondaries here: each takes over
a few neighbouring hits of its ancestor, links included, and descends from one of those before it,
so that histories are as deep as in showers and every deposit has to be inherited through them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from particleforge.config.detector import DetectorConfig
from particleforge.config.run import RunConfig
from particleforge.config.settings import simulate_settings
from particleforge.edm4hep.writer import HEADER, Chunk, event_headers, write_edm4hep
from particleforge.seeds import generator_of, pythia_seed_of
from particleforge.simulation import generator
from particleforge.simulation.columns import Particles, lists_from_parents
from particleforge.simulation.simulate import simulate_batch
from particleforge.simulation.to_edm4hep import Batch, to_chunk, types_of

SAMPLES = ("ttbar", "ww")
EVENTS_PER_BATCH = 50
HITS_PER_SECONDARY = 5
_CREATED_IN_SIMULATION = 1 << 30  # EDM4hep's simulatorStatus


def write_full_simulation(
    path: Path, run: RunConfig, detector: DetectorConfig, n_events: int, distinct: int | None = None
) -> None:
    """Write ``n_events`` events, a multiple of ``EVENTS_PER_BATCH``.

    After ``distinct`` of them their content repeats.
    """
    distinct = min(distinct or n_events, n_events)
    assert distinct % EVENTS_PER_BATCH == n_events % EVENTS_PER_BATCH == 0, (
        f"events come in batches of {EVENTS_PER_BATCH}"
    )
    made: list[Chunk] = []

    def chunks() -> Iterator[Chunk]:
        for chunk in _chunks(run, detector, distinct, SAMPLES):
            if distinct < n_events:
                made.append(chunk)
            yield chunk
        for first in range(distinct, n_events, EVENTS_PER_BATCH):
            again = made[first // EVENTS_PER_BATCH % len(made)]
            headers = event_headers(0, np.arange(first, first + EVENTS_PER_BATCH))
            yield replace(again, collections={**again.collections, HEADER: headers})

    write_edm4hep(path, types_of(detector.collections), chunks(), {"events": n_events})


def write_as_tree(source: Path, target: Path) -> None:
    """Write an RNTuple's leaves as the branches of a TTree.

    There is one basket each for every ``EVENTS_PER_BATCH`` events.
    """
    with uproot.open(source) as read, uproot.recreate(target, compression=uproot.ZSTD(3)) as write:
        table = read["podio_metadata"]["events___idTable"].array()
        tree = None
        for block in read["events"].iterate(step_size=EVENTS_PER_BATCH):
            leaves = dict(leaf for name in block.fields for leaf in _leaves(name, block[name]))
            if tree is None:
                tree = write.mktree(
                    "events", {name: array.type.content for name, array in leaves.items()}
                )
            tree.extend(leaves)
        write.mkrntuple("podio_metadata", {"events___idTable": table})


def _chunks(
    run: RunConfig, detector: DetectorConfig, n_events: int, samples: Sequence[str]
) -> Iterator[Chunk]:
    rng = generator_of(run.seed, "full simulation")
    settings = [simulate_settings(run, detector, sample) for sample in samples]
    sources = [
        generator.make_pythia(
            one.beams, one.pythia, pythia_seed_of(run.seed, sample, "full simulation"), sample
        )
        for one, sample in zip(settings, samples, strict=True)
    ]
    for number, first in enumerate(range(0, n_events, EVENTS_PER_BATCH)):
        which = number % len(samples)
        events = generator.next_events(sources[which], EVENTS_PER_BATCH, samples[which])
        particles = generator.to_particles(events, detector.beams, rng)
        batch = simulate_batch(
            particles, np.arange(first, first + EVENTS_PER_BATCH), settings[which], rng
        )
        yield to_chunk(with_showers(batch, rng), 0, detector.b_field_tesla, detector.collections)


def with_showers(batch: Batch, rng: np.random.Generator) -> Batch:
    """Return the batch with secondaries between particles and their traces in the calorimeters."""
    particles, hits = batch.particles, batch.hits
    order = np.lexsort((hits.contribution_hit, hits.contribution_particle))
    ancestor = hits.contribution_particle[order]
    first = np.searchsorted(ancestor, ancestor)  # of the same ancestor
    place = np.arange(len(ancestor)) - first
    begins = place % HITS_PER_SECONDARY == 0
    made = np.flatnonzero(begins)  # a secondary each
    secondary_of = np.cumsum(begins) - 1
    number = place[made] // HITS_PER_SECONDARY  # among the secondaries of one ancestor
    own = np.arange(len(made))
    parent_of_it = own - number + rng.integers(0, np.maximum(number, 1))  # any that came before
    n = len(particles)
    parent = np.where(number == 0, ancestor[made], n + parent_of_it)
    hit = hits.contribution_hit[order[made]]
    energy = np.bincount(secondary_of, hits.contribution_energy[order], len(made))
    history, row = _appended(particles, parent, _secondaries(batch, hit, energy, rng))
    particle_of = np.empty(len(order), np.int64)
    particle_of[order] = row[n + secondary_of]
    tracks = replace(
        batch.tracks,
        particle=row[batch.tracks.particle],
        link_particle=row[batch.tracks.link_particle],
    )
    return replace(
        batch,
        particles=history,
        tracks=tracks,
        hits=replace(hits, contribution_particle=particle_of),
    )


def _secondaries(
    batch: Batch, hit: np.ndarray, energy: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the columns of secondaries made at these hits, with momenta away from the origin."""
    hits, zero = batch.hits, np.zeros(len(hit))
    place = np.stack([hits.x[hit], hits.y[hit], hits.z[hit]])
    momentum = energy * place / np.linalg.norm(place, axis=0)
    pdg = rng.choice([22, 11, -11], len(hit))
    return {
        "event": hits.event[hit],
        "pdg": pdg,
        "generator_status": zero,
        "simulator_status": np.full(len(hit), _CREATED_IN_SIMULATION),
        "charge": -np.sign(pdg) * (np.abs(pdg) == 11),
        **dict(zip(("px", "py", "pz"), momentum, strict=True)),
        "energy": energy,
        "mass": zero,
        **dict(zip(("x", "y", "z"), place, strict=True)),
        "time": zero,
        **{f"endpoint_{axis}": values for axis, values in zip("xyz", place, strict=True)},
    }


def _appended(
    particles: Particles, parent: np.ndarray, more: dict[str, np.ndarray]
) -> tuple[Particles, np.ndarray]:
    """Return each event's particles followed by ``more`` of them, and the rows' new numbers.

    There is a new row for each old or appended one.
    """
    n = len(particles)
    columns = {}
    for field in fields(particles):
        if field.name in more:
            old = getattr(particles, field.name)
            columns[field.name] = np.concatenate([old, more[field.name].astype(old.dtype)])
    order = np.argsort(columns["event"], kind="stable")
    row = np.empty(len(order), np.int64)
    row[order] = np.arange(len(order))
    child = np.concatenate(
        [np.repeat(np.arange(n), np.diff(particles.parents_offsets)), n + np.arange(len(parent))]
    )
    parents = np.concatenate([particles.parents_index, parent])
    known = parents >= 0
    lists = lists_from_parents(row[child[known]], row[parents[known]], len(order))
    return Particles(**{name: values[order] for name, values in columns.items()}, **lists), row


def _leaves(name: str, array: ak.Array) -> Iterator[tuple[str, ak.Array]]:
    if not array.fields:
        yield name, array
    for field in array.fields:
        yield from _leaves(f"{name}.{field}", array[field])
