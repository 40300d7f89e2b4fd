"""Read EDM4hep ROOT files (TTree or RNTuple, 2021 to now) chunk by chunk into flat tables.

Inputs -> outputs: a ROOT file and the detector's collection names -> ``records.RawEvents`` with the tables

* ``particles``: pdg, status (generatorStatus), charge, px, py, pz, energy in GeV (from momentum and mass);
* ``tracks``: chi2, ndf, n_hits, dedx, radius_innermost_hit (mm); ``states``: the track states, mm, rad, 1/mm;
* ``clusters``: energy, position, sub-detector energies where the file has them; ``hits``: calorimeter hits, with time (ns);
* ``candidates``: pdg, charge, four-momentum;

and the relations between them. Names differ between versions; ``layout`` knows how. A collection that is not there gives
an empty table; what no truth can do without (particles with parents, tracks or clusters, a link) is a UserError.
References that point nowhere, or at a collection that is not read, are left out and counted.

Invariant: after ``read`` every row number of every relation lies within its table.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from particleforge.config.detector import CollectionsConfig
from particleforge.edm4hep.layout import Reference
from particleforge.edm4hep.records import Array, IntArray, Pairs, RawEvents, Table
from particleforge.edm4hep.rootfile import EventFile
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
_SUBDETECTORS = ("energy_ecal", "energy_hcal")  # first entries of Pandora's subdetectorEnergies; the rest is "other"


def read_chunks(path: str | Path, collections: CollectionsConfig, n_events: int) -> Iterator[RawEvents]:
    """Yield a file's events, ``n_events`` at a time; a file that cannot be used is a UserError."""
    with EventFile(path, collections) as file:
        for start in range(0, file.n_events, n_events):
            try:
                events = _Chunk(file, start, min(start + n_events, file.n_events)).events()
            except UserError:
                raise
            except Exception as error:  # uproot raises whatever broken bytes lead it to
                raise file.unreadable(error) from error
            yield events


