"""Read Delphes ROOT files chunk by chunk into the flat tables that ``edm4hep.reader`` gives, too.

Inputs -> outputs: a Delphes file, the names of its branches, the field (T) and the face of the
calorimeter -> ``RawEvents``:

* ``particles``: as the file has them; energy in GeV from momentum and mass. There are no parents:
  Delphes propagates what the generator left stable and makes no secondaries, so nothing that was
  deposited has a history to be followed.
* ``tracks``: parameters of two states, at the point of closest approach to the origin (EDM4hep
  location 1) and at the calorimeter (4), as LCIO defines them (LC-DET-2006-004): omega = charge
  0.299792458e-3 B / PT in 1/mm; the size of d0 is D0's, its sign follows from the point of closest
  approach (Xd, Yd), for modules disagree (ParticlePropagator: D0 = (x py - y px) / pT, the other
  way round than LCIO and TrackCovariance); without that point, it is ParticlePropagator's.
  Chi-square, hits and dE/dx are 0: Delphes fits nothing.
* ``clusters``: towers, or what else of class Tower the configuration names. They have a direction
  only, so they are put on the calorimeter's inner face along it. Eem and Ehad are the energies in
  ECAL and HCAL; where both are 0, the energy lies elsewhere.
* ``candidates``: the e-flow. Charged ones have the track's PID, which Delphes knows from the truth;
  photons are 22 and neutral hadrons 130 (K0L), both massless as in Delphes itself; a neutral
  ParticleFlowCandidate is a hadron if it holds hadronic energy.

Members that older versions lack: Mass of tracks (then 0), CtgTheta, D0 and DZ (then Eta, Dxy, Zd).

Truth links: a track is all of its ``Particle``'s. A tower names its ``Particles`` but not what each
left in it, so their energies are the weights: particles of 30 and 10 GeV share a tower 3 : 1.
Pile-up is truth like any other particle (docs/truth.md), if the branch holds it; references that
point nowhere are left out and counted. A candidate stands for the track, or the tower of its
calorimeter, that names the same particle.

Lengths in mm, energies in GeV; nothing that is read has a time. Invariant: every row number of
every relation lies within its table.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from particleforge.config.collections import spelled
from particleforge.config.delphes import DelphesConfig
from particleforge.config.geometry import SamplingConfig
from particleforge.delphes.chunk import Chunk, all_of, merged, one_per_event
from particleforge.delphes.directions import ETA_MAX, momentum_of, on_face
from particleforge.delphes.references import keys, sharing
from particleforge.delphes.rootfile import DelphesFile
from particleforge.edm4hep.constants import GEV_PER_TESLA_MM, NEUTRAL_HADRON, PHOTON
from particleforge.edm4hep.datamodel import AT_CALORIMETER, AT_IP
from particleforge.edm4hep.raw_events import (
    Array,
    FloatArray,
    IntArray,
    Pairs,
    RawEvents,
    Table,
    combined,
    particle_columns,
)
from particleforge.edm4hep.weights import filled
from particleforge.errors import UserError

log = logging.getLogger(__name__)

_CANDIDATE = {"pdg": int, "charge": float, "px": float, "py": float, "pz": float, "energy": float}


def read_chunks(
    path: str | Path,
    branches: DelphesConfig,
    b_field_tesla: float,
    ecal: SamplingConfig,
    n_events: int,
    n_events_max: int | None = None,
    *,
    truth: bool = True,
) -> Iterator[RawEvents]:
    """Yield a file's events, or the first ``n_events_max``, ``n_events`` at a time.

    Without ``truth`` particles are neither read nor needed, and what leads back to the file is
    (``RawEvents.origin``). A file that cannot be used is a UserError.
    """
    with DelphesFile(path) as file:
        file.warn_of_doubled()
        try:
            numbers, weights = _check(file, branches, truth), _weights(file, branches)
            total = file.n_events if n_events_max is None else min(file.n_events, n_events_max)
            for start in range(0, total, n_events):
                stop = min(start + n_events, total)
                events = _EventChunk(file, branches, start, stop, truth).events(
                    numbers[0][start:stop],
                    numbers[1][start:stop],
                    weights[start:stop],
                    b_field_tesla,
                    ecal,
                )
                yield events
        except UserError:
            raise
        except Exception as error:  # uproot raises whatever broken bytes lead it to
            raise file.unreadable(error) from error


def _check(file: DelphesFile, branches: DelphesConfig, truth: bool) -> tuple[Array, Array]:
    """Refuse a file from which no truth can be built, or nothing reconstructed.

    Return the events' numbers and the file's own (see ``RawEvents``).
    """
    if truth and not file.found(branches.particles):
        raise UserError(
            f"{file.path}: no branch {spelled(branches.particles)}; correct the detector's"
            " 'delphes.particles'"
        )
    if not file.found(branches.tracks) and not file.found(branches.clusters):
        raise UserError(
            f"{file.path}: neither {spelled(branches.tracks)} nor {spelled(branches.clusters)} is"
            " there; let the Delphes card write tracks and towers, or correct the detector's"
            " 'delphes'"
        )
    position = np.arange(file.n_events, dtype=np.uint64)
    leaf = file.member(branches.event, "Number")
    if leaf is None:
        return position, np.zeros_like(position)
    numbers = one_per_event(file, leaf, 0, file.n_events)
    own = numbers.astype(np.int64).astype(np.uint64)
    if np.any(numbers < 0) or len(np.unique(numbers)) < file.n_events:
        log.warning(
            "%s: events share their number; they are numbered by their position in the file",
            file.path,
        )
        return position, own
    return own, own


def _weights(file: DelphesFile, branches: DelphesConfig) -> FloatArray:
    """Return the events' weights, 1 where the file has none or never filled them."""
    leaf = file.member(branches.event, "Weight")
    if leaf is None:
        return np.ones(file.n_events)
    return filled(one_per_event(file, leaf, 0, file.n_events).astype(np.float64))


