"""An open EDM4hep ROOT file, TTree or RNTuple: leaves and what identifies collections and events.

Inputs -> outputs: a path -> ``EventFile``, which gives the values of any leaf for a range of
events. Whatever makes a file unusable (not ROOT, truncated, no ``events`` tree, mandatory branches
missing) is a UserError that names it.
"""

import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import uproot
from uproot.behaviors.RNTuple import RNTuple

from particleforge.config.collections import CollectionsConfig
from particleforge.edm4hep.identities import (
    collection_id,
    implied_ids,
    table_of_ids,
    types_of_collections,
)
from particleforge.edm4hep.layout import Layout, Reference
from particleforge.edm4hep.leaves import LOCAL_FILE, NotAListError, TornListError, leaves_of
from particleforge.edm4hep.mapping import BranchMap, require_elements, require_usable
from particleforge.edm4hep.raw_events import Array, IntArray
from particleforge.edm4hep.signature import refuse_other_files
from particleforge.edm4hep.weights import event_weights
from particleforge.errors import UserError

log = logging.getLogger(__name__)

_OLD_NTUPLE = "ROOT::Experimental::RNTuple"
_FAULTS_OF_THE_MACHINE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


class RootFile:
    """An open ROOT file; a context manager."""

    what: ClassVar[str]  # the format, for messages
    path: str
    root: Any
    doubled: tuple[str, ...]  # a line for each name that stands in the tree twice

    def __enter__(self) -> Self:
        """Return the open file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.root.close()

    def warn_of_doubled(self) -> None:
        """Log what stands in the tree twice."""
        for line in self.doubled:
            log.warning("%s: %s", self.path, line)

    def tree(self, name: str, kinds: tuple[type, ...]) -> Any:
        """Return the file's tree; what is none of these kinds is a UserError that says what it is.

        The class is looked at first, as one that is not known may not be readable at all.
        """
        kind = self.root.classname_of(name)
        if kind == _OLD_NTUPLE:
            raise UserError(
                f"{self.path}: '{name}' is an RNTuple of a ROOT before 6.34, a format that was not"
                " final; write the file anew with ROOT 6.34 or later, or as TTree"
            )
        found = self.root[name]
        if not isinstance(found, kinds):
            kind = getattr(found, "classname", "folder")
            raise UserError(
                f"{self.path}: '{name}' is a {kind}, not a tree; give an EDM4hep or Delphes file"
            )
        return found

    def unreadable(self, error: Exception) -> UserError:
        """Return the UserError for whatever reading the file raised.

        A failing disk or server is not the file's fault and is raised.
        """
        if isinstance(error, OSError) and error.errno in _FAULTS_OF_THE_MACHINE:
            raise error
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        return UserError(
            f"{self.path}: not a readable {self.what} ROOT file ({said[0][:120]}); fetch or"
            " simulate it again"
        )


class TreeFile(RootFile):
    """An open ROOT file with an ``events`` tree, whatever that holds; a context manager."""

    what = "EDM4hep"

    def __init__(self, path: str | Path) -> None:
        """Open the file and look at its branches.

        What is not a ROOT file with such a tree is a UserError.
        """
        self.path = str(path)
        refuse_other_files(path)
        try:
            self.root = uproot.open(path, **LOCAL_FILE)
        except Exception as error:  # uproot raises whatever broken bytes lead it to
            raise self.unreadable(error) from error
        try:
            self._open_tree()
        except BaseException:
            self.root.close()
            raise

    def _open_tree(self) -> None:
        try:
            keys = {key.split(";")[0] for key in self.root.keys(recursive=False)}
            if "events" not in keys:
                found = ", ".join(sorted(keys)) or "nothing"
                raise UserError(
                    f"{self.path}: holds no 'events' tree (found: {found}); give an EDM4hep or"
                    " Delphes file"
                )
            self._tree = self.tree("events", (uproot.TTree, RNTuple))
            self._leaves = leaves_of(self._tree)
            self.kind, self.n_events = self._leaves.kind, self._leaves.n_events
            self.doubled = self._leaves.doubled
            self.layout = Layout(self.path, self._leaves.fields)
            self._look()
        except UserError:
            raise
        except Exception as error:
            raise self.unreadable(error) from error

    def _look(self) -> None:
        """Look at what else is wanted at the opening.

        Whatever goes wrong there is laid to the file.
        """

    def type_of(self, collection: str) -> str:
        """Return a collection's type as the file tells it, e.g. ``Cluster``.

        Empty if it does not.
        """
        if not hasattr(self, "_types"):
            self._types = types_of_collections(self.root)
        branch = self._tree.get(collection) if self.kind == "TTree" else None
        told = self._types.get(collection) or str(getattr(branch, "typename", ""))
        name = (
            told.removeprefix("std::")
            .removeprefix("vector<")
            .split("<")[0]
            .split("::")[-1]
            .rstrip("> ")
        )
        return name.removesuffix("Data").removesuffix("Collection")

    def column(self, leaf: str, start: int, stop: int) -> Array:
        """Return a leaf's values of all events, without their boundaries."""
        return self.jagged(leaf, start, stop)[1]

    def jagged(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        """Return a leaf's entries per event, and its values of all events."""
        try:
            offsets, values = self._leaves.flat(leaf, start, stop)
        except NotAListError as error:
            raise UserError(
                f"{self.path}: branch {leaf} has type {error}, expected a list of numbers per event"
            ) from error
        except TornListError:
            raise UserError(
                f"{self.path}: branch {leaf}: lists of events end before they begin, or beyond its"
                " values; the file is damaged"
            ) from None
        if values.dtype.kind not in "iufb":
            raise UserError(
                f"{self.path}: branch {leaf} has type {values.dtype}, expected a list of numbers"
                " per event"
            )
        return np.diff(offsets), values

    def ranges(self, n_events: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of at most ``n_events`` events up to ``stop``.

        A range ends where the file's blocks end, if one does within.
        """
        return self._leaves.ranges(n_events, stop)


class EventFile(TreeFile):
    """An open EDM4hep file that truth can be built from, if asked for; a context manager."""

    def __init__(
        self, path: str | Path, collections: CollectionsConfig, truth: bool = True
    ) -> None:
        """Open the file and settle the branch map; what cannot be used is a UserError."""
        self.collections, self.truth = collections, truth
        super().__init__(path)

    def _look(self) -> None:
        self.names = BranchMap.of(self.layout, self.collections)
        if self.truth:
            require_usable(self.layout, self.names, self.collections)
        else:
            self.names = self.names.without_truth()
            require_elements(self.layout, self.names, self.collections)
        self.collection_ids = self._collection_ids()
        self.numbers = self._event_numbers()
        self.weights = event_weights(
            self.layout, self.jagged, self.n_events, self.collections.event_weight_entry
        )

    def _collection_ids(self) -> dict[int, str]:
        """Return collection ID -> name from the file's table, or from what its references imply."""
        table = table_of_ids(self.root)
        if table is not None:
            return table
        names = implied_ids(self.layout, self._references(), self.jagged, self.n_events)
        hit_sim_links = () if self.names.hit_links else self.names.hit_sim_links
        sim_links = (
            *hit_sim_links,
            *(() if self.names.track_links else self.names.tracker_hit_sim_links),
        )
        if (
            self.n_events
            and sim_links
            and not any(collection_id(name) == number for number, name in names.items())
        ):
            raise UserError(
                f"{self.path}: no table of collection IDs (podio_metadata/events___idTable), and"
                f" truth comes from simulated hits ({', '.join(sim_links)}), whose collections do"
                " not follow from the references; use the file as podio wrote it, not a skim"
            )
        return names

    def _references(self) -> dict[str, Reference]:
        """Return references that reveal the IDs of a file without table.

        Keys are ``type of target:place``.
        """
        names, layout = self.names, self.layout
        places = {
            f"MCParticle:{names.particles}": layout.relation(
                "MCParticle", names.particles, "parents"
            )
        }
        for link in (
            *names.hit_links,
            *names.cluster_links,
            *names.track_links,
            *names.candidate_links,
        ):
            places[f"MCParticle:{link}"] = layout.link_end(link, "to")
        for kind, links in (
            ("Cluster", names.cluster_links),
            ("Track", names.track_links),
            ("ReconstructedParticle", names.candidate_links),
        ):
            places |= {f"{kind}:{link}": layout.link_end(link, "from") for link in links}
        for candidates in names.candidates:
            for kind, relation in (("Track", "tracks"), ("Cluster", "clusters")):
                places[f"{kind}:{candidates}"] = layout.relation(
                    "ReconstructedParticle", candidates, relation
                )
        places |= {
            f"CalorimeterHit:{clusters}": layout.relation("Cluster", clusters, "hits")
            for clusters in names.clusters
        }
        return {place: reference for place, reference in places.items() if reference is not None}

    def _event_numbers(self) -> tuple[Array, Array, Array]:
        """Return run and event numbers, and the file's own event numbers.

        Events that share theirs are numbered by position.
        """
        run, event = (
            self.layout.member("EventHeader", f"{name}Number") for name in ("run", "event")
        )
        position = np.arange(self.n_events, dtype=np.uint64)
        if run is None or event is None:
            return np.zeros(self.n_events, np.uint32), position, np.zeros_like(position)
        runs, events = (self.column(leaf, 0, self.n_events) for leaf in (run, event))
        if not len(runs) and not len(events):
            return np.zeros(self.n_events, np.uint32), position, np.zeros_like(position)
        if len(runs) != self.n_events or len(events) != self.n_events:
            raise UserError(
                f"{self.path}: EventHeader holds {len(events)} entries for {self.n_events} events;"
                " the file is damaged"
            )
        runs, events = runs.astype(np.uint32), events.astype(np.uint64)
        own = events
        if len(np.unique(np.stack([runs.astype(np.uint64), events]), axis=1).T) < self.n_events:
            log.warning(
                "%s: events share run and event number; they are numbered by their position in the"
                " file",
                self.path,
            )
            events = position
        return runs, events, own
