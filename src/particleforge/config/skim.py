"""Which columns of the dataset the selected files leave out, and which later stages need.

Patterns such as ``track_links`` or ``tracks.d*`` over the columns of ``schema.DATASET``
(``collection.member``; a collection stands for all its members) -> the collections that are left.
Columns of the event itself always stay.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from particleforge.config.detector import ElementsConfig
from particleforge.errors import UserError, did_you_mean
from particleforge.tables import schema

_P4 = ("px", "py", "pz", "energy")
_PARTICLE = (*_P4, "charge", "class_id")
_VALIDATED = {
    "tracks": ("p",),
    "particles": (*_PARTICLE, "pdg", "fate", "element", "deposited_energy"),
    "targets": _PARTICLE,
    "candidates": _PARTICLE,
}
_SHARED = {"particles": ("fate", "element"), "cluster_links": ("cluster", "particle", "energy")}
_DRAWN = {
    "tracks": ("eta", "phi", "p", "eta_calo", "phi_calo"),
    "clusters": ("eta", "phi", "energy"),
}


def check_patterns(patterns: Iterable[str]) -> None:
    """Refuse patterns that match no column of any dataset with a ValueError."""
    known = [path for collection in (*schema.DATASET, schema.HITS) for path in _paths(collection)]
    for pattern in patterns:
        if not any(_matches(path, pattern) for path in known):
            names = (*dict.fromkeys(known), *(collection.name for collection in schema.DATASET))
            raise ValueError(
                f"{pattern!r} matches no column; docs/data.md lists"
                f" them{did_you_mean(pattern, names)}"
            )


def kept_collections(
    patterns: Sequence[str], collections: Iterable[schema.Collection]
) -> tuple[schema.Collection, ...]:
    """Return the collections with the members that no pattern matches.

    One without members is left out.
    """
    kept = (
        replace(
            found,
            fields=tuple(
                f
                for f in found.fields
                if not any(_matches(f"{found.name}.{f.name}", p) for p in patterns)
            ),
        )
        for found in collections
    )
    return tuple(collection for collection in kept if collection.fields)


def check_skim(
    patterns: Sequence[str], elements: ElementsConfig, calorimeter_elements: str, source: str
) -> None:
    """Refuse patterns that match what a later stage reads with a UserError of one line.

    ``source`` names the features.
    """
    for pattern in patterns:
        for needs, paths in _needed(elements, calorimeter_elements, source).items():
            for path in paths:
                if _matches(path, pattern):
                    raise UserError(
                        f"selection.drop_columns: {pattern!r} drops {path}, which {needs} needs;"
                        " take it out, or write a narrower pattern"
                    )


def _needed(
    elements: ElementsConfig, calorimeter_elements: str, source: str
) -> dict[str, list[str]]:
    """Return the columns that later stages read, by who reads them."""
    kind = calorimeter_elements.removesuffix("s")
    needed = {}
    for element_type, collection in (("track", "tracks"), (kind, "clusters")):
        members = (
            schema.member_of(feature.name, element_type)
            for feature in getattr(elements, element_type)
        )
        needed[f"elements.{element_type} of {source}"] = [
            f"{collection}.{member}" for member in members
        ]
    if kind == "hit":
        needed["every stage, to tell hits from clusters,"] = [f"clusters.{schema.TELLS_HITS}"]
    for reader, members_of in (
        ("validate_model", _VALIDATED),
        ("build_report", _DRAWN),
        ("write_shards", _SHARED),
    ):
        needed[reader] = [
            f"{collection}.{member}"
            for collection, members in members_of.items()
            for member in members
        ]
    return needed


def _paths(collection: schema.Collection) -> list[str]:
    return [f"{collection.name}.{name}" for name in collection.names]


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or path.partition(".")[0] == pattern
