"""Read, merge and validate the configuration.

All layers are merged first and validated once. Every mistake becomes one line that names file, key,
value and what is allowed (``explain``).

Order of precedence: defaults of the models < ``config/spaces/<hpo.space_from>.yaml`` <
``config/config.yaml`` < ``config/presets/<preset>.yaml`` < overrides (Snakemake's ``--config``, the
command line's ``--set``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from particleforge.config.base import Block
from particleforge.config.detector import DetectorConfig
from particleforge.config.explain import Layer, explain
from particleforge.config.published import PublishedConfig
from particleforge.config.reader import Tree, check_size, read_yaml
from particleforge.config.renamed import (
    check_moved,
    check_preset,
    check_renamed,
    check_renamed_published,
)
from particleforge.config.run import RunConfig
from particleforge.config.strings import read_strings
from particleforge.errors import UserError

Model = TypeVar("Model", bound=Block)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Return ``base`` with ``over`` laid over it: mappings merge deeply, all else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two trees of plain values, as ``"a.b: 1 -> 2"``, by path."""
    found = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key}: {before} -> {now}")
    return found


def validate(
    model: type[Model],
    content: Mapping[str, Any],
    source: str,
    below: Sequence[Layer] = (),
    lacking: str | None = None,
) -> Model:
    """Return the validated model of ``content``, laid over the layers ``below`` it, lowest first.

    The first mistake is raised as a UserError; what no layer has is laid to the source ``lacking``,
    by default the last.
    """
    layers = [*below, (source, content)]
    merged: Tree = {}
    for _, layer in layers:
        merged = merge(merged, layer)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise UserError(explain(error, model, layers, lacking or source)) from None


def load_run(
    config_dir: Path,
    overrides: Mapping[str, Any] | None = None,
    source_of_overrides: str = "--config",
) -> RunConfig:
    """Return the run's configuration from ``config_dir`` with ``overrides`` on top.

    Mistakes in these are laid to their source.
    """
    check_size(overrides or {}, source_of_overrides)
    file = config_dir / "config.yaml"
    base = _layer(read_yaml(file), str(file))
    top = _layer(read_strings(overrides or {}, RunConfig, source_of_overrides), source_of_overrides)
    preset = merge(base, top).get("preset", RunConfig.model_fields["preset"].default)
    if not isinstance(preset, str | int) or Path(str(preset)).name != str(preset):
        source = source_of_overrides if "preset" in top else str(file)
        raise UserError(f"{source}: preset: must be the name of a preset (got {preset!r})")
    preset_file = config_dir / "presets" / f"{preset}.yaml"
    check_preset(preset_file)
    middle = _layer(read_yaml(preset_file), str(preset_file))
    if "preset" in middle:
        raise UserError(f"{preset_file}: preset: a preset names no other; take it out")
    layers = [(str(file), base), (str(preset_file), middle)]
    space = _shipped_space(config_dir, merge(merge(base, middle), top))
    run = validate(RunConfig, top, source_of_overrides, [*space, *layers], lacking=str(file))
    _check_published(config_dir, run)
    return run


def _layer(content: Mapping[str, Any], source: str) -> Tree:
    """Return one layer of a run's configuration with detectors as a list.

    UserError for a name of the past, and for a block that is none, which a later layer would hide.
    """
    check_renamed(content, source)
    _check_blocks(content, RunConfig, source, "")
    return _with_detectors_as_list(content)


def _check_blocks(
    content: Mapping[str, Any], model: type[BaseModel], source: str, prefix: str
) -> None:
    for name, field in model.model_fields.items():
        block = field.annotation
        if name not in content or not isinstance(block, type) or not issubclass(block, BaseModel):
            continue
        if not isinstance(content[name], Mapping):
            raise UserError(
                f"{source}: {prefix}{name}: must hold keys and values (got {content[name]!r})"
            )
        _check_blocks(content[name], block, source, f"{prefix}{name}.")


def _check_published(config_dir: Path, run: RunConfig) -> None:
    """Raise a UserError for a published data set that has no effect, or no sensible one."""
    name = run.simulation.published
    if name is None:
        return
    if run.simulation.backend != "files":
        raise UserError(
            f"simulation.published: {name} describes files; set simulation.backend: files, or take"
            " it out"
        )
    if (made_with := load_published(config_dir, name).detector) not in run.detector:
        raise UserError(
            f"simulation.published: {name} is of detector {made_with}, not"
            f" {', '.join(run.detector)}; choose it, or copy that file"
        )


def _shipped_space(config_dir: Path, merged: Tree) -> list[Layer]:
    """Return the layer of the file that ``hpo.space_from`` names, if it names one."""
    block = merged.get("hpo")
    name = block.get("space_from") if isinstance(block, Mapping) else None
    if not isinstance(name, str):
        return []
    path = config_dir / "spaces" / f"{name}.yaml"
    return [(str(path), {"hpo": {"space": read_yaml(path)}})]


def load_published(config_dir: Path, name: str) -> PublishedConfig:
    """Return the description of a published data set."""
    path = config_dir / "published" / f"{name}.yaml"
    check_moved(path)
    content = read_yaml(path)
    check_renamed_published(content, str(path))
    return validate(PublishedConfig, content, str(path))


def load_detector(config_dir: Path, name: str, published: str | None = None) -> DetectorConfig:
    """Return the configuration of one detector; one that ``extends`` another is laid over it.

    With ``published`` its samples are those of that data set, if it was made
    with this detector.
    """
    path = config_dir / "detectors" / f"{name}.yaml"
    content = read_yaml(path)
    below: list[Layer] = []
    if (base := content.pop("extends", None)) is not None:
        if not isinstance(base, str) or Path(base).name != base:
            raise UserError(f"{path}: extends: {base!r}: must be the name of a detector beside it")
        file = path.with_name(f"{base}.yaml")
        below = [(str(file), read_yaml(file))]
        if "extends" in below[0][1]:
            raise UserError(
                f"{path}: extends: {base} extends another itself; name a detector that stands alone"
            )
    detector = validate(DetectorConfig, content, str(path), below)
    described = load_published(config_dir, published) if published else None
    if described is None or described.detector != name:
        return detector
    return detector.model_copy(update={"samples": described.samples})


def _with_detectors_as_list(content: Mapping[str, Any]) -> Tree:
    """Accept a single detector name, and several separated by commas."""
    merged = dict(content)
    if isinstance(merged.get("detector"), str):
        merged["detector"] = [name.strip() for name in merged["detector"].split(",")]
    return merged
