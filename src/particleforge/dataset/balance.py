"""Where the energy of an event's particles went.

Every dataset keeps this balance for each file that it was made of.

Inputs -> outputs: energies (GeV) of the truth particles and what became of them -> ``Balance``,
which adds up over chunks and files.

Every truth particle is in exactly one of the sums below, so that

* generated = visible + neutrinos + unusable + outside + faint,
* visible = target + dropped, and dropped = dropped_unusable + dropped_shared_track +
  dropped_no_cluster.

A particle to which several reasons apply counts under the first of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np

from particleforge.edm4hep.raw_events import Array, BoolArray, FloatArray
from particleforge.tables.schema import Fate

INVISIBLE = {
    "neutrinos": "leave nothing",
    "unusable": (
        "an element that the particle made is left out as unusable, and what is left of it does not"
        " show the particle"
    ),
    "outside": "flies past the calorimeters",
    "faint": "left too little in the detector",
}
DROPPED = {
    "dropped_unusable": "an element that the particle made is left out as unusable",
    "dropped_shared_track": "its track is another particle's, and it left nothing in a cluster",
    "dropped_no_cluster": (
        "left energy only in hits of no cluster (with hits as elements: in hits below the"
        " threshold)"
    ),
}


@dataclass
class Balance:
    """Energies in GeV, and counts of particles (``n_``); chunks and files add up."""

    generated: float = 0.0  # all truth particles
    neutrinos: float = 0.0
    unusable: float = 0.0
    outside: float = 0.0
    faint: float = 0.0
    visible: float = 0.0
    target: float = 0.0
    # part of target: added to the owner of a shared cluster, as no element was free
    merged: float = 0.0
    dropped: float = 0.0
    dropped_unusable: float = 0.0
    dropped_shared_track: float = 0.0
    dropped_no_cluster: float = 0.0
    clusters: float = 0.0  # energy of all clusters (or hits that are elements)
    unlinked_clusters: float = 0.0  # of it, of those in which no particle left anything
    deposits: float = 0.0  # calibrated energy that is linked to particles
    orphan_deposits: float = 0.0  # of it, what no truth particle inherits
    n_visible: int = 0
    n_hosted: int = 0
    n_merged: int = 0
    n_dropped: int = 0
    n_dropped_unusable: int = 0
    n_dropped_shared_track: int = 0
    n_dropped_no_cluster: int = 0
    n_stand_ins: int = 0
    n_split: int = 0

    def add(self, other: "Balance") -> None:
        """Add another chunk's or file's balance."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def energies_gev(self) -> dict[str, float]:
        """Return the energies by name."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("n_")}

    def counts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {name: value for name, value in asdict(self).items() if name.startswith("n_")}


def balance_of(
    energy: FloatArray,
    fate: Array,
    target_energy: FloatArray,
    *,
    invisible: Mapping[str, BoolArray],
    dropped: Mapping[str, BoolArray],
) -> Balance:
    """Return the balance of a chunk.

    ``energy`` and ``fate`` are those of the truth particles [n], ``target_energy`` that of the
    elements. ``invisible`` and ``dropped`` tell for each reason, by the name of its sum and in
    order, to which particles [n] it may apply; the last one applies to all.
    """
    is_dropped = fate == Fate.DROPPED
    balance = Balance(
        generated=float(energy.sum()),
        visible=float(energy[fate != Fate.INVISIBLE].sum()),
        target=float(target_energy.sum()),
        merged=float(energy[fate == Fate.MERGED].sum()),
        dropped=float(energy[is_dropped].sum()),
        n_visible=int(np.sum(fate != Fate.INVISIBLE)),
        n_hosted=int(np.sum(fate == Fate.HOSTED)),
        n_merged=int(np.sum(fate == Fate.MERGED)),
        n_dropped=int(is_dropped.sum()),
    )
    for name, chosen in _by_first(invisible, fate == Fate.INVISIBLE).items():
        setattr(balance, name, float(energy[chosen].sum()))
    for name, chosen in _by_first(dropped, is_dropped).items():
        setattr(balance, name, float(energy[chosen].sum()))
        setattr(balance, f"n_{name}", int(chosen.sum()))
    return balance


def _by_first(reasons: Mapping[str, BoolArray], chosen: BoolArray) -> dict[str, BoolArray]:
    """Return for each reason the chosen rows of which it is the first."""
    open_rows = chosen.copy()
    found = {}
    for name, applies in reasons.items():
        found[name] = open_rows & applies
        open_rows &= ~applies
    assert not np.any(open_rows)
    return found
