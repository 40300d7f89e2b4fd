"""What the network must know of its inputs: features with statistics, and particle classes.

Features have transforms, too.

Inputs -> outputs: ``manifest.json`` and ``normalisation.json`` of the training shards ->
``ModelInputs``, which every checkpoint and every exported model carries, so that neither needs the
shards again.

Invariant: the order of features within a type is the order of the columns in the shards; means and
standard deviations belong to the *transformed* features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from particleforge.errors import UserError
from particleforge.preprocessing.manifest import ClassEntry, Manifest, Moments, Normalisation
from particleforge.stored import held_to, read_json, read_stored
from particleforge.tables.schema import REQUIRED_FEATURES, SCHEMA_VERSION, element_types


@dataclass(frozen=True)
class ModelInputs:
    """Features and classes of a network, as plain values.

    ``elements``: per element type its features, each ``{"name", "transform", "unit"}``, in column
    order. ``normalisation``: per element type ``{"mean": [...], "std": [...]}`` of the transformed
    features. ``classes``: ``{"name": "none"}`` followed by the particle classes ``{"name", "pdg",
    "charged", "mass_gev"}``.
    """

    elements: dict[str, list[dict[str, Any]]]
    normalisation: dict[str, dict[str, list[float]]]
    classes: list[dict[str, Any]]

    @property
    def element_types(self) -> tuple[str, str]:
        """Names of the element types in the order of their ids 1, 2."""
        return element_types(self.elements)

    @property
    def n_features(self) -> int:
        """Columns of the feature matrix: the largest number of features of any type."""
        return max(len(self.elements[name]) for name in self.element_types)

    @property
    def n_classes(self) -> int:
        """Particle classes without "none"."""
        return len(self.classes) - 1

    def plain(self) -> dict[str, Any]:
        """Return plain values that ``ModelInputs(**plain)`` takes back."""
        return {
            "elements": self.elements,
            "normalisation": self.normalisation,
            "classes": self.classes,
        }

    def check(self, path: Path) -> None:
        """Refuse inputs in a trained network's file that no manifest can have given; UserError."""
        remedy = "train the model again"
        for name in self.element_types:
            moments = Moments(**self.normalisation[name])
            if not len(moments.mean) == len(moments.std) == len(self.elements[name]):
                raise UserError(
                    f"{path}: inputs.normalisation.{name}: does not match the features; {remedy}"
                )
        for described in self.classes:
            ClassEntry(**described)

    def check_same(self, manifest: Path, path: Path) -> None:
        """Refuse a network of other features or classes, or in another order, than the shards'.

        ``path`` is the network's file. Their normalisation may differ: it belongs to the network.
        """
        described = read_manifest(manifest)
        types = element_types(described["elements"])
        for key, own, theirs in (
            *(
                (f"elements.{name}", self.elements.get(name), described["elements"].get(name))
                for name in dict.fromkeys((*types, *self.element_types))
            ),
            ("classes", self.classes, described["classes"]),
        ):
            if _essence(own) != _essence(theirs):
                raise UserError(
                    f"{path}: {key}: {_named(own)}; in {manifest}: {_named(theirs)}; give the"
                    " manifest that the model was trained on, or train the model again"
                )

    @classmethod
    def from_manifest(cls, manifest: Path) -> Self:
        """Read the manifest and the normalisation beside it.

        What does not fit this package is a UserError.
        """
        described = read_manifest(manifest)
        beside = manifest.with_name("normalisation.json")
        statistics = read_stored(beside, Normalisation).model_dump(exclude_none=True)
        types = element_types(described["elements"])
        if missing := set(types) - described["elements"].keys():
            raise UserError(f"{manifest}: elements.{missing.pop()}: missing; {Manifest.REMEDY}")
        if missing := set(types) - statistics.keys():
            raise UserError(f"{beside}: {missing.pop()}: missing; {Normalisation.REMEDY}")
        for name in types:
            features = [feature["name"] for feature in described["elements"][name]]
            missing = [column for column in REQUIRED_FEATURES[name] if column not in features]
            if missing:
                raise UserError(
                    f"{manifest}: elements.{name} lacks {', '.join(missing)}, which momenta and"
                    " distances start from; add it"
                )
            for moment in ("mean", "std"):
                if len(statistics[name][moment]) != len(features):
                    raise UserError(
                        f"{manifest.with_name('normalisation.json')}: {name}.{moment} does not"
                        f" match {manifest}; rerun write_shards"
                    )
        return cls(
            described["elements"],
            {name: {m: statistics[name][m] for m in ("mean", "std")} for name in types},
            described["classes"],
        )


_ESSENTIAL = ("name", "transform", "pdg", "charged")


def _essence(entries: list[dict[str, Any]] | None) -> list[tuple[Any, ...]]:
    """Return what makes features, or classes, mean the same to a network."""
    return [tuple(entry.get(key) for key in _ESSENTIAL) for entry in entries or ()]


def _named(entries: list[dict[str, Any]] | None) -> str:
    return (
        ", ".join(
            " ".join(str(entry[key]) for key in _ESSENTIAL[:3] if key in entry)
            for entry in entries or ()
        )
        or "none"
    )


def index_files(manifest: Path) -> list[Path]:
    """Return the files that describe training shards: manifest, and normalisation beside it.

    One that is not readable as such is a UserError.
    """
    files = [manifest, manifest.with_name("normalisation.json")]
    for file in files:
        read_json(file, Manifest.REMEDY)
    return files


def split_folders(manifest: Path, *splits: str) -> list[Path]:
    """Return the folders that hold the shards of ``splits``."""
    return [manifest.parent / split for split in splits]


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Return the manifest's content.

    An unreadable file or another schema version is a UserError.
    """
    described: dict[str, Any] = read_json(manifest, Manifest.REMEDY)
    if isinstance(described, dict) and described.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{manifest}: schema version {described.get('schema_version')}, this package reads"
            f" {SCHEMA_VERSION}; rerun write_shards"
        )
    held_to(Manifest, described, manifest)
    return described
