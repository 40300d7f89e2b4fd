"""Splitting and merging: particles that two objects share, by direction and energy.

Inputs -> outputs: two lists of particles and their one-to-one matching (``matching``) -> which
particles of the first list are shared by two or more of the second.

A matched particle is *shared* if particles without a match lie near it, that is, they are within
the radius and it is the nearest of its list, and if their energies belong to it: with them its
match comes nearer to its own energy than alone. Of truth particles and candidates:

* splitting: truth particles that candidates share, over all truth particles of a class;
* merging: candidates that truth particles share, over all candidates of a class.

The two are one rule with the sides exchanged. So splitting tells which fakes are pieces of
particles, and merging which missed particles are in a candidate. A missed particle whose energy is
nowhere is neither, nor is a fake of energy of its own.
"""

import awkward as ak
import numpy as np
import numpy.typing as npt

from particleforge.validation.events import flat
from particleforge.validation.matching import nearest, starts


def shared(
    owners: ak.Array, others: ak.Array, partner: ak.Array, reverse: ak.Array, radius: float
) -> npt.NDArray[np.bool_]:
    """Return whether two or more of ``others`` share each of ``owners``, all events in one array.

    Both have eta, phi and energy; ``partner`` and ``reverse`` are their matching.
    """
    energy, of_others = flat(owners.energy), flat(others.energy)
    first_owner, first_other = starts(owners), starts(others)
    of_partner = flat(partner + first_other)
    matched = flat(partner) >= 0
    alone = np.zeros(len(energy))
    alone[matched] = of_others[of_partner[matched]]
    left = reverse < 0
    owner = nearest(others[left], owners, radius)
    has_owner = flat(owner) >= 0
    added = np.bincount(
        flat(owner + first_owner)[has_owner],
        weights=of_others[flat(left)][has_owner],
        minlength=len(energy),
    )
    return matched & (np.abs(energy - alone - added) < np.abs(energy - alone))
