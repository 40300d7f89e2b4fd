"""Event generation with Pythia8.

Settings of a sample and a seed -> batches of ``Particles`` (full event record, vertices smeared by
the luminous region). Pythia 8.3 (Bierlich et al. 2022) runs through its batch interface, which
returns awkward arrays of whole batches. e+e- collisions have initial-state radiation (lepton PDF)
and final-state radiation, pp collisions all of Pythia's defaults. Species with c tau > 10 mm are
left to the detector simulation (``ParticleDecays:tau0Max``), which makes them fly and decay.

Invariants: row 0 of Pythia's record, the system as a whole, is left out; the stable particles of an
event carry its total four-momentum; parents are Pythia's mothers, daughters their inverse; the same
seed gives the same events.
"""

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
import pythia8mc
from numpy.typing import NDArray

from particleforge.config.detector import BeamConfig
from particleforge.edm4hep.constants import SPEED_OF_LIGHT
from particleforge.errors import UserError
from particleforge.simulation import species
from particleforge.simulation.columns import Particles, lists_from_parents

MAX_DECAY_LENGTH_MM = 10.0
# Pythia's status codes of primary hadrons: their mothers are a range
_RANGE_OF_MOTHERS = (*range(81, 87), *range(101, 107))
_BEAM_STATUS = 12
_ATTEMPTS = 20


def make_pythia(beams: BeamConfig, processes: Sequence[str], seed: int, source: str) -> Any:
    """Return an initialised Pythia.

    UserError, which names ``source``, for settings that Pythia does not take.
    """
    beam_ids = (
        ["Beams:idA = 11", "Beams:idB = -11"]
        if beams.type == "ee"
        else ["Beams:idA = 2212", "Beams:idB = 2212"]
    )
    pythia = pythia8mc.Pythia("", False)
    for line in [
        "Print:quiet = on",
        *beam_ids,
        f"Beams:eCM = {beams.com_energy_gev}",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
        "ParticleDecays:limitTau0 = on",
        f"ParticleDecays:tau0Max = {MAX_DECAY_LENGTH_MM}",
        *processes,
    ]:
        if not pythia.readString(line):
            raise UserError(
                f"{source}: Pythia8 does not know the setting '{line}'; see the Pythia 8.3 manual"
            )
    if not pythia.init():
        raise UserError(
            f"{source}: Pythia8 cannot start with {list(processes)} at {beams.com_energy_gev} GeV;"
            " see its messages above"
        )
    return pythia


def next_events(pythia: Any, n_events: int, source: str) -> ak.Array:
    """Return the records [n_events, particles] of Pythia.

    Events in which it failed are generated anew.
    """
    batches: list[ak.Array] = []
    missing = n_events
    for _ in range(_ATTEMPTS):
        batches.append(pythia.nextBatch(missing, "skip").prt)
        missing -= len(batches[-1])
        if not missing:
            return batches[0] if len(batches) == 1 else ak.concatenate(batches)
    raise UserError(
        f"{source}: Pythia8 failed in {missing} of {n_events} events {_ATTEMPTS} times over; check"
        " the process"
    )


def to_particles(events: ak.Array, beams: BeamConfig, rng: np.random.Generator) -> Particles:
    """Return Pythia's records as ``Particles`` with one vertex per event.

    The vertex is drawn from the luminous region.
    """
    record = events[:, 1:]
    counts = ak.to_numpy(ak.num(record))
    flat = ak.flatten(record)
    event = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    vertex = rng.normal(size=(len(counts), 3)) * beams.spot_sigma_mm
    pdg, status = ak.to_numpy(flat.id), ak.to_numpy(flat.status)
    shift = {axis: vertex[event, i] for i, axis in enumerate("xyz")}
    produced = {axis: _filled(flat.vProd[f"p{axis}"]) + shift[axis] for axis in "xyz"}
    child, parent = _parents(flat, event, np.cumsum(counts) - counts)
    momentum = {f"p{axis}": ak.to_numpy(flat.p[f"p{axis}"]) for axis in "xyz"}
    lists = lists_from_parents(child, parent, len(event))
    return Particles(
        event=event,
        pdg=pdg,
        generator_status=_hepmc_status(pdg, status),
        simulator_status=np.zeros(len(event), np.int32),
        charge=species.charge_of(pdg),
        **momentum,
        energy=ak.to_numpy(flat.p.e),
        mass=ak.to_numpy(flat.m),
        **produced,
        time=_filled(flat.vProd.e) / SPEED_OF_LIGHT,
        **_endpoints(produced, lists),
        **lists,
    )


def _filled(values: ak.Array) -> NDArray[np.float64]:
    """Return values with 0 where Pythia set no vertex."""
    return np.asarray(ak.to_numpy(ak.fill_none(values, 0.0)), np.float64)


def _hepmc_status(pdg: NDArray[np.integer], status: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return the HepMC status: 1 for stable, 2 for decayed hadrons and leptons, 4 for beams.

    Others have Pythia's positive code (Pythia's HepMC interface).
    """
    decays = species.is_hadron(pdg) | np.isin(np.abs(pdg), (13, 15))
    code = np.abs(status)
    return np.select([status > 0, code == _BEAM_STATUS, decays], [1, 4, 2], code).astype(np.int32)


def _parents(
    flat: ak.Array, event: NDArray[np.int32], starts: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs (child, parent) of flat rows.

    Pythia's six cases of mother1 and mother2 are in its manual, "Particle Properties".
    """
    first = ak.to_numpy(flat.mother1).astype(np.int64)
    second = ak.to_numpy(flat.mother2).astype(np.int64)
    code = np.abs(ak.to_numpy(flat.status))
    is_range = (second > first) & (first > 0) & np.isin(code, _RANGE_OF_MOTHERS)
    is_pair = (second > 0) & (second != first) & ~is_range
    n_listed = np.where(is_range, second - first + 1, (first > 0).astype(np.int64))
    child = np.repeat(np.arange(len(first)), n_listed)
    within = np.arange(len(child)) - np.repeat(np.cumsum(n_listed) - n_listed, n_listed)
    listed = first[child] + within
    paired = np.flatnonzero(is_pair)
    child, mother = np.concatenate([child, paired]), np.concatenate([listed, second[paired]])
    return child, starts[event[child]] + mother - 1  # row 0 was left out


def _endpoints(produced: dict[str, NDArray[np.float64]], lists: dict[str, Any]) -> dict[str, Any]:
    """Return where particles ended: the first daughter's vertex, their own where there is none."""
    has = np.flatnonzero(np.diff(lists["daughters_offsets"]))
    daughter = lists["daughters_index"][lists["daughters_offsets"][has]]
    ends = {f"endpoint_{axis}": np.array(values) for axis, values in produced.items()}
    for axis, values in produced.items():
        ends[f"endpoint_{axis}"][has] = values[daughter]
    return ends
