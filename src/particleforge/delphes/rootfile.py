"""An open Delphes ROOT file: the leaves of its tree, and the references in them.

Inputs -> outputs: a path -> ``DelphesFile``, which gives the values of any leaf for a range of
events. Whatever makes a file unusable (not ROOT, truncated, a mandatory branch missing or of
another type) is a UserError that names it.

A branch is an array of objects per event (TClonesArray), its members are leaves ``Branch.Member``.
References are read as what Delphes wrote, ``TRef`` (member ``Particle``) and ``TRefArray``
(``Particles``), whatever type the file claims for them.
"""

from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from uproot.containers import AsArray
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.objects import AsObjects
from uproot.models.TRef import Model_TRef, Model_TRefArray

from particleforge.config.collections import Names, alternatives
from particleforge.edm4hep.layout import missing_member
from particleforge.edm4hep.leaves import first_of_each
from particleforge.edm4hep.raw_events import Array, IntArray
from particleforge.edm4hep.rootfile import RootFile
from particleforge.edm4hep.signature import refuse_other_files
from particleforge.errors import UserError

TREE = "Delphes"


class DelphesFile(RootFile):
    """An open Delphes file; a context manager."""

    what = "Delphes"

    def __init__(self, path: str | Path) -> None:
        """Open the file and look at its leaves; what is no readable Delphes file is a UserError."""
        self.path = str(path)
        refuse_other_files(path)
        try:
            self.root = uproot.open(path)
        except Exception as error:  # uproot raises whatever broken bytes lead it to
            raise self.unreadable(error) from error
        try:
            self._tree = self.tree(TREE, (uproot.TTree,))
            self.n_events = int(self._tree.num_entries)
            leaves, self.doubled = first_of_each(self._tree)
            self._leaves = {name.split("[")[0]: leaf for name, leaf in leaves.items()}
        except UserError:
            self.root.close()
            raise
        except Exception as error:
            self.root.close()
            raise self.unreadable(error) from error

    def has(self, branch: str) -> bool:
        """Tell whether the file has a branch."""
        return any(leaf.startswith(f"{branch}.") for leaf in self._leaves)

    def branches(self, n_events: int) -> list[tuple[str, str, float]]:
        """Return name, class and mean number of objects of every branch of objects.

        The mean is that of the first events.
        """
        found: list[tuple[str, str, float]] = []
        for branch in self._tree.branches:
            name = branch.name
            if f"{name}_size" in self._leaves and self._leaves[name] is branch:
                sizes = self._leaves[f"{name}_size"].array(entry_stop=n_events, library="np")
                kind = str(getattr(branch.streamer, "typename", "") or branch.typename)
                found.append((name, kind, float(np.mean(sizes)) if len(sizes) else 0.0))
        return found

    def found(self, names: Names) -> tuple[str, ...]:
        """Return the branches of the first alternative of which the file has any.

        Empty if it has none.
        """
        for together in alternatives(names):
            if there := tuple(branch for branch in together if self.has(branch)):
                return there
        return ()

    def member(self, branch: str, *names: str) -> str | None:
        """Return the leaf of a member that went by any of ``names``, or None."""
        return next((leaf for name in names if (leaf := f"{branch}.{name}") in self._leaves), None)

    def require(self, branch: str, *names: str) -> str:
        """Return the leaf of a member; a missing one is a UserError."""
        leaf = self.member(branch, *names)
        if leaf is None:
            raise missing_member(self.path, branch, names, "delphes")
        return leaf

    def jagged(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        """Return a leaf's number of objects per event, and its values of all events."""
        return self._numbers(leaf, self._leaves[leaf].array(entry_start=start, entry_stop=stop))

    def references(self, leaf: str, start: int, stop: int) -> tuple[IntArray, Array]:
        """Return a TRef leaf's number of objects per event, and the reference of each."""
        # A file reader is not needed: how a TRef lies in the file does not depend on it.
        how = AsJagged(Model_TRef.strided_interpretation(None))
        return self._numbers(
            leaf, self._leaves[leaf].array(how, entry_start=start, entry_stop=stop)["ref"]
        )

    def reference_lists(self, leaf: str, start: int, stop: int) -> tuple[IntArray, IntArray, Array]:
        """Return a TRefArray leaf's objects per event, lengths of lists, and all references."""
        branch = self._leaves[leaf]
        how = AsObjects(AsArray(False, False, Model_TRefArray), branch)
        lists = branch.array(how, entry_start=start, entry_stop=stop)["refs"]
        lengths = ak.num(lists, axis=2)
        return *self._numbers(leaf, lengths), ak.to_numpy(ak.flatten(lists, axis=None))

    def _numbers(self, leaf: str, array: ak.Array) -> tuple[IntArray, Array]:
        if array.ndim == 2:
            values: Array = ak.to_numpy(ak.flatten(array))
            if values.dtype.kind in "iufb":
                return ak.to_numpy(ak.num(array)).astype(np.int64), values
        raise UserError(
            f"{self.path}: branch {leaf} has type {array.type}, expected a list of numbers per"
            " event"
        )
