"""Flight of all stable particles through the tracking volume to the calorimeters.

Particles as the generator left them -> the full truth history with the secondaries that the
detector made, the particles entering the calorimeters, and the flights that tracking needs. One
pass per generation of secondaries (a handful), each over all particles of the batch at once: path
to the calorimeter's face (``helix``), path to the decay (``decays``), path to an interaction
(``interactions``); the shortest decides. Electrons also radiate once on their way and fly on.
Particles that circle more than MAX_TURNS times before they reach an end have lost their energy in
the material and stop; those that leave through the beam hole are lost.

Invariants: rows of the generator keep their order within an event and come before the secondaries;
daughters are the exact inverse of parents; the four-momentum of every decay is conserved.
``simulator_status`` has the bits of EDM4hep's MCParticle.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from particleforge.config.settings import SimulateSettings
from particleforge.edm4hep.constants import SPEED_OF_LIGHT, is_neutrino
from particleforge.edm4hep.datamodel import CREATED_IN_SIMULATION
from particleforge.simulation import decays, helix, interactions, species
from particleforge.simulation.columns import (
    Entering,
    Kind,
    Particles,
    concatenate,
    lists_from_parents,
)
from particleforge.simulation.helix import State

Values = NDArray[np.float64]
Rows = NDArray[np.int64]

MAX_TURNS = 8.0
MAX_GENERATIONS = 8  # secondaries of the last one fly on without decaying or interacting

# EDM4hep MCParticle.simulatorStatus
OVERLAY = 1 << 23
STOPPED = 1 << 24
LEFT_DETECTOR = 1 << 25
DECAYED_IN_CALORIMETER = 1 << 26
DECAYED_IN_TRACKER = 1 << 27
VERTEX_IS_NOT_ENDPOINT_OF_PARENT = 1 << 28


@dataclass(frozen=True)
class Flights:
    """Charged particles in the tracking volume: how far each flew, and its momentum.

    The momentum is the one that a track fit would see.
    """

    particle: Rows  # row in Particles
    path: Values  # mm, to the end of its flight in the tracking volume
    # mean momentum on the way, as a share of that at the vertex (less than 1 after bremsstrahlung)
    momentum_share: Values


@dataclass
class _Generation:
    """Particles that fly in one pass; ``row`` is the row in the history under construction."""

    row: Rows
    event: Rows
    pdg: Rows
    mass: Values
    time: Values
    state: State


@dataclass
class _Outcome:
    """What one pass found, per particle of the generation."""

    end: State
    path: Values
    time: Values
    status: Rows
    momentum_share: Values
    enters: NDArray[np.bool_]


def propagate(
    generated: Particles, settings: SimulateSettings, rng: np.random.Generator
) -> tuple[Particles, Entering, Flights]:
    """Fly the batch's stable particles out.

    The returned collections are ordered by event and refer to the returned Particles.
    """
    history = _History(generated)
    rows = np.flatnonzero(generated.generator_status == 1)
    generation = history.generation(rows)
    entering, flights = [], []
    for number in range(MAX_GENERATIONS):
        # the first generation gives the collections their columns, even if it is empty
        if number and not len(generation.row):
            break
        made = _Secondaries()
        outcome = _fly(generation, settings, rng, made, last=number == MAX_GENERATIONS - 1)
        history.finish(generation.row, outcome)
        entering.append(_enter(generation, outcome))
        charged = np.flatnonzero(generation.state.charge != 0)
        flights.append(
            Flights(generation.row[charged], outcome.path[charged], outcome.momentum_share[charged])
        )
        generation = history.append(generation, made)
    return history.close(concatenate(entering), concatenate(flights))


def _fly(
    generation: _Generation,
    settings: SimulateSettings,
    rng: np.random.Generator,
    made: "_Secondaries",
    *,
    last: bool,
) -> _Outcome:
    """Fly one generation to the end of its members' flights and collect what they turn into."""
    tracker, b_field = settings.tracker, settings.b_field_tesla
    pdg, mass, start = generation.pdg, generation.mass, generation.state
    to_face = helix.path_to_surface(start, tracker.radius_mm, tracker.half_length_mm, b_field)
    limit = 2 * np.pi * MAX_TURNS / np.maximum(np.abs(start.turning(b_field)), 1e-12)
    stops = to_face > limit
    to_face = np.minimum(to_face, limit)
    start, before, share, to_face = _radiate(generation, to_face, settings, rng, made)
    to_decay = decays.decay_path(pdg, start.p, mass, rng)
    interacting = interactions.interacts(pdg, start, mass, tracker, rng)
    to_interaction = np.where(
        interacting, interactions.crossing_share(start, tracker, rng) * to_face, np.inf
    )
    if last:
        to_decay = np.full_like(to_decay, np.inf)
        to_interaction = np.full_like(to_interaction, np.inf)
    path = np.minimum(to_face, np.minimum(to_decay, to_interaction))
    end = helix.advance(start, path, b_field)
    time = generation.time + (before + path) / start.p * np.hypot(start.p, mass) / SPEED_OF_LIGHT
    decayed = (to_decay < to_face) & (to_decay <= to_interaction)
    interacted = (to_interaction < to_face) & ~decayed
    _make_secondaries(pdg, mass, end, time, decayed, interacted, rng, made)
    reaches = ~decayed & ~interacted & ~stops
    hole = min(
        settings.calorimeter.ecal.endcap_inner_radius_mm,
        settings.calorimeter.hcal.endcap_inner_radius_mm,
    )
    leaves = reaches & ((np.hypot(end.x, end.y) < hole) | is_neutrino(pdg))
    status = np.select(
        [decayed | interacted, stops, leaves | (np.abs(pdg) == 13)],
        [DECAYED_IN_TRACKER, STOPPED, LEFT_DETECTOR],
        DECAYED_IN_CALORIMETER,
    )
    return _Outcome(end, before + path, time, status, share, reaches & ~leaves)


