"""What the network must know of its inputs: features with statistics, and particle classes.

Features have transforms, too.

Inputs -> outputs: ``manifest.json`` and ``normalisation.json`` of the training shards ->
``ModelInputs``, which every checkpoint and every exported model carries, so that neither needs the
shards again.

Invariant: the order of features within a type is the order of the columns in the shards; means and
standard deviations belong to the *transformed* features.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from particleforge.errors import UserError
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

    @classmethod
    def from_manifest(cls, manifest: Path) -> Self:
        """Read the manifest and the normalisation beside it.

        What does not fit this package is a UserError.
        """
        described = read_manifest(manifest)
        statistics = _read_json(manifest.with_name("normalisation.json"))
        types = element_types(described["elements"])
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


def index_files(manifest: Path) -> list[Path]:
    """Return the files that describe training shards: manifest, and normalisation beside it.

    One that is not readable as such is a UserError.
    """
    files = [manifest, manifest.with_name("normalisation.json")]
    for file in files:
        _read_json(file)
    return files


def split_folders(manifest: Path, *splits: str) -> list[Path]:
    """Return the folders that hold the shards of ``splits``."""
    return [manifest.parent / split for split in splits]


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Return the manifest's content.

    An unreadable file or another schema version is a UserError.
    """
    described = _read_json(manifest)
    if described.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{manifest}: schema version {described.get('schema_version')}, this package reads"
            f" {SCHEMA_VERSION}; rerun write_shards"
        )
    return described


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); rerun write_shards") from error
    return content
