"""Read EDM4hep ROOT files (TTree or RNTuple, 2021 to now) chunk by chunk into flat tables.

Inputs -> outputs: a ROOT file and the detector's collection names -> ``raw_events.RawEvents`` with
the tables

* ``particles``: pdg, status (generatorStatus), charge, px, py, pz, energy in GeV (from momentum and
  mass), and vx, vy (mm), where they began;
* ``tracks``: chi2, ndf, n_hits, dedx, radius_innermost_hit (mm); ``states``: the track states, mm,
  rad, 1/mm;
* ``clusters``: energy, position, sub-detector energies where the file has them; ``hits``:
  calorimeter hits, with time (ns);
* ``candidates``: pdg, charge, four-momentum;

and the relations between them. Names differ between versions; ``layout`` knows how. Which
collections mean what is the detector's branch map, settled for the file by ``mapping``; several
collections of one meaning become one table. A collection that is not there gives an empty table;
what no truth can do without (particles with parents, tracks or clusters, a link) is a UserError.
Where links from hits, clusters or tracks are missing, ``fallbacks`` derives them from simulated
hits or from the candidates' links. References that point nowhere, or at a collection that is not
read, are left out and counted. A history with a cycle is a UserError.

Invariant: after ``read`` every row number of every relation lies within its table.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from particleforge.config.collections import CollectionsConfig
from particleforge.edm4hep import fallbacks
from particleforge.edm4hep.chunk import Chunk
from particleforge.edm4hep.datamodel import AT_IP, AT_OTHER
from particleforge.edm4hep.group import Group
from particleforge.edm4hep.history import refuse_cycles
from particleforge.edm4hep.origins import origin_of, with_origins
from particleforge.edm4hep.raw_events import (
    Array,
    BoolArray,
    IntArray,
    Pairs,
    RawEvents,
    Table,
    particle_columns,
    summed,
)
from particleforge.edm4hep.rootfile import EventFile
from particleforge.edm4hep.unread import unread_hits
from particleforge.errors import UserError

STATE_COLUMNS = {
    "location": ("location",),
    "d0": ("D0",),
    "phi": ("phi",),
    "omega": ("omega",),
    "z0": ("Z0",),
    "tan_lambda": ("tanLambda",),
    "x": ("referencePoint.x",),
    "y": ("referencePoint.y",),
    "z": ("referencePoint.z",),
}
_POSITION = {axis: (f"position.{axis}",) for axis in "xyz"}
# first entries of Pandora's subdetectorEnergies; the rest is "other"
_SUBDETECTORS = ("energy_ecal", "energy_hcal")


def read_chunks(
    path: str | Path,
    collections: CollectionsConfig,
    n_events: int,
    n_events_max: int | None = None,
    *,
    truth: bool = True,
) -> Iterator[RawEvents]:
    """Yield a file's events, or the first ``n_events_max``, ``n_events`` at a time.

    Without ``truth`` neither particles nor links are read or needed, and what leads back to the
    file is (``RawEvents.origin``). A file that cannot be used is a UserError.
    """
    with EventFile(path, collections, truth) as file:
        file.warn_of_doubled()
        total = file.n_events if n_events_max is None else min(file.n_events, n_events_max)
        for start, stop in file.ranges(n_events, total):
            try:
                events = _EventChunk(file, start, stop).events()
            except UserError:
                raise
            except Exception as error:  # uproot raises whatever broken bytes lead it to
                raise file.unreadable(error) from error
            yield events


class _EventChunk(Chunk):
    """Reads what the collections of one range of events mean."""

    def events(self) -> RawEvents:
        """Read everything."""
        names, run_event = self.names, self.file.numbers
        particles = Group.of(
            {names.particles: self.particles()},
            Table.empty(self.n_events, {}),
            names.particle_aliases,
        )
        parents = self.relation("MCParticle", "parents", particles, particles, (names.particles,))
        refuse_cycles(self.file.path, names.particles, particles.table, parents, self.start)
        tracks, states, track_states = self.tracks()
        hits = self.hits()
        clusters, cluster_hits = self.clusters(hits)
        unread, unread_names = (
            unread_hits(self, clusters, hits, cluster_hits) if self.file.truth else (None, ())
        )
        candidates = self.candidates()
        candidate_tracks = self.relation("ReconstructedParticle", "tracks", candidates, tracks)
        candidate_clusters = self.relation(
            "ReconstructedParticle", "clusters", candidates, clusters
        )
        hit_links, track_links, cluster_links = self.truth_links(
            particles, tracks, clusters, hits, candidates, candidate_tracks, candidate_clusters
        )
        origins = [with_origins(self, group) for group in (tracks, clusters, hits)]
        return RawEvents(
            run_number=run_event[0][self.start : self.stop],
            event_number=run_event[1][self.start : self.stop],
            own_number=run_event[2][self.start : self.stop],
            weight=self.file.weights[self.start : self.stop],
            particles=particles.table,
            parents=parents,
            tracks=origins[0],
            states=states,
            track_states=track_states,
            clusters=origins[1],
            hits=origins[2],
            cluster_hits=cluster_hits,
            unread_hits=unread,
            unread_collections=unread_names,
            hit_links=hit_links,
            cluster_links=cluster_links,
            track_links=track_links,
            candidates=candidates.table,
            candidate_tracks=candidate_tracks,
            candidate_clusters=candidate_clusters,
            more_than_hits=bool(names.tracks or names.clusters),
            linked_hits=names.linked_hits,
            truth_from_hits=names.linked_hits
            and any(self.layout.relation("Cluster", name, "hits") for name in names.clusters),
            counts=self.counts,
            origin=origin_of(self, {"track": tracks, "cluster": clusters, "hit": hits}),
        )

    def truth_links(
        self,
        particles: Group,
        tracks: Group,
        clusters: Group,
        hits: Group,
        candidates: Group,
        candidate_tracks: Pairs,
        candidate_clusters: Pairs,
    ) -> tuple[Pairs, Pairs, Pairs]:
        """Return the links from hits, tracks and clusters to particles, derived where missing."""
        names = self.names
        hit_links = self.links(names.hit_links, hits, particles)
        track_links = self.links(names.track_links, tracks, particles)
        cluster_links = self.links(names.cluster_links, clusters, particles)
        if not names.hit_links and names.hit_sim_links:
            hit_links = fallbacks.hit_links(self, hits, particles)
        if not names.track_links and names.tracker_hit_sim_links:
            track_links = fallbacks.track_links(self, tracks, particles)
        tracks_wait = (
            not names.track_links
            and not names.tracker_hit_sim_links
            and len(candidate_tracks.left) > 0
        )
        clusters_wait = (
            not names.cluster_links and not names.linked_hits and len(candidate_clusters.left) > 0
        )
        if names.candidate_links and (tracks_wait or clusters_wait):
            candidate_links = self.links(names.candidate_links, candidates, particles)
            n_candidates = candidates.table.n_rows
            if tracks_wait:
                track_links = fallbacks.through_candidates(
                    candidate_tracks, candidate_links, n_candidates
                )
            if clusters_wait:
                cluster_links = fallbacks.through_candidates(
                    candidate_clusters, candidate_links, n_candidates, particles.table["energy"]
                )
        return hit_links, track_links, cluster_links

    def particles(self) -> Table:
        """Read the particles."""
        columns = {"pdg": "PDG", "status": "generatorStatus", "charge": "charge", "mass": "mass"}
        columns |= {f"p{axis}": f"momentum.{axis}" for axis in "xyz"}
        columns |= {f"v{axis}": f"vertex.{axis}" for axis in "xy"}
        columns["simulator_status"] = "simulatorStatus"
        table = self.table(
            self.names.particles,
            {name: (member,) for name, member in columns.items()},
            optional=("vx", "vy", "simulator_status"),
        )
        where = f"{self.file.path}: {self.names.particles}"
        return Table(table.offsets, particle_columns(table, where))

    def tracks(self) -> tuple[Group, Table, Pairs]:
        """Read the tracks and their states, of all collections."""
        read = {name: self.tracks_of(name) for name in self.names.tracks}
        columns = dict.fromkeys(("chi2", "ndf", "n_hits", "dedx", "radius_innermost_hit"), float)
        tracks = Group.of(
            {name: table for name, (table, _, _) in read.items()},
            Table.empty(self.n_events, columns),
        )
        empty = Table.empty(self.n_events, dict.fromkeys(STATE_COLUMNS, float))
        states = Group.of({name: states for name, (_, states, _) in read.items()}, empty)
        owned = [
            (tracks.rows_of(name)[pairs.left], states.rows_of(name)[pairs.right])
            for name, (_, _, pairs) in read.items()
        ]
        if not owned:
            return tracks, states.table, Pairs.none()
        return (
            tracks,
            states.table,
            Pairs.of(*(np.concatenate(ends) for ends in zip(*owned, strict=True))),
        )

    def tracks_of(self, name: str) -> tuple[Table, Table, Pairs]:
        """Read the tracks of one collection, their states, and which are whose."""
        layout = self.layout
        columns = {
            "chi2": ("chi2",),
            "ndf": ("ndf",),
            "dedx": ("dEdx",),
            "radius_innermost_hit": ("radiusOfInnermostHit",),
        }
        table = self.table(name, columns, optional=("dedx", "radius_innermost_hit"))
        zeros = np.zeros(table.n_rows)
        n_hits = zeros
        begin, end = (layout.member(name, f"trackerHits_{edge}") for edge in ("begin", "end"))
        if begin and end:
            edges = self.leaves({"begin": begin, "end": end})
            n_hits = edges["end"].astype(np.float64) - edges["begin"].astype(np.float64)
        dedx = table["dedx"] if "dedx" in table else self.dedx(name, table)
        radius = table.columns.get("radius_innermost_hit", zeros)
        tracks = Table(
            table.offsets,
            {
                "chi2": table["chi2"],
                "ndf": table["ndf"],
                "n_hits": n_hits,
                "dedx": dedx,
                "radius_innermost_hit": radius,
            },
        )
        stem = layout.vector("Track", name, "trackStates")
        if stem is None:
            raise UserError(
                f"{self.file.path}: branch _{name}_trackStates is missing; without it tracks have"
                " no momentum"
            )
        states = self.table(stem, STATE_COLUMNS)
        owner, member = self.ranges(name, "trackStates", tracks, states.offsets)
        if self.names.track_state_at_ip != (AT_IP,):
            at_ip = _first_at(
                states["location"][member], owner, tracks.n_rows, self.names.track_state_at_ip
            )
            location = np.where(states["location"] == AT_IP, AT_OTHER, states["location"])
            location[member[at_ip]] = AT_IP
            states = Table(states.offsets, {**states.columns, "location": location})
        return tracks, states, Pairs.of(owner, member)

    def dedx(self, name: str, tracks: Table) -> Array:
        """Return the specific ionisation: the track's first quantity, else a collection's, else 0.

        The collection lies beside the tracks.
        """
        values = np.zeros(tracks.n_rows)
        stem = self.layout.vector("Track", name, "dxQuantities")
        if stem is not None and (leaf := self.layout.member(stem, "value")) is not None:
            quantities = self.leaves({"value": leaf})
            owner, member = self.ranges(name, "dxQuantities", tracks, quantities.offsets)
            # in reverse, so that a track's first stays
            values[owner[::-1]] = quantities["value"][member[::-1]]
            return values
        of_this = Group.of({name: tracks}, tracks)
        for beside in self.names.dqdx:
            leaf = self.layout.member(beside, "dQdx.value")
            ends = self.layout.relation("RecDqdx", beside, "track")
            if leaf is not None and ends is not None:
                value = self.leaves({"value": leaf})
                rows = self.rows(ends, of_this)
                if len(rows) == value.n_rows:
                    values[rows[rows >= 0]] = value["value"][rows >= 0]
        return values

    def hits(self) -> Group:
        """Read the calorimeter hits of all collections as one table."""
        tables = {}
        for collection, system in self.names.hits.items():
            table = self.table(
                collection,
                {"energy": ("energy",), **_POSITION, "time": ("time",)},
                optional=("time",),
            )
            time = table.columns.get("time", np.zeros(table.n_rows))
            tables[collection] = Table(
                table.offsets,
                {**table.columns, "time": time, "system": np.full(table.n_rows, system)},
            )
        columns = {**dict.fromkeys(("energy", *"xyz", "time"), float), "system": int}
        return Group.of(tables, Table.empty(self.n_events, columns))

    def clusters(self, hits: Group) -> tuple[Group, Pairs]:
        """Read all collections' clusters, and their hits, which place those without position."""
        tables = {
            name: self.with_subdetectors(
                name, self.table(name, {"energy": ("energy",), **_POSITION})
            )
            for name in self.names.clusters
        }
        # some tell sub-detector energies: they count for none
        if len({frozenset(table.columns) for table in tables.values()}) > 1:
            kept = ("energy", *_POSITION)
            tables = {
                name: Table(table.offsets, {key: table[key] for key in kept})
                for name, table in tables.items()
            }
        clusters = Group.of(
            tables, Table.empty(self.n_events, dict.fromkeys(("energy", *_POSITION), float))
        )
        cluster_hits = self.relation("Cluster", "hits", clusters, hits)
        table = clusters.table
        unplaced = (table["x"] == 0) & (table["y"] == 0) & (table["z"] == 0)
        if np.any(unplaced) and len(cluster_hits.left):
            energy = hits.table["energy"][cluster_hits.right].astype(np.float64)
            # Delphes' hits have none
            energy = np.where(np.isfinite(energy) & (energy > 0), energy, 1e-9)
            total = summed(cluster_hits.left, energy, table.n_rows)
            columns = dict(table.columns)
            for axis in "xyz":
                moment = summed(
                    cluster_hits.left, energy * hits.table[axis][cluster_hits.right], table.n_rows
                )
                columns[axis] = np.where(
                    unplaced & (total > 0), moment / np.where(total > 0, total, 1), table[axis]
                )
            clusters = Group(Table(table.offsets, columns), clusters.members)
        return clusters, cluster_hits

    def with_subdetectors(self, name: str, clusters: Table) -> Table:
        """Add the sub-detector energies that the clusters carry themselves, where they do."""
        stem = self.layout.vector("Cluster", name, "subdetectorEnergies")
        if stem is None or stem not in self.layout.leaves:
            return clusters
        energies = self.leaves({"energy": stem})
        owner, member = self.ranges(name, "subdetectorEnergies", clusters, energies.offsets)
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        columns = {}
        for number, column in enumerate((*_SUBDETECTORS, "energy_other")):
            chosen = place == number if number < len(_SUBDETECTORS) else place >= number
            columns[column] = np.bincount(
                owner[chosen], energies["energy"][member[chosen]], clusters.n_rows
            )
        return Table(clusters.offsets, {**clusters.columns, **columns})

    def candidates(self) -> Group:
        """Read the baseline's candidates."""
        columns = {"pdg": ("PDG", "type"), "charge": ("charge",), "energy": ("energy",)}
        columns |= {f"p{axis}": (f"momentum.{axis}",) for axis in "xyz"}
        return Group.of(
            {name: self.table(name, columns) for name in self.names.candidates},
            Table.empty(self.n_events, dict.fromkeys(columns, float)),
        )


def _first_at(location: Array, owner: IntArray, n_owners: int, wanted: Sequence[int]) -> BoolArray:
    """Tell of each state whether its location is the first of ``wanted`` that its owner has."""
    chosen, served = np.zeros(len(location), bool), np.zeros(n_owners, bool)
    for place in wanted:
        here = (location == place) & ~served[owner]
        chosen |= here
        served[owner[here]] = True
    return chosen
