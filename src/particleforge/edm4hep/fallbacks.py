"""Truth links for files that lack those from hits, clusters or tracks to particles.

Inputs -> outputs: a chunk of a file -> weighted pairs as ``reader`` reads them from links, derived
from

* ``hit_links``: links from calorimeter hits to simulated hits; the weight is the energy of each of
  their contributions;
* ``track_links``: references from tracks to tracker hits, links from these to simulated hits, and
  the particle of each; the weight is the particle's share of the track's hits, a hit of several
  particles counting for each in equal parts;
* ``through_candidates``: links from candidates to particles, for the candidates' tracks and
  clusters. Those of Delphes files in EDM4hep carry no weights: a cluster is shared in proportion to
  the particles' energies. Those of iLCSoft's RecoMCTruthLinker carry two in one number: the
  particle's share of the track's hits in permil, plus 10000 times its share of the cluster's energy
  in permil.
"""

import numpy as np

from particleforge.edm4hep.chunk import Chunk
from particleforge.edm4hep.group import Group
from particleforge.edm4hep.layout import Reference
from particleforge.edm4hep.raw_events import (
    FloatArray,
    Pairs,
    Table,
    combined,
    grouped,
    joined,
    joined_sums,
    summed,
)
from particleforge.errors import UserError

_PACKED = 10000  # by which RecoMCTruthLinker multiplies a share in permil to put it beside another


def track_links(chunk: Chunk, tracks: Group, particles: Group) -> Pairs:
    """Return (track, particle, share of the track's hits)."""
    hits, simulated, links = _sim_links(chunk, chunk.names.tracker_hit_sim_links)
    made_by = []
    for name in simulated.members:
        if reference := chunk.layout.relation("SimTrackerHit", name, "particle"):
            rows, sim = chunk.rows(reference, particles), simulated.rows_of(name)
            if len(rows) != len(sim):
                raise UserError(
                    f"{chunk.file.path}: {reference.index} and {name} differ in length; the file is"
                    " damaged"
                )
            made_by.append(Pairs.of(sim, rows).where(rows >= 0))
    of_hits = joined(links, combined(made_by), simulated.table.n_rows)
    track_hits = chunk.relation("Track", "trackerHits", tracks, hits)
    in_tracks = joined(track_hits, _shares(of_hits, hits.table.n_rows), hits.table.n_rows)
    # of the track, not only those that are in the file
    n_hits = np.maximum(tracks.table["n_hits"], 1)
    return grouped(
        Pairs(in_tracks.left, in_tracks.right, in_tracks.weight / n_hits[in_tracks.left]),
        tracks.table.n_rows,
        particles.table.n_rows,
    )


def hit_links(chunk: Chunk, hits: Group, particles: Group) -> Pairs:
    """Return (calorimeter hit, particle, energy of the particle's contributions in GeV)."""
    _, simulated, links = _sim_links(chunk, chunk.names.hit_sim_links, hits)
    contributed = []
    for name in simulated.members:
        reference = chunk.layout.relation("SimCalorimeterHit", name, "contributions")
        if reference is None:
            continue
        contributions = _group(chunk, [reference], "energy")
        made_by = []
        for collection in contributions.members:
            energy = chunk.leaves({"energy": chunk.layout.require(collection, "energy")})["energy"]
            particle = chunk.layout.relation("CaloHitContribution", collection, "particle")
            if particle is not None:
                rows = chunk.rows(particle, particles)
                if len(rows) != len(energy):
                    raise UserError(
                        f"{chunk.file.path}: {particle.index} and {collection} differ in length;"
                        " the file is damaged"
                    )
                made_by.append(
                    Pairs.of(contributions.rows_of(collection), rows, energy).where(
                        (rows >= 0) & np.isfinite(energy)
                    )
                )
        in_hits = chunk.relation(
            "SimCalorimeterHit", "contributions", simulated, contributions, (name,)
        )
        contributed.append(joined(in_hits, combined(made_by), contributions.table.n_rows))
    return joined_sums(
        links,
        combined(contributed),
        hits.table.n_rows,
        simulated.table.n_rows,
        particles.table.n_rows,
    )


def through_candidates(
    objects: Pairs, links: Pairs, n_candidates: int, energy: FloatArray | None = None
) -> Pairs:
    """Return (track or cluster, particle, weight) from the pairs of a candidate.

    The pairs are (candidate, track or cluster) and (candidate, particle).

    ``energy`` of all particles is given for clusters. Where all weights of a candidate are 0, they
    were not filled: its tracks count each particle alike, and its clusters by energy; the same
    where all are 1, with which podio's links begin. A weight beyond 1 holds two.
    """
    positive, ones, links_of = (
        summed(links.left, of, n_candidates)
        for of in (np.maximum(links.weight, 0), links.weight == 1, None)
    )
    filled = ((positive > 0) & (ones < links_of))[links.left]
    of_track, of_cluster = np.mod(links.weight, _PACKED), np.floor(links.weight / _PACKED)
    weight = np.where(
        links.weight > 1, (of_track if energy is None else of_cluster) / 1000, links.weight
    )
    weight = np.where(filled, weight, 1.0 if energy is None else energy[links.right])
    return joined(
        Pairs.of(objects.right, objects.left),
        Pairs(links.left, links.right, weight).where(weight > 0),
        n_candidates,
    )


def _sim_links(
    chunk: Chunk, names: tuple[str, ...], hits: Group | None = None
) -> tuple[Group, Group, Pairs]:
    """Return the hits and the simulated hits that links name, and the pairs between them."""
    ends = {
        end: [ref for name in names if (ref := chunk.layout.link_end(name, end))]
        for end in ("from", "to")
    }
    hits = hits or _group(chunk, ends["from"], "cellID")
    simulated = _group(chunk, ends["to"], "cellID")
    return hits, simulated, chunk.links(names, hits, simulated)


def _group(chunk: Chunk, references: list[Reference], member: str) -> Group:
    """Return the collections that references name, as one table without columns."""
    ids: set[int] = set()
    for reference in references:
        found = (
            np.unique(chunk.file.column(reference.collection_id, chunk.start, chunk.stop)).astype(
                np.int64
            )
            & 0xFFFFFFFF
        )
        ids.update(found.tolist())
    tables = {}
    for number, name in chunk.file.collection_ids.items():
        if number in ids and (leaf := chunk.layout.member(name, member)) is not None:
            tables[name] = Table(chunk.leaves({member: leaf}).offsets, {})
    return Group.of(tables, Table.empty(chunk.n_events, {}))


def _shares(links: Pairs, n_left: int) -> Pairs:
    """Return the pairs with equal weights that add up to one for each left row."""
    return Pairs(
        links.left, links.right, 1.0 / np.maximum(summed(links.left, None, n_left), 1)[links.left]
    )
