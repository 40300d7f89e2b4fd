"""What a file of simulated events holds, and what the dataset stage makes of it.

``particleforge inspect`` prints it.

Inputs -> outputs: a ROOT file and a detector's branch map -> ``Inspection``: versions, kind of
tree, number of events, every collection with its type and mean size (of the first
``EVENTS_LOOKED_AT`` events), which collection the map reads as what, which ones would fit where it
finds none, what is missing and what that costs, and the reason if no dataset can be built. A file
that is neither EDM4hep nor Delphes is a UserError.
"""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from particleforge.config.detector import DetectorConfig
from particleforge.delphes import reader as delphes
from particleforge.delphes.rootfile import TREE as DELPHES_TREE
from particleforge.delphes.rootfile import DelphesFile
from particleforge.edm4hep import reader as edm4hep
from particleforge.edm4hep.identities import table_of_ids
from particleforge.edm4hep.mapping import SYSTEMS, BranchMap
from particleforge.edm4hep.raw_events import RawEvents
from particleforge.edm4hep.rootfile import TreeFile
from particleforge.errors import UserError
from particleforge.inputs.formats import is_delphes
from particleforge.inputs.missing import missing_in_edm4hep, references_dropped
from particleforge.pages.terminal import table_lines

EVENTS_LOOKED_AT = 100
_NAMES_SHOWN = 6
_HITS = "ecal/hcal/other_hits"
_FITTING = {  # meaning -> types of collections that could be read as it
    "particles": ("MCParticle", "GenParticle"),
    "tracks": ("Track",),
    "clusters": ("Cluster", "Tower"),
    "candidates": ("ReconstructedParticle", "ParticleFlowCandidate"),
    _HITS: ("CalorimeterHit",),
    "hit_links": (
        "MCRecoCaloParticleAssociation",
        "CaloHitMCParticleLink",
        "Link (CalorimeterHit to MCParticle)",
    ),
    "cluster_links": (
        "MCRecoClusterParticleAssociation",
        "ClusterMCParticleLink",
        "Link (Cluster to MCParticle)",
    ),
    "track_links": (
        "MCRecoTrackParticleAssociation",
        "TrackMCParticleLink",
        "Link (Track to MCParticle)",
    ),
    "candidate_links": (
        "MCRecoParticleAssociation",
        "RecoMCParticleLink",
        "Link (ReconstructedParticle to MCParticle)",
    ),
}
_SUBSET = "_objIdx"  # at the end of what is a list of references to objects of another collection
_VERSIONS = {"podio": ("PodioBuildVersion", "PodioVersion"), "EDM4hep": ("edm4hep___Version",)}


@dataclass(frozen=True)
class CollectionFound:
    """A collection of the file; ``mean_size`` is per event."""

    name: str
    type: str
    mean_size: float


@dataclass(frozen=True)
class Inspection:
    """What ``particleforge inspect`` tells.

    ``fitting`` names the collections of the right type for meanings that ``mapped`` has none for;
    ``refused`` is the reason why no dataset can be built, or None; then ``read_without_truth``
    counts what can be reconstructed all the same, if anything.
    """

    file: str
    format: str
    versions: dict[str, str]
    layout: str
    tree: str
    n_events: int
    collections: list[CollectionFound]
    mapped: dict[str, list[str]]
    fitting: dict[str, list[str]]
    missing: list[str]
    read: dict[str, int]
    refused: str | None
    read_without_truth: dict[str, int]

    def plain(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return everything as lines for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        versions = (
            ", ".join(f"{name} {version}" for name, version in self.versions.items())
            or "version not recorded"
        )
        told = f"{versions}; {self.layout}" if self.layout else versions
        yield f"{self.file}: {self.format} ({told}), {self.tree}, {self.n_events} events"
        yield ""
        yield "collections (mean number per event)"
        rows = [(found.name, f"{found.mean_size:.1f}", found.type) for found in self.collections]
        yield from table_lines(rows, right={1}, indent=2)
        yield ""
        yield "read as"
        read = [(meaning, " + ".join(names) or "-") for meaning, names in self.mapped.items()]
        yield from table_lines(read, indent=2)
        if self.fitting:
            yield ""
            yield "would fit, if named in the detector's file"
        fitting = [(meaning, _first_names(names)) for meaning, names in self.fitting.items()]
        yield from table_lines(fitting, indent=2)
        yield ""
        yield "missing, and what that costs" if self.missing else "nothing is missing"
        yield from (f"  {line}" for line in self.missing)
        yield ""
        if self.read:
            yield (
                f"the first {min(self.n_events, EVENTS_LOOKED_AT)} events as the dataset stage"
                f" reads them: {_in_words(self.read)}"
            )
        if self.refused is not None:
            if self.read_without_truth:
                yield (
                    "it can be reconstructed, which needs no truth (reconstruct-events, target"
                    f" apply): {_in_words(self.read_without_truth)}"
                )
            yield f"no dataset can be built: {self.refused}"


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items())


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def inspect_file(path: Path, detector: DetectorConfig) -> Inspection:
    """Look at a file with a detector's branch map.

    What is neither EDM4hep nor Delphes is a UserError.
    """
    return (
        _inspect_delphes(path, detector) if is_delphes(path) else _inspect_edm4hep(path, detector)
    )


