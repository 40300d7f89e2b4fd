"""Overlay of additional pp interactions in the same bunch crossing.

A pool of minimum-bias events, generated once per shard, and signal events -> signal events with the
stable particles of a Poisson number of pool events each, every interaction at its own vertex in the
luminous region. Interactions are drawn from the pool with replacement and turned by a random
azimuth, so that a repeated one is not the same. All events of a batch at once.

Invariants: signal rows keep their order and lists; overlaid particles come after them, have no
parents, and carry the overlay bit.
"""

import awkward as ak
import numpy as np

from particleforge.config.detector import BeamConfig, PileUpConfig
from particleforge.simulation.columns import Particles, lists_from_parents, offsets_of
from particleforge.simulation.generator import make_pythia, next_events, to_particles
from particleforge.simulation.propagation import OVERLAY

_ROTATED = (("px", "py"), ("x", "y"), ("endpoint_x", "endpoint_y"))


class PileUpPool:
    """Stable particles of minimum-bias events around the origin, ready to be overlaid."""

    def __init__(self, beams: BeamConfig, pile_up: PileUpConfig, seed: int, source: str) -> None:
        """Generate the pool.

        UserError, which names ``source``, for settings that Pythia does not take.
        """
        centred = beams.model_copy(update={"spot_sigma_mm": (0.0, 0.0, 0.0)})
        pythia = make_pythia(beams, pile_up.processes, seed, source)
        particles = to_particles(
            next_events(pythia, pile_up.pool_events, source), centred, np.random.default_rng(0)
        )
        with np.errstate(divide="ignore"):
            eta = np.arcsinh(particles.pz / np.hypot(particles.px, particles.py))
        kept = (particles.generator_status == 1) & (np.abs(eta) < pile_up.abs_eta_max)
        self._particles = {name: getattr(particles, name)[kept] for name in _columns()}
        self._offsets = offsets_of(
            np.bincount(self._particles["event"], minlength=pile_up.pool_events)
        )
        self._spot = np.array(beams.spot_sigma_mm)
        self._mean = pile_up.mean_interactions

    def overlay(self, signal: Particles, n_events: int, rng: np.random.Generator) -> Particles:
        """Return ``signal`` (``n_events`` events) with pile-up added."""
        n_interactions = rng.poisson(self._mean, n_events)
        total = int(n_interactions.sum())
        event = np.repeat(np.arange(n_events), n_interactions)
        drawn = rng.integers(len(self._offsets) - 1, size=total)
        vertex = rng.normal(size=(total, 3)) * self._spot
        angle = rng.uniform(0, 2 * np.pi, total)
        counts = np.diff(self._offsets)[drawn]
        interaction = np.repeat(np.arange(total), counts)
        row = (
            self._offsets[drawn][interaction]
            + np.arange(len(interaction))
            - (np.cumsum(counts) - counts)[interaction]
        )
        added = {name: column[row] for name, column in self._particles.items()}
        cosine, sine = np.cos(angle)[interaction], np.sin(angle)[interaction]
        for a, b in _ROTATED:
            added[a], added[b] = (
                cosine * added[a] - sine * added[b],
                sine * added[a] + cosine * added[b],
            )
        for axis, name in enumerate("xyz"):
            added[name] = added[name] + vertex[interaction, axis]
            added[f"endpoint_{name}"] = added[f"endpoint_{name}"] + vertex[interaction, axis]
        added["event"] = event[interaction]
        added["simulator_status"] = np.full(len(row), OVERLAY)
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