def _radiate(
    generation: _Generation,
    to_face: Values,
    settings: SimulateSettings,
    rng: np.random.Generator,
    made: "_Secondaries",
) -> tuple[State, Values, Values, Values]:
    """Let electrons radiate one photon each.

    Return states after it, path before it, mean momentum share, path left to the face.
    """
    tracker, b_field = settings.tracker, settings.b_field_tesla
    state = generation.state
    lost = interactions.radiated_share(generation.pdg, state, tracker, rng)
    electrons = np.flatnonzero(lost > 0)
    where = interactions.crossing_share(state.take(electrons), tracker, rng)
    electrons, where = electrons[np.isfinite(where)], where[np.isfinite(where)]
    before, share = np.zeros(len(lost)), np.ones(len(lost))
    if not len(electrons):
        return state, before, share, to_face
    before[electrons] = where * to_face[electrons]
    share[electrons] = 1 - lost[electrons] * (1 - where)
    there = helix.advance(state.take(electrons), before[electrons], b_field)
    time = generation.time[electrons] + before[electrons] / SPEED_OF_LIGHT
    photon = lost[electrons]
    made.add(
        electrons,
        np.full(len(electrons), 22),
        there,
        time,
        photon,
        np.zeros(len(electrons)),
        not_endpoint=True,
    )
    left = 1 - photon
    after = State(
        there.x, there.y, there.z, left * there.px, left * there.py, left * there.pz, there.charge
    )
    state = State(
        *(_with(getattr(state, f.name), electrons, getattr(after, f.name)) for f in fields(State))
    )
    rest = helix.path_to_surface(after, tracker.radius_mm, tracker.half_length_mm, b_field)
    limit = 2 * np.pi * MAX_TURNS / np.abs(after.turning(b_field))
    return state, before, share, _with(to_face, electrons, np.minimum(rest, limit))