def _inspect_edm4hep(path: Path, detector: DetectorConfig) -> Inspection:
    with TreeFile(path) as file:
        chosen = BranchMap.of(file.layout, detector.collections)
        try:
            ids = table_of_ids(file.root)
            collections, versions = _collections(file, ids or {}), _versions(file)
        except Exception as error:  # uproot raises whatever broken bytes lead it to
            raise file.unreadable(error) from error
        names = detector.collections
        events, refused = _first(edm4hep.read_chunks(path, names, EVENTS_LOOKED_AT))
        untold = edm4hep.read_chunks(path, names, EVENTS_LOOKED_AT, truth=False)
        mapped, missing = _mapped(file, chosen), missing_in_edm4hep(file, chosen, events)
        if ids is None:
            missing.append(
                "no table of collection IDs: what they mean is told from names and references"
            )
        missing += file.doubled
        # edm4eic has tracks of its own, whose momenta stand elsewhere
        stateless = [
            one.name
            for one in collections
            if one.type in _FITTING["tracks"]
            and file.layout.vector("Track", one.name, "trackStates") is None
        ]
        if stateless and not chosen.tracks:
            missing.append(f"no states of tracks in {_first_names(stateless)}: they are not read")
        fitting = [one for one in collections if one.name not in stateless]
        return Inspection(
            file=file.path,
            format="EDM4hep",
            versions=versions,
            layout=_layout(file),
            tree=file.kind,
            n_events=file.n_events,
            collections=collections,
            mapped=mapped,
            fitting=_fitting(mapped, fitting),
            missing=missing,
            read=_counts(events),
            refused=refused,
            read_without_truth=_counts_without_truth(untold, refused),
        )


def _inspect_delphes(path: Path, detector: DetectorConfig) -> Inspection:
    names = detector.delphes
    with DelphesFile(path) as file:
        eflow = (names.eflow_tracks, names.eflow_photons, names.eflow_neutral_hadrons)
        mapped = {
            "particles": list(file.found(names.particles)),
            "tracks": list(file.found(names.tracks)),
            "clusters": list(file.found(names.clusters)),
            "candidates": (
                [name for name in eflow if file.has(name)]
                or [name for name in (names.eflow_candidates,) if file.has(name)]
            ),
        }
        costs = {
            "tracks": "no tracks: every target stands on a cluster",
            "clusters": "no clusters: neutral particles find no element",
            "candidates": "no e-flow: no baseline to compare with",
        }
        chunks = delphes.read_chunks(
            path, names, detector.b_field_tesla, detector.calorimeter.ecal, EVENTS_LOOKED_AT
        )
        events, refused = _first(chunks)
        untold = delphes.read_chunks(
            path,
            names,
            detector.b_field_tesla,
            detector.calorimeter.ecal,
            EVENTS_LOOKED_AT,
            truth=False,
        )
        collections = [CollectionFound(*found) for found in file.branches(EVENTS_LOOKED_AT)]
        missing = [cost for meaning, cost in costs.items() if not mapped[meaning]]
        if not file.has(names.event):
            missing.insert(
                0, f"no {names.event}: events are numbered by their position, weights are 1"
            )
        return Inspection(
            file=file.path,
            format="Delphes",
            versions={},
            layout="",
            tree=f"TTree {DELPHES_TREE}",
            n_events=file.n_events,
            collections=collections,
            mapped=mapped,
            fitting=_fitting(mapped, collections),
            missing=[*missing, *references_dropped(events), *file.doubled],
            read=_counts(events),
            refused=refused,
            read_without_truth=_counts_without_truth(untold, refused),
        )


def _first(chunks: Iterator[RawEvents]) -> tuple[RawEvents | None, str | None]:
    """Return the first chunk that a reader gives, and the line with which it refuses the file."""
    try:
        return next(chunks, None), None
    except UserError as error:
        return None, str(error)


def _versions(file: TreeFile) -> dict[str, str]:
    """Return the versions of podio and EDM4hep that the file records."""
    if "podio_metadata" not in file.root:
        return {}
    leaves, found = dict(file.root["podio_metadata"].items(recursive=True)), {}
    for package, stems in _VERSIONS.items():
        for stem, separator in itertools.product(stems, "/."):
            parts = [leaves.get(f"{stem}{separator}{part}") for part in ("major", "minor", "patch")]
            if all(part is not None for part in parts):
                found[package] = ".".join(
                    str(int(np.ravel(part.array(entry_stop=1))[0]))
                    for part in parts
                    if part is not None
                )
            elif stem in leaves and "vector" in str(leaves[stem].typename):  # RNTuple
                found[package] = ".".join(
                    str(int(part)) for part in leaves[stem].array(entry_stop=1)[0]
                )
    return found


