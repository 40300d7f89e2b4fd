"""Keys that had another name once, or are gone: each gets one line with its remedy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from particleforge.errors import UserError

RENAMED_KEYS = {
    "studies": "scans",
    "report.studies": "report.scans",
    "resources.run_study_training": "resources.run_scan_training",
    "training.layout": "training.parallelism",
    "simulation.card": "simulation.published",
}
REMOVED_KEYS = {
    "hpo.n_brackets": "brackets went with hpo.scheduler: hyperband; asha takes its place",
    "hpo.promotion": "what is best in a rung is promoted, as with measured",
    "reconstruction.presence_threshold": (
        "reconstruction.presence_min says which candidates are kept, and lists of particles take"
        " the threshold that export_onnx chooses"
    ),
}
RENAMED_PRESETS = {"study": "large"}
RENAMED_OF_PUBLISHED = {"published": "reference"}


def check_renamed(content: Mapping[str, Any], source: str) -> None:
    """Raise a UserError for a key of a run's configuration that is not what it was."""
    remedies = {old: f"is renamed to {new}; write that" for old, new in RENAMED_KEYS.items()}
    remedies |= {old: f"is gone; take it out: {instead}" for old, instead in REMOVED_KEYS.items()}
    for old, remedy in remedies.items():
        *block, name = old.split(".")
        if name in _at(content, block):
            raise UserError(f"{source}: {old}: {remedy}")


def check_preset(file: Path) -> None:
    """Raise a UserError for a preset that has another name now; a user may have one of the old."""
    if file.stem in RENAMED_PRESETS and not file.is_file():
        new = RENAMED_PRESETS[file.stem]
        raise UserError(f"{file}: no such file; preset {file.stem} is renamed to {new}")


def check_moved(file: Path) -> None:
    """Raise a UserError for a published data set that lies in the folder of the former name."""
    former = file.parent.with_name("cards") / file.name
    if former.is_file() and not file.is_file():
        raise UserError(f"{former}: config/cards is renamed to config/published; move it there")


def check_renamed_published(content: Mapping[str, Any], source: str) -> None:
    """Raise a UserError for a key of a published data set that has another name now."""
    for old, new in RENAMED_OF_PUBLISHED.items():
        if old in content:
            raise UserError(f"{source}: {old}: is renamed to {new}; write that")


def _at(content: Mapping[str, Any], block: list[str]) -> Mapping[str, Any]:
    for name in block:
        inner = content.get(name)
        content = inner if isinstance(inner, Mapping) else {}
    return content
