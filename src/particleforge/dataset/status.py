"""Which particles the generator left stable, where its status does not say so.

Inputs -> outputs: the particle table and the particles' parents -> the table with another
``status``. generatorStatus 1 means stable. Some files give it to every particle of the history;
then the leaves of the history are the stable ones: a particle of status 1 with a daughter of the
generator counts as decayed. That holds for decays only. If the daughters in a file carry less than
``_ENERGY_MIN`` of their parents' energy, they may be what the detector's simulation knocked out of
particles that fly on: the file does not tell which are stable.
"""

from dataclasses import dataclass

import numpy as np

from particleforge.edm4hep.raw_events import Pairs, Table, summed

_STABLE, _DECAYED = 1, 2
_ENERGY_MIN = 0.9


@dataclass
class Decays:
    """Particles of status 1 that decayed, and energies (GeV) of these and of their daughters."""

    number: int = 0
    before: float = 0.0
    after: float = 0.0

    def add(self, other: "Decays") -> None:
        """Add those of another chunk."""
        self.number += other.number
        self.before += other.before
        self.after += other.after

    @property
    def conserve_energy(self) -> bool:
        """Tell whether the daughters have the energy of their parents."""
        return self.after >= _ENERGY_MIN * self.before


def settled(particles: Table, parents: Pairs) -> tuple[Table, Decays]:
    """Return the particles, those of status 1 with daughters as decayed, and these decays."""
    status = particles["status"]
    of_generator = parents.where(status[parents.left] != 0)
    decayed = np.zeros(particles.n_rows, bool)
    decayed[of_generator.right] = True
    decayed &= status == _STABLE
    if not np.any(decayed):
        return particles, Decays()
    # a daughter of several parents has of each an equal part
    n_parents = summed(of_generator.left, None, particles.n_rows)
    daughters = of_generator.where(decayed[of_generator.right]).left
    energy = particles["energy"]
    decays = Decays(
        int(decayed.sum()),
        float(energy[decayed].sum()),
        float(np.sum(energy[daughters] / n_parents[daughters])),
    )
    columns = {**particles.columns, "status": np.where(decayed, _DECAYED, status)}
    return Table(particles.offsets, columns), decays