def _make_secondaries(
    pdg: Rows,
    mass: Values,
    end: State,
    time: Values,
    decayed: NDArray[np.bool_],
    interacted: NDArray[np.bool_],
    rng: np.random.Generator,
    made: "_Secondaries",
) -> None:
    """Collect the products of decays, conversions and nuclear interactions."""
    for chosen, process in (
        (np.flatnonzero(decayed), "decay"),
        (np.flatnonzero(interacted & (pdg == 22)), "conversion"),
        (np.flatnonzero(interacted & (pdg != 22)), "nuclear"),
    ):
        state = end.take(chosen)
        if process == "decay":
            products = decays.decay(
                pdg[chosen], state.px, state.py, state.pz, np.hypot(state.p, mass[chosen]), rng
            )
        elif process == "conversion":
            products = interactions.convert(state, rng)
        else:
            products = interactions.break_up(pdg[chosen], state, mass[chosen], rng)
        made.add_products(chosen, products, state, time[chosen])


def _enter(generation: _Generation, outcome: _Outcome) -> Entering:
    """Return the particles that reach the calorimeters."""
    rows = np.flatnonzero(outcome.enters)
    end, pdg, mass = outcome.end.take(rows), generation.pdg[rows], generation.mass[rows]
    total = np.hypot(end.p, mass)
    baryon = species.is_baryon(pdg)
    visible = np.where(baryon, total - mass + np.where(pdg < 0, 2 * mass, 0.0), total)
    kind = np.select(
        [np.isin(np.abs(pdg), (11, 22)), np.abs(pdg) == 13],
        [Kind.ELECTROMAGNETIC, Kind.MUON],
        Kind.HADRON,
    )
    return Entering(
        event=generation.event[rows],
        particle=generation.row[rows],
        pdg=pdg,
        kind=kind.astype(np.int8),
        charge=end.charge,
        energy=visible,
        x=end.x,
        y=end.y,
        z=end.z,
        dx=end.px / end.p,
        dy=end.py / end.p,
        dz=end.pz / end.p,
    )


class _Secondaries:
    """Products of one pass: columns by name, ``parent`` counted in the generation's own rows."""

    def __init__(self) -> None:
        self.columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _NEW_COLUMNS}

    def add(
        self,
        parent: Rows,
        pdg: Rows,
        at: State,
        time: Values,
        share: Values,
        mass: Values,
        *,
        not_endpoint: bool,
    ) -> None:
        """Add one product per parent that carries this share of its momentum."""
        self._extend(
            parent,
            pdg,
            share * at.px,
            share * at.py,
            share * at.pz,
            mass,
            at.x,
            at.y,
            at.z,
            time,
            not_endpoint,
        )

    def add_products(
        self, parents: Rows, products: decays.Products, at: State, time: Values
    ) -> None:
        """Add products.

        Their ``parent`` counts rows of ``parents``, whose states at the vertex are ``at``.
        """
        of, vertex = products.parent, at.take(products.parent)
        momentum = (products.px, products.py, products.pz)
        self._extend(
            parents[of],
            products.pdg,
            *momentum,
            products.mass,
            vertex.x,
            vertex.y,
            vertex.z,
            time[of],
            False,
        )

    def _extend(self, *values: NDArray[Any] | bool) -> None:
        for name, value in zip(_NEW_COLUMNS, values, strict=True):
            self.columns[name].append(np.broadcast_to(np.asarray(value), np.shape(values[0])))

    def column(self, name: str) -> NDArray[Any]:
        """Return all values of a column."""
        return np.concatenate(self.columns[name]) if self.columns[name] else np.zeros(0)


_NEW_COLUMNS = ("parent", "pdg", "px", "py", "pz", "mass", "x", "y", "z", "time", "not_endpoint")