class _Chunk:
    """Reads one range of events; keeps what relations need to become row numbers."""

    def __init__(self, file: EventFile, start: int, stop: int) -> None:
        self.file, self.layout, self.names = file, file.layout, file.names
        self.start, self.stop = start, stop
        self.n_events = stop - start
        self.counts = {"references_dropped": 0}

    def events(self) -> RawEvents:
        names, run_event = self.names, self.file.numbers
        particles = self.particles()
        tracks, states, track_states = self.tracks()
        clusters, hits, cluster_hits, hit_targets = self.calorimeter()
        particle_target = dict.fromkeys((names.particles, *names.particle_aliases), (0, particles))
        track_target, cluster_target = {names.tracks: (0, tracks)}, {names.clusters: (0, clusters)}
        hit_links, track_links, cluster_links = (
            self.links(alternatives, origin, particle_target)
            for alternatives, origin in (
                (names.hit_links, hit_targets),
                (names.track_links, track_target),
                (names.cluster_links, cluster_target),
            )
        )
        candidates = self.candidates()
        return RawEvents(
            run_number=run_event[0][self.start : self.stop],
            event_number=run_event[1][self.start : self.stop],
            weight=self.weights(),
            particles=particles,
            parents=self.relation("MCParticle", names.particles, "parents", particles, particle_target),
            tracks=tracks,
            states=states,
            track_states=track_states,
            clusters=clusters,
            hits=hits,
            cluster_hits=cluster_hits,
            hit_links=hit_links,
            cluster_links=cluster_links,
            track_links=track_links,
            candidates=candidates,
            candidate_tracks=self.relation("ReconstructedParticle", names.candidates, "tracks", candidates, track_target),
            candidate_clusters=self.relation("ReconstructedParticle", names.candidates, "clusters", candidates, cluster_target),
            linked_hits=self.linked_hits(),
            truth_from_hits=self.linked_hits() and self.layout.relation("Cluster", names.clusters, "hits") is not None,
            counts=self.counts,
        )

    def table(self, collection: str, columns: Mapping[str, tuple[str, ...]], optional: Sequence[str] = ()) -> Table:
        """Read members of a collection; columns in ``optional`` are left out where the file lacks them."""
        if not self.layout.has(collection):
            return Table.empty(self.n_events, {name: float for name in columns if name not in optional})
        leaves = {
            name: self.layout.member(collection, *members) if name in optional else self.layout.require(collection, *members)
            for name, members in columns.items()
        }
        return self.leaves({name: leaf for name, leaf in leaves.items() if leaf is not None})

    def leaves(self, leaves: dict[str, str]) -> Table:
        """Read leaves of one collection; they must agree on the number of entries."""
        offsets: IntArray | None = None
        columns = {}
        for name, leaf in leaves.items():
            counts, columns[name] = self.file.jagged(leaf, self.start, self.stop)
            found = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            if offsets is not None and not np.array_equal(offsets, found):
                raise UserError(f"{self.file.path}: branch {leaf} and its collection differ in length; the file is damaged")
            offsets = found
        assert offsets is not None
        if len(offsets) != self.n_events + 1:
            raise UserError(f"{self.file.path}: branch {leaf} has {len(offsets) - 1} of {self.n_events} events; the file is damaged")
        return Table(offsets, columns)

    def weights(self) -> Array:
        leaf = self.layout.member("EventHeader", "weight")
        if leaf is None:
            return np.ones(self.n_events)
        weights = self.file.column(leaf, self.start, self.stop).astype(np.float64)
        if len(weights) != self.n_events or not np.all(np.isfinite(weights)):
            raise UserError(f"{self.file.path}: {leaf} must hold one finite number per event; the file is damaged")
        return weights

    def particles(self) -> Table:
        columns = {"pdg": "PDG", "status": "generatorStatus", "charge": "charge", "mass": "mass"}
        columns |= {f"p{axis}": f"momentum.{axis}" for axis in "xyz"}
        table = self.table(self.names.particles, {name: (member,) for name, member in columns.items()})
        px, py, pz, mass = (table[name].astype(np.float64) for name in ("px", "py", "pz", "mass"))
        energy = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
        if not np.all(np.isfinite(energy)):
            raise UserError(f"{self.file.path}: {self.names.particles} holds momenta that are not finite; simulate the file again")
        return Table(
            table.offsets,
            {"pdg": table["pdg"].astype(np.int32), "status": table["status"].astype(np.int32), "charge": np.rint(table["charge"])}
            | {"px": px, "py": py, "pz": pz, "energy": energy},
        )

    def tracks(self) -> tuple[Table, Table, Pairs]:
        name, layout = self.names.tracks, self.layout
        columns = {"chi2": ("chi2",), "ndf": ("ndf",), "dedx": ("dEdx",), "radius_innermost_hit": ("radiusOfInnermostHit",)}
        table = self.table(name, columns, optional=("dedx", "radius_innermost_hit"))
        zeros = np.zeros(table.n_rows)
        n_hits = zeros
        begin, end = (layout.member(name, f"trackerHits_{edge}") for edge in ("begin", "end"))
        if begin and end:
            edges = self.leaves({"begin": begin, "end": end})
            n_hits = edges["end"].astype(np.float64) - edges["begin"].astype(np.float64)
        dedx = table["dedx"] if "dedx" in table else self.dedx(table)
        radius = table.columns.get("radius_innermost_hit", zeros)
        tracks = Table(
            table.offsets,
            {"chi2": table["chi2"], "ndf": table["ndf"], "n_hits": n_hits, "dedx": dedx, "radius_innermost_hit": radius},
        )
        stem = layout.vector("Track", name, "trackStates")
        if not layout.has(name):
            return tracks, Table.empty(self.n_events, dict.fromkeys(STATE_COLUMNS, float)), Pairs.none()
        if stem is None:
            raise UserError(f"{self.file.path}: branch _{name}_trackStates is missing; without it tracks have no momentum")
        states = self.table(stem, STATE_COLUMNS)
        owner, member = self.ranges(name, "trackStates", tracks, states.offsets)
        return tracks, states, Pairs.of(owner, member)

    def dedx(self, tracks: Table) -> Array:
        """Return dE/dx from the collection beside the tracks, or zeros."""
        beside = f"{self.names.tracks}_dQdx"
        values = np.zeros(tracks.n_rows)
        leaf, ends = self.layout.member(beside, "dQdx.value"), self.layout.relation("RecDqdx", beside, "track")
        if leaf is not None and ends is not None:
            value = self.leaves({"value": leaf})
            rows = self.rows(ends, {self.names.tracks: (0, tracks)})
            if len(rows) == value.n_rows:
                values[rows[rows >= 0]] = value["value"][rows >= 0]
        return values

    def calorimeter(self) -> tuple[Table, Table, Pairs, dict[str, tuple[int, Table]]]:
        """Read clusters and hits; the hits of all collections become one table, event by event."""
        name, names = self.names.clusters, self.names
        position = {axis: (f"position.{axis}",) for axis in "xyz"}
        clusters = self.table(name, {"energy": ("energy",), **position})
        clusters = self.with_subdetectors(clusters)
        tables, systems = {}, {}
        for system, collections in enumerate((names.ecal_hits, names.hcal_hits, names.other_hits)):
            for collection in collections:
                if self.layout.has(collection):
                    tables[collection] = self.table(collection, {"energy": ("energy",), **position, "time": ("time",)}, optional=("time",))
                    systems[collection] = system
        columns = {
            column: np.concatenate([np.zeros(0), *(table[column] for table in tables.values())]) for column in ("energy", "x", "y", "z")
        }
        times = [table["time"] if "time" in table else np.zeros(table.n_rows) for table in tables.values()]
        columns["time"] = np.concatenate([np.zeros(0), *times])
        columns["system"] = np.concatenate([np.zeros(0, int), *(np.full(table.n_rows, systems[key]) for key, table in tables.items())])
        event = np.concatenate([np.zeros(0, int), *(table.events() for table in tables.values())])
        order = np.argsort(event, kind="stable")
        counts = np.bincount(event, minlength=self.n_events)
        hits = Table(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), {key: value[order] for key, value in columns.items()})
        self.hit_rows = np.empty(len(order), np.int64)  # from the order of collections to that of the table
        self.hit_rows[order] = np.arange(len(order))
        targets, first = {}, 0
        for collection, table in tables.items():
            targets[collection] = (first, table)
            first += table.n_rows
        cluster_hits = self.relation("Cluster", name, "hits", clusters, targets)
        return clusters, hits, cluster_hits.renumber(right=self.hit_rows), targets

    def with_subdetectors(self, clusters: Table) -> Table:
        """Add the sub-detector energies that the clusters carry themselves, where they do."""
        stem = self.layout.vector("Cluster", self.names.clusters, "subdetectorEnergies")
        if stem is None or stem not in self.layout.leaves:
            return clusters
        energies = self.leaves({"energy": stem})
        owner, member = self.ranges(self.names.clusters, "subdetectorEnergies", clusters, energies.offsets)
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        columns = {}
        for number, column in enumerate((*_SUBDETECTORS, "energy_other")):
            chosen = place == number if number < len(_SUBDETECTORS) else place >= number
            columns[column] = np.bincount(owner[chosen], energies["energy"][member[chosen]], clusters.n_rows)
        return Table(clusters.offsets, {**clusters.columns, **columns})

    def candidates(self) -> Table:
        columns = {"pdg": ("PDG", "type"), "charge": ("charge",), "energy": ("energy",)}
        return self.table(self.names.candidates, columns | {f"p{axis}": (f"momentum.{axis}",) for axis in "xyz"})

    def linked_hits(self) -> bool:
        """Tell whether hits and their links are in the file."""
        names, layout = self.names, self.layout
        has_hits = layout.first((*names.ecal_hits, *names.hcal_hits, *names.other_hits)) is not None
        return has_hits and layout.first(names.hit_links) is not None

    def links(self, alternatives: Sequence[str], origin: dict[str, tuple[int, Table]], target: dict[str, tuple[int, Table]]) -> Pairs:
        """Read a link collection as weighted pairs of rows."""
        name = self.layout.first(alternatives)
        if name is None:
            return Pairs.none()
        ends = self.layout.link_end(name, "from"), self.layout.link_end(name, "to")
        if ends[0] is None or ends[1] is None:
            raise UserError(f"{self.file.path}: link {name} lacks its ends (_{name}_from.index, _{name}_to.index); the file is damaged")
        weight = self.leaves({"weight": self.layout.require(name, "weight")})["weight"]
        left, right = self.rows(ends[0], origin), self.rows(ends[1], target)
        if not len(left) == len(right) == len(weight):
            raise UserError(f"{self.file.path}: link {name} disagrees with its ends on the number of entries; the file is damaged")
        if alternatives is self.names.hit_links:
            left = np.where(left >= 0, self.hit_rows[left] if len(self.hit_rows) else -1, -1)
        return self.kept(Pairs.of(left, right, weight))

    def relation(self, kind: str, collection: str, name: str, owners: Table, targets: dict[str, tuple[int, Table]]) -> Pairs:
        """Read a one-to-many relation as pairs (row of the collection, row of the target)."""
        reference = self.layout.relation(kind, collection, name)
        if reference is None or owners.n_rows == 0 or not targets:
            return Pairs.none()
        counts = self.file.jagged(reference.index, self.start, self.stop)[0]
        rows = self.rows(reference, targets)
        owner, member = self.ranges(collection, name, owners, np.concatenate([[0], np.cumsum(counts)]))
        return self.kept(Pairs.of(owner, rows[member]))

    def rows(self, reference: Reference, targets: dict[str, tuple[int, Table]]) -> IntArray:
        """Turn references into row numbers of the target tables (each shifted by its number); -1 where they point nowhere."""
        table = self.leaves({"index": reference.index, "id": reference.collection_id})
        index, event = table["index"].astype(np.int64), table.events()
        ids = table["id"].astype(np.int64) & 0xFFFFFFFF  # 32 bits, signed in some versions
        rows = np.full(len(index), -1, np.int64)
        for collection_id, name in self.file.collection_ids.items():
            if name in targets:
                first, target = targets[name]
                valid = (ids == collection_id & 0xFFFFFFFF) & (index >= 0) & (index < target.counts[event])
                rows[valid] = first + target.offsets[event[valid]] + index[valid]
        return rows

    def ranges(self, collection: str, name: str, owners: Table, offsets: IntArray) -> tuple[IntArray, IntArray]:
        """Expand ``name_begin`` ... ``name_end`` of every owner into (owner row, row of the member list)."""
        leaves = {edge: self.layout.require(collection, f"{name}_{edge}") for edge in ("begin", "end")}
        edges = self.leaves(leaves)
        begin, end = edges["begin"].astype(np.int64), edges["end"].astype(np.int64)
        event = owners.events()
        if edges.n_rows != owners.n_rows or np.any(begin > end) or np.any(end > np.diff(offsets)[event]):
            raise UserError(f"{self.file.path}: {leaves['end']} points beyond its list; the file is damaged")
        n_members = end - begin
        owner = np.repeat(np.arange(owners.n_rows), n_members)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(n_members) - n_members, n_members)
        return owner, offsets[event[owner]] + begin[owner] + within

    def kept(self, pairs: Pairs) -> Pairs:
        """Leave out, and count, pairs that point nowhere or have a weight that is not a finite number."""
        keep = (pairs.left >= 0) & (pairs.right >= 0) & np.isfinite(pairs.weight)
        self.counts["references_dropped"] += int(np.sum(~keep))
        return pairs.where(keep)