class _EventChunk(Chunk):
    """Reads what the branches of one range of events mean."""

    def events(
        self,
        numbers: Array,
        own_numbers: Array,
        weights: FloatArray,
        b_field_tesla: float,
        ecal: SamplingConfig,
    ) -> RawEvents:
        """Return the chunk's events."""
        particles, particle_keys = self.particles()
        energy = particles["energy"]
        tracks, states, track_refs = self.tracks(b_field_tesla)
        clusters, cluster_refs = self.clusters(ecal)
        candidates, candidate_tracks, candidate_clusters = self.candidates(
            track_refs, clusters, cluster_refs
        )
        two_each = np.repeat(np.arange(tracks.n_rows), 2)
        return RawEvents(
            run_number=np.zeros(self.n_events, np.uint32),
            event_number=numbers,
            own_number=own_numbers,
            weight=weights,
            particles=particles,
            parents=Pairs.none(),
            tracks=tracks,
            states=states,
            track_states=Pairs.of(two_each, np.arange(len(two_each))),
            clusters=clusters,
            hits=Table.empty(
                self.n_events,
                dict.fromkeys(("energy", "x", "y", "z", "time"), float) | {"system": int},
            ),
            cluster_hits=Pairs.none(),
            hit_links=Pairs.none(),
            cluster_links=self.links(cluster_refs, particle_keys, energy),
            track_links=self.links(track_refs, particle_keys, np.ones_like(energy)),
            candidates=candidates,
            candidate_tracks=candidate_tracks,
            candidate_clusters=candidate_clusters,
            linked_hits=False,
            truth_from_hits=False,
            counts={"references_dropped": self.dropped},
            origin=self.origin(own_numbers if self.has_numbers else numbers),
        )

    def particles(self) -> tuple[Table, IntArray]:
        """Read the particles, and the keys that references to them have."""
        names = {
            "pdg": "PID",
            "status": "Status",
            "charge": "Charge",
            "mass": "Mass",
            "id": "fUniqueID",
        }
        names |= {f"p{axis}": f"P{axis}" for axis in "xyz"}
        found = self.file.found(self.branches.particles) if self.truth else ()
        members = {column: (name,) for column, name in names.items()}
        read, _ = merged(
            [self.table(branch, members) for branch in found],
            self.n_events,
            dict.fromkeys(names, float),
        )
        columns = particle_columns(read, f"{self.file.path}: {' or '.join(found)}")
        return Table(read.offsets, columns), keys(read.events(), read["id"])

    def tracks(self, b_field_tesla: float) -> tuple[Table, Table, Pairs]:
        """Read the tracks, two states for each, and (track, key of its particle)."""
        found = self.file.found(self.branches.tracks)
        parts = [self.tracks_of(branch) for branch in found]
        columns = ("pt", "phi", "charge", "d0", "z0", "x", "y", "z", "slope")
        read, row = merged(
            [part for part, _ in parts], self.n_events, dict.fromkeys(columns, float)
        )
        zeros = ("chi2", "ndf", "n_hits", "dedx", "radius_innermost_hit")
        tracks = Table(read.offsets, {name: np.zeros(read.n_rows) for name in zeros})
        tracks = self.with_origins(tracks, found, [part for part, _ in parts], row)
        return tracks, self.states(read, b_field_tesla), all_of(parts, row)

    def tracks_of(self, branch: str) -> tuple[Table, Pairs]:
        """Read the tracks of one branch, and (track, key of its particle)."""
        names = {
            "pt": ("PT",),
            "phi": ("Phi",),
            "charge": ("Charge",),
            "d0": ("D0", "Dxy"),
            "z0": ("DZ", "Zd"),
        }
        names |= {
            "x": ("XOuter",),
            "y": ("YOuter",),
            "z": ("ZOuter",),
            "slope": ("CtgTheta", "Eta"),
        }
        read = self.table(branch, names)
        columns = {name: column.astype(np.float64) for name, column in read.columns.items()}
        if self.file.member(branch, "CtgTheta") is None:
            columns["slope"] = np.sinh(np.clip(columns["slope"], -ETA_MAX, ETA_MAX))
        d0, columns["d0"] = columns["d0"], -columns["d0"]
        if (
            self.file.member(branch, "Xd") is not None
            and self.file.member(branch, "Yd") is not None
        ):
            nearest = self.table(branch, {"phi": ("Phi",), "x": ("Xd",), "y": ("Yd",)})
            side = nearest["y"] * np.cos(columns["phi"]) - nearest["x"] * np.sin(columns["phi"])
            columns["d0"] = np.where(side == 0, -d0, np.copysign(np.abs(d0), side))
        return Table(read.offsets, columns), self.references(branch, read)

    def states(self, read: Table, b_field_tesla: float) -> Table:
        """Return the tracks' states as read, in turn at interaction point and calorimeter."""
        columns = ("location", "d0", "phi", "omega", "z0", "tan_lambda", "x", "y", "z")
        # a track without momentum has no curvature and is left out later
        with np.errstate(divide="ignore", invalid="ignore"):
            omega = np.where(
                read["pt"] > 0, read["charge"] * GEV_PER_TESLA_MM * b_field_tesla / read["pt"], 0.0
            )
            phi, d0, x, y = read["phi"], read["d0"], read["x"], read["y"]
            to_centre = 1 / omega - d0
            outer_phi = np.arctan2(
                -omega * (x - to_centre * np.sin(phi)), omega * (y + to_centre * np.cos(phi))
            )
        none = np.zeros(read.n_rows)
        at_ip = (
            np.full(read.n_rows, AT_IP),
            d0,
            phi,
            omega,
            read["z0"],
            read["slope"],
            none,
            none,
            none,
        )
        outside = (
            np.full(read.n_rows, AT_CALORIMETER),
            none,
            outer_phi,
            omega,
            none,
            read["slope"],
            x,
            y,
            read["z"],
        )
        interleaved = {
            name: np.stack(pair, axis=1).ravel()
            for name, *pair in zip(columns, at_ip, outside, strict=True)
        }
        return Table(2 * read.offsets, interleaved)

    def clusters(self, ecal: SamplingConfig) -> tuple[Table, Pairs]:
        """Read what stands for clusters as one table, and (cluster, key of a particle in it).

        The table is laid out event by event.
        """
        found = self.file.found(self.branches.clusters)
        parts = [self.towers(branch) for branch in found]
        names = dict.fromkeys(("energy", "eta", "phi", "energy_ecal", "energy_hcal"), float)
        table, row = merged([part for part, _ in parts], self.n_events, names)
        columns = dict(table.columns)
        columns["energy_other"] = np.where(
            columns["energy_ecal"] + columns["energy_hcal"] > 0, 0.0, columns["energy"]
        )
        columns |= dict(
            zip("xyz", on_face(columns.pop("eta"), columns.pop("phi"), ecal), strict=True)
        )
        clusters = Table(table.offsets, columns)
        return self.with_origins(clusters, found, [part for part, _ in parts], row), all_of(
            parts, row
        )

    def towers(self, branch: str) -> tuple[Table, Pairs]:
        """Read objects of class Tower, and (object, key of a particle in it)."""
        names = {
            "energy": ("E",),
            "eta": ("Eta",),
            "phi": ("Phi",),
            "energy_ecal": ("Eem",),
            "energy_hcal": ("Ehad",),
        }
        read = self.table(branch, names)
        read = Table(
            read.offsets, {name: column.astype(np.float64) for name, column in read.columns.items()}
        )
        return read, self.reference_lists(branch, read)

    def candidates(
        self, track_refs: Pairs, clusters: Table, cluster_refs: Pairs
    ) -> tuple[Table, Pairs, Pairs]:
        """Read the e-flow as one table, with the tracks and clusters that its objects stand for.

        The table is laid out event by event.
        """
        names = self.branches
        parts = [self.eflow_tracks(names.eflow_tracks)] if self.file.has(names.eflow_tracks) else []
        parts += [
            self.eflow_towers(branch, pdg)
            for branch, pdg in (
                (names.eflow_photons, PHOTON),
                (names.eflow_neutral_hadrons, NEUTRAL_HADRON),
            )
            if self.file.has(branch)
        ]
        if not parts and self.file.has(names.eflow_candidates):
            parts.append(self.eflow_candidates(names.eflow_candidates))
        table, row = merged([part for part, _ in parts], self.n_events, _CANDIDATE)
        refs = all_of(parts, row)
        charged, photon = table["charge"] != 0, table["pdg"] == PHOTON
        to_clusters = [
            sharing(
                refs.where(kind[refs.left]),
                cluster_refs.where(clusters[energy][cluster_refs.left] > 0),
            )
            for kind, energy in (
                (~charged & photon, "energy_ecal"),
                (~charged & ~photon, "energy_hcal"),
            )
        ]
        return table, sharing(refs.where(charged[refs.left]), track_refs), combined(to_clusters)

    def eflow_tracks(self, branch: str) -> tuple[Table, Pairs]:
        """Read the charged candidates, and (candidate, key of its particle)."""
        read = self.table(
            branch,
            {
                "pt": ("PT",),
                "eta": ("Eta",),
                "phi": ("Phi",),
                "pid": ("PID",),
                "charge": ("Charge",),
            },
        )
        leaf = self.file.member(branch, "Mass")
        mass = (
            self.leaves({"mass": leaf})["mass"].astype(np.float64)
            if leaf
            else np.zeros(read.n_rows)
        )
        if len(mass) != read.n_rows:
            raise UserError(
                f"{self.file.path}: branch {leaf} and its neighbours differ in length; the file is"
                " damaged"
            )
        momentum = momentum_of(*(read[name].astype(np.float64) for name in ("pt", "eta", "phi")))
        energy = np.sqrt(sum(component**2 for component in momentum.values()) + mass**2)
        columns = {"pdg": read["pid"], "charge": read["charge"], **momentum, "energy": energy}
        return Table(read.offsets, columns), self.references(branch, read)

    def eflow_candidates(self, branch: str) -> tuple[Table, Pairs]:
        """Read candidates of every kind, and (candidate, key of a particle in it).

        Neutral ones have no PID worth reading.
        """
        names = {
            "pt": "PT",
            "eta": "Eta",
            "phi": "Phi",
            "pid": "PID",
            "charge": "Charge",
            "energy": "E",
            "hadronic": "Ehad",
        }
        read = self.table(branch, {column: (name,) for column, name in names.items()})
        momentum = momentum_of(*(read[name].astype(np.float64) for name in ("pt", "eta", "phi")))
        neutral = np.where(read["hadronic"] > 0, NEUTRAL_HADRON, PHOTON)
        pdg = np.where(read["charge"] != 0, read["pid"], neutral)
        columns = {
            "pdg": pdg,
            "charge": read["charge"],
            **momentum,
            "energy": read["energy"].astype(np.float64),
        }
        return Table(read.offsets, columns), self.reference_lists(branch, read)

    def eflow_towers(self, branch: str, pdg: int) -> tuple[Table, Pairs]:
        """Read one kind of neutral candidates, and (candidate, key of a particle in its tower)."""
        read, refs = self.towers(branch)
        energy = read["energy"]
        momentum = momentum_of(
            energy / np.cosh(np.clip(read["eta"], -ETA_MAX, ETA_MAX)), read["eta"], read["phi"]
        )
        columns = {
            "pdg": np.full(read.n_rows, pdg),
            "charge": np.zeros(read.n_rows),
            **momentum,
            "energy": energy,
        }
        return Table(read.offsets, columns), refs