class _History:
    """The truth history under construction: generator rows first, then the secondaries.

    Each generation of secondaries is appended.
    """

    def __init__(self, generated: Particles) -> None:
        self.generated = generated
        self.columns = {name: np.array(getattr(generated, name)) for name in _COLUMNS}
        # of secondaries; the generator's rows have lists of their own
        self.parent = [np.full(len(generated), -1, np.int64)]

    def generation(self, rows: Rows) -> _Generation:
        """Return these rows as particles ready to fly."""
        take = {name: column[rows] for name, column in self.columns.items()}
        state = State(*(take[name] for name in ("x", "y", "z", "px", "py", "pz", "charge")))
        return _Generation(
            rows, take["event"], take["pdg"].astype(np.int64), take["mass"], take["time"], state
        )

    def finish(self, rows: Rows, outcome: _Outcome) -> None:
        """Note where particles ended and how."""
        self.columns["simulator_status"][rows] |= outcome.status.astype(np.int32)
        for axis in "xyz":
            self.columns[f"endpoint_{axis}"][rows] = getattr(outcome.end, axis)

    def append(self, parents: _Generation, made: _Secondaries) -> _Generation:
        """Add secondaries as new rows and return them as the next generation."""
        first = len(self.columns["event"])
        parent = made.column("parent").astype(np.int64)
        new = {
            name: made.column(name)
            for name in ("pdg", "px", "py", "pz", "mass", "x", "y", "z", "time")
        }
        overlay = self.columns["simulator_status"][parents.row[parent]] & OVERLAY
        detached = np.where(
            made.column("not_endpoint").astype(bool), VERTEX_IS_NOT_ENDPOINT_OF_PARENT, 0
        )
        new |= {
            "event": parents.event[parent],
            "generator_status": np.zeros(len(parent)),
            "simulator_status": CREATED_IN_SIMULATION | overlay | detached,
            "charge": species.charge_of(new["pdg"].astype(np.int64)),
            "energy": np.sqrt(new["px"] ** 2 + new["py"] ** 2 + new["pz"] ** 2 + new["mass"] ** 2),
            **{f"endpoint_{axis}": new[axis] for axis in "xyz"},
        }
        for name, column in self.columns.items():
            self.columns[name] = np.concatenate([column, new[name].astype(column.dtype)])
        self.parent.append(parents.row[parent])
        return self.generation(np.arange(first, first + len(parent)))

    def close(self, entering: Entering, flights: Flights) -> tuple[Particles, Entering, Flights]:
        """Order everything by event and link parents to daughters."""
        order = np.argsort(self.columns["event"], kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        secondary = np.concatenate(self.parent)
        own = self.generated
        child = np.repeat(np.arange(len(own)), np.diff(own.parents_offsets))
        new = np.flatnonzero(secondary >= 0)
        links = (
            place[np.concatenate([child, new])],
            place[np.concatenate([own.parents_index, secondary[new]])],
        )
        particles = Particles(
            **{n: c[order] for n, c in self.columns.items()},
            **lists_from_parents(*links, len(order)),
        )
        enters = _renumbered(entering, place)
        flew = np.argsort(place[flights.particle], kind="stable")
        ordered = Flights(
            place[flights.particle][flew], flights.path[flew], flights.momentum_share[flew]
        )
        return particles, enters, ordered


_COLUMNS = tuple(
    f.name for f in fields(Particles) if not f.name.startswith(("parents_", "daughters_"))
)


def _renumbered(entering: Entering, place: Rows) -> Entering:
    """Return the history with particles renumbered, in their new order."""
    particle = place[entering.particle]
    order = np.argsort(particle, kind="stable")
    columns = {f.name: getattr(entering, f.name)[order] for f in fields(Entering)}
    return Entering(**(columns | {"particle": particle[order]}))


def _with(values: Values, rows: Rows, replacement: Values) -> Values:
    """Return a copy with some rows replaced."""
    copy = np.array(values)
    copy[rows] = replacement
    return copy
