"""Hits of clusters that are not read: the branch map does not name them, or the file lost them.

Inputs -> outputs: a chunk of a file, its clusters and the hits that were read -> how many hits of
each cluster are not among these, and the names of the collections in the file that hold them.
"""

import numpy as np

from particleforge.edm4hep.chunk import Chunk
from particleforge.edm4hep.group import Group
from particleforge.edm4hep.identities import collection_id
from particleforge.edm4hep.raw_events import FloatArray, Pairs, summed


def unread_hits(
    chunk: Chunk, clusters: Group, hits: Group, cluster_hits: Pairs
) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the number for each cluster, and the collections' names.

    ``cluster_hits`` are the references to hits that were read.
    """
    n_hits = np.zeros(clusters.table.n_rows)
    names: set[str] = set()
    for collection, (_, table) in clusters.members.items():
        reference = chunk.layout.relation("Cluster", collection, "hits")
        if reference is None or table.n_rows == 0:
            continue
        edges = chunk.leaves(
            {edge: chunk.layout.require(collection, f"hits_{edge}") for edge in ("begin", "end")}
        )
        length = edges["end"].astype(np.int64) - edges["begin"].astype(np.int64)
        n_hits[clusters.rows_of(collection)] = length
        if length.sum() > np.sum(hits_found := chunk.rows(reference, hits) >= 0):
            ids = chunk.leaves({"id": reference.collection_id})["id"][~hits_found]
            meant = set((np.unique(ids).astype(np.int64) & 0xFFFFFFFF).tolist())
            names |= {
                name
                for number, name in _collections(chunk).items()
                if number in meant and name not in hits.members
            }
    unread = n_hits - summed(cluster_hits.left, None, clusters.table.n_rows)
    return unread, tuple(sorted(names))


def _collections(chunk: Chunk) -> dict[int, str]:
    """Return ID -> name of all collections in the file; one without table has hashes for IDs."""
    there = {leaf.partition(".")[0] for leaf in chunk.layout.leaves if leaf.endswith(".energy")}
    named = {number & 0xFFFFFFFF: name for number, name in chunk.file.collection_ids.items()}
    return {collection_id(name): name for name in there} | {
        number: name for number, name in named.items() if name in there
    }
