"""Read, merge and validate the configuration.

Every mistake becomes one line that names file, key, value and what is allowed.

Order of precedence: defaults of the models < ``config/spaces/<hpo.space_from>.yaml`` <
``config/config.yaml`` < ``config/presets/<preset>.yaml`` < overrides (Snakemake's ``--config``, the
command line's ``--set``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from particleforge.config.base import SECRET, Block
from particleforge.config.detector import DetectorConfig
from particleforge.config.published import PublishedConfig
from particleforge.config.run import RunConfig
from particleforge.errors import UserError, did_you_mean

Model = TypeVar("Model", bound=Block)
Tree = dict[str, Any]


def read_yaml(path: Path) -> Tree:
    """Return the mapping in a YAML file; anything else is a UserError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise UserError(
            f"{path}: no such file; there are:"
            f" {', '.join(names) or 'none'}{did_you_mean(path.stem, names)}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values, found a {type(content).__name__}")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Return ``base`` overlaid with ``over``: mappings merge deeply, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the differences of two trees of plain values, as ``"a.b: 1 -> 2"``, by dotted path."""
    found = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key}: {before} -> {now}")
    return found


def validate(model: type[Model], content: Mapping[str, Any], source: str) -> Model:
    """Return the validated model; the first mistake is raised as a UserError."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(error, model, source)) from None


def load_run(
    config_dir: Path,
    overrides: Mapping[str, Any] | None = None,
    source_of_overrides: str = "--config",
) -> RunConfig:
    """Return the run's configuration from ``config_dir`` with ``overrides`` on top.

    Mistakes in these are laid to their source.
    """
    overrides = _with_detectors_as_list(overrides or {})
    base = _with_detectors_as_list(read_yaml(config_dir / "config.yaml"))
    preset = str(merge(base, overrides).get("preset", RunConfig.model_fields["preset"].default))
    preset_file = config_dir / "presets" / f"{preset}.yaml"
    preset_content = _with_detectors_as_list(read_yaml(preset_file))
    layers = [
        (config_dir / "config.yaml", base),
        *_shipped_space(config_dir, base, preset_content, overrides),
        (preset_file, preset_content),
        (source_of_overrides, overrides),
    ]
    content: Tree = {}
    for source, layer in layers:  # validated one by one so that a mistake is laid to its file
        content = merge(content, layer)
        run = validate(RunConfig, content, str(source))
    _check_published(config_dir, run)
    return run


def _check_published(config_dir: Path, run: RunConfig) -> None:
    """Raise a UserError for a published data set that has no effect, or an unintended one."""
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


def _shipped_space(config_dir: Path, base: Tree, *over: Tree) -> list[tuple[Path, Tree]]:
    """Return the layer of the file that ``hpo.space_from`` names, if it names one.

    What ``base`` says of the space lies over it.
    """
    merged = base
    for layer in over:
        merged = merge(merged, layer)
    block, own = merged.get("hpo"), base.get("hpo")
    name = block.get("space_from") if isinstance(block, Mapping) else None
    if not isinstance(name, str):
        return []
    path = config_dir / "spaces" / f"{name}.yaml"
    shipped: Tree = {"hpo": {"space": read_yaml(path)}}
    return [
        (
            path,
            (
                merge(shipped, {"hpo": {"space": own["space"]}})
                if isinstance(own, Mapping) and "space" in own
                else shipped
            ),
        )
    ]


def load_published(config_dir: Path, name: str) -> PublishedConfig:
    """Return the description of a published data set."""
    path = config_dir / "published" / f"{name}.yaml"
    return validate(PublishedConfig, read_yaml(path), str(path))


def load_detector(config_dir: Path, name: str, published: str | None = None) -> DetectorConfig:
    """Return the configuration of one detector; one that ``extends`` another is laid over it.

    With ``published`` its samples are those of that data set, if it was made
    with this detector.
    """
    path = config_dir / "detectors" / f"{name}.yaml"
    content = read_yaml(path)
    if (base := content.pop("extends", None)) is not None:
        below = read_yaml(path.with_name(f"{base}.yaml"))
        if "extends" in below:
            raise UserError(
                f"{path}: extends: {base} extends another itself; name a detector that stands alone"
            )
        content = merge(below, content)
    detector = validate(DetectorConfig, content, str(path))
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


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the model that a validation error's location lies in."""
    current: Any = model
    for part in location:
        if isinstance(part, int) or not (
            isinstance(current, type) and issubclass(current, BaseModel)
        ):
            continue
        if part not in current.model_fields:
            return current
        current = inner_model(current.model_fields[part].annotation)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def inner_model(annotation: Any) -> Any:
    """Return the model inside an annotation, or the annotation itself.

    It is inside ``tuple[Model, ...]``, ``dict[str, Model]`` or ``Model | None``.
    """
    for argument in getattr(annotation, "__args__", ()):
        found = inner_model(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return annotation


def _explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Turn the first of pydantic's errors into one line."""
    first = error.errors()[0]
    location = tuple(part for part in first["loc"] if part != "[key]")
    key = ".".join(map(str, location)) or "(top level)"
    if first["type"] == "extra_forbidden":
        holder = _model_at(model, location[:-1])
        allowed = sorted(holder.model_fields) if holder else []
        return (
            f"{source}: {key}: unknown key; allowed:"
            f" {', '.join(allowed)}{did_you_mean(str(location[-1]), allowed)}"
        )
    if first["type"] == "missing":
        return f"{source}: {key}: required key is missing; add it"
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    shown = "" if isinstance(value, Mapping) or first["type"] == SECRET else f" (got {value!r})"
    hint = (
        did_you_mean(
            value,
            first.get("ctx", {})
            .get("expected", "")
            .replace("'", "")
            .replace(" or ", ", ")
            .split(", "),
        )
        if isinstance(value, str)
        else ""
    )
    return f"{source}: {key}: {message}{shown}{hint}"