def _layout(file: TreeFile) -> str:
    """Return how the file names relations, which tells its time where no version is recorded."""
    numbered = any("#" in leaf for leaf in file.layout.leaves)
    return "relations by number, as until 2023" if numbered else "relations by name, as since 2023"


def _collections(file: TreeFile, ids: dict[int, str]) -> list[CollectionFound]:
    """Return the collections with their types and mean sizes.

    Relations and vector members are not listed.
    """
    stop = min(file.n_events, EVENTS_LOOKED_AT)
    leaves: dict[str, list[str]] = {}
    for leaf in sorted(file.layout.leaves):
        name, _, member = leaf.partition(".")
        if member and "[" not in member and not name.startswith("_") and "#" not in name:
            leaves.setdefault(name, []).append(leaf)
    found = []
    for name, of_this in leaves.items():
        owner, _, number = name.rpartition("_")
        if not (number.isdigit() and owner in leaves):  # a vector member of 2021
            size = next(
                (size for leaf in of_this if (size := _mean_size(file, leaf, stop)) is not None),
                None,
            )
            if size is not None:
                found.append(
                    CollectionFound(name.removesuffix(_SUBSET), _type(file, name, ids, stop), size)
                )
    return found


def _type(file: TreeFile, name: str, ids: dict[int, str], stop: int) -> str:
    """Return a collection's type; a subset is named with its targets, a link by its ends."""
    if name.endswith(_SUBSET):
        return " ".join(
            [
                "subset",
                *(f"of {target}" for target in _targets(file, f"{name}.collectionID", ids, stop)),
            ]
        )
    kind = file.type_of(name)
    if kind not in ("Link", "LinkCollection"):
        return kind
    ends = [file.layout.link_end(name, end) for end in ("from", "to")]
    types = [
        {file.type_of(to) for to in _targets(file, end.collection_id, ids, stop)} if end else set()
        for end in ends
    ]
    return (
        f"Link ({' to '.join('/'.join(sorted(kinds)) for kinds in types)})"
        if all(types)
        else "Link"
    )


def _targets(file: TreeFile, leaf: str, ids: dict[int, str], stop: int) -> list[str]:
    """Return the collections that references of the first events mean."""
    numbers = np.unique(file.column(leaf, 0, stop)).astype(np.int64) & 0xFFFFFFFF
    return [ids[number] for number in numbers.tolist() if number in ids]


def _fitting(
    mapped: dict[str, list[str]], collections: list[CollectionFound]
) -> dict[str, list[str]]:
    """Return meaning -> collections of a type that fits, for meanings without a collection.

    What fits several is named once.
    """
    if any(mapped.get(key) for key in SYSTEMS):
        mapped = mapped | {_HITS: ["some"]}
    wanted = {meaning: types for meaning, types in _FITTING.items() if not mapped.get(meaning)}
    found = {
        meaning: [one.name for one in collections if one.type in types]
        for meaning, types in wanted.items()
    }
    return {meaning: names for meaning, names in found.items() if names}


def _mean_size(file: TreeFile, leaf: str, stop: int) -> float | None:
    """Return a leaf's mean number of entries per event.

    None if it is no list of numbers (a record, a map).
    """
    try:
        counts = file.jagged(leaf, 0, stop)[0]
    except UserError:
        return None
    return float(np.mean(counts)) if stop else 0.0


def _mapped(file: TreeFile, chosen: BranchMap) -> dict[str, list[str]]:
    """Return meaning -> collections."""
    hits = {
        key: [name for name, system in chosen.hits.items() if system == number]
        for number, key in enumerate(SYSTEMS)
    }
    keys = ("tracks", "dqdx", "clusters", "candidates", "hit_links", "cluster_links", "track_links")
    optional = ("hit_sim_links", "tracker_hit_sim_links", "candidate_links")
    named = {"particles": [name for name in (chosen.particles,) if file.layout.has(name)]} | {
        key: list(getattr(chosen, key)) for key in keys
    }
    return (
        named | hits | {key: list(getattr(chosen, key)) for key in optional if getattr(chosen, key)}
    )


def _counts_without_truth(chunks: Iterator[RawEvents], refused: str | None) -> dict[str, int]:
    """Return what there is to reconstruct in a file that is refused; nothing of others."""
    events = None if refused is None else _first(chunks)[0]
    if events is None:
        return {}
    return {name: getattr(events, name).n_rows for name in ("tracks", "clusters", "hits")}


def _counts(events: RawEvents | None) -> dict[str, int]:
    """Return how much was read."""
    if events is None:
        return {}
    tables = ("particles", "tracks", "clusters", "hits", "candidates")
    relations = ("track_links", "cluster_links", "hit_links")
    counts = {name: getattr(events, name).n_rows for name in tables} | {
        name: len(getattr(events, name).left) for name in relations
    }
    return counts | events.counts
