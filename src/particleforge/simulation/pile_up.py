"""Overlay of additional pp interactions in the same bunch crossing.

Signal events -> signal events with the stable particles of a Poisson number of minimum-bias events
each, every interaction at its own vertex in the luminous region. All events of a batch at once.

Invariants: every interaction is generated for one event and used in no other, so that events of
train, valid and test share none; signal rows keep their order and lists; overlaid particles come
after them, have no parents, and carry the overlay bit.
"""

import awkward as ak
import numpy as np

from particleforge.config.detector import BeamConfig, PileUpConfig
from particleforge.simulation.columns import Particles, lists_from_parents
from particleforge.simulation.generator import make_pythia, next_events, to_particles
from particleforge.simulation.propagation import OVERLAY


class PileUp:
    """Generates minimum-bias events and overlays them."""

    def __init__(self, beams: BeamConfig, pile_up: PileUpConfig, seed: int, source: str) -> None:
        """Start Pythia.

        UserError, which names ``source``, for settings that Pythia does not take.
        """
        self._pythia = make_pythia(beams, pile_up.processes, seed, source)
        self._beams, self._pile_up, self._source = beams, pile_up, source

    def overlay(self, signal: Particles, n_events: int, rng: np.random.Generator) -> Particles:
        """Return ``signal`` (``n_events`` events) with pile-up added."""
        n_interactions = rng.poisson(self._pile_up.mean_interactions, n_events)
        total = int(n_interactions.sum())
        if not total:
            return signal
        particles = to_particles(next_events(self._pythia, total, self._source), self._beams, rng)
        with np.errstate(divide="ignore"):
            eta = np.arcsinh(particles.pz / np.hypot(particles.px, particles.py))
        kept = (particles.generator_status == 1) & (np.abs(eta) < self._pile_up.abs_eta_max)
        added = {name: getattr(particles, name)[kept] for name in _columns()}
        added["event"] = np.repeat(np.arange(n_events), n_interactions)[added["event"]]
        added["simulator_status"] = np.full(int(kept.sum()), OVERLAY)
        return _merged(signal, added)


def _columns() -> tuple[str, ...]:
    return tuple(
        name
        for name in Particles.__dataclass_fields__
        if not name.startswith(("parents_", "daughters_"))
    )


def _merged(signal: Particles, added: dict[str, ak.Array]) -> Particles:
    """Append rows without relatives and order by event."""
    columns = {
        name: np.concatenate(
            [getattr(signal, name), added[name].astype(getattr(signal, name).dtype)]
        )
        for name in _columns()
    }
    order = np.argsort(columns["event"], kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    child = np.repeat(np.arange(len(signal)), np.diff(signal.parents_offsets))
    lists = lists_from_parents(place[child], place[signal.parents_index], len(order))
    return Particles(**{name: column[order] for name, column in columns.items()}, **lists)
