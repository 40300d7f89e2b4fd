"""The simulate stage: one shard of one sample, from the generator to an EDM4hep file.

SimulateSettings and a shard's number -> EDM4hep ROOT file (``edm4hep.writer``) with the truth,
tracks, calorimeter hits, clusters, all links between them, and the candidates of the rule-based
particle flow. Run number = shard, event number = position.

Events are simulated in batches, each step for all events of a batch at once (``generator``,
``pile_up``, ``propagation``, ``tracking``, ``calorimeter``, ``clustering``, ``particle_flow``);
memory holds one batch. Seeds come from the names of sample, shard and batch: the same settings give
the same bytes, whatever else runs.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from particleforge.config.settings import SimulateSettings
from particleforge.edm4hep.writer import Chunk, write_edm4hep
from particleforge.errors import UserError
from particleforge.progress import shown
from particleforge.provenance.record import Provenance
from particleforge.seeds import generator_of, pythia_seed_of
from particleforge.simulation import (
    calorimeter,
    clustering,
    generator,
    particle_flow,
    pile_up,
    propagation,
    tracking,
)
from particleforge.simulation.columns import Particles
from particleforge.simulation.to_edm4hep import Batch, to_chunk, types_of

log = logging.getLogger(__name__)

# without pile-up: small enough for 1 GB, large enough that array operations dominate
EVENTS_PER_BATCH = 50
_PARTICLES_OF_INTERACTION = 0.2  # of those of a hard e+e- or pp event, for the size of batches


def simulate_events(settings: SimulateSettings, shard: str, output: Path) -> None:
    """Simulate ``settings.events_per_shard`` events of a sample and write them to ``output``.

    UserError if the shard is not a number or the configuration holds what Pythia8 cannot do.
    """
    if not shard.isdecimal():
        raise UserError(f"shard '{shard}': must be a number such as 00000")
    made = Provenance.of("simulate_events", settings.plain(), part={"shard": shard})
    write_edm4hep(
        output, types_of(settings.collections), simulate_chunks(settings, shard), made.plain()
    )
    made.record(output, n_events=settings.events_per_shard)


def simulate_chunks(settings: SimulateSettings, shard: str) -> Iterator[Chunk]:
    """Yield the shard's events, batch by batch."""
    source = f"samples.{settings.sample_name}.pythia"
    names = (settings.seed, settings.sample_name, shard)
    pythia = generator.make_pythia(
        settings.beams, settings.pythia, pythia_seed_of(*names, "hard process"), source
    )
    overlaid = None
    if settings.pile_up.mean_interactions > 0:
        seed = pythia_seed_of(*names, "pile-up")
        overlaid = pile_up.PileUp(settings.beams, settings.pile_up, seed, "pile_up.processes")
    size = batch_size(settings)
    batches = (
        np.arange(first, min(first + size, settings.events_per_shard))
        for first in range(0, settings.events_per_shard, size)
    )
    for event_numbers in shown(batches, "event", settings.events_per_shard, len):
        rng = generator_of(*names, "detector", int(event_numbers[0]))
        events = generator.next_events(pythia, len(event_numbers), source)
        particles = generator.to_particles(events, settings.beams, rng)
        if overlaid is not None:
            particles = overlaid.overlay(particles, len(event_numbers), rng)
        batch = simulate_batch(particles, event_numbers, settings, rng)
        yield to_chunk(batch, int(shard), settings.b_field_tesla, settings.collections)
        log.info(
            "%s/%s: %d of %d events",
            settings.sample_name,
            shard,
            event_numbers[-1] + 1,
            settings.events_per_shard,
        )


def simulate_batch(
    generated: Particles,
    event_numbers: np.ndarray,
    settings: SimulateSettings,
    rng: np.random.Generator,
) -> Batch:
    """Return a batch of generated events after detector simulation and reconstruction."""
    n_events = len(event_numbers)
    particles, entering, flights = propagation.propagate(generated, settings, rng)
    tracks = tracking.make_tracks(particles, flights, settings, rng)
    hits = calorimeter.simulate_hits(entering, n_events, settings, rng)
    clusters = clustering.cluster_hits(hits, n_events, settings)
    candidates = particle_flow.reconstruct(tracks, clusters, hits, n_events, settings)
    return Batch(event_numbers, particles, tracks, hits, clusters, candidates)


def batch_size(settings: SimulateSettings) -> int:
    """Return how many events are simulated at once; pile-up makes batches smaller."""
    return max(
        1,
        round(
            EVENTS_PER_BATCH / (1 + _PARTICLES_OF_INTERACTION * settings.pile_up.mean_interactions)
        ),
    )
