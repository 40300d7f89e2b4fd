"""Generate ``config/README.md``, JSON schemas and tables in ``docs/data.md`` from the models.

    python -m particleforge.config.document        # rewrite the files below the working folder

A test compares the committed files with what this module makes.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from particleforge.artefacts import write_text
from particleforge.config.detector import DetectorConfig
from particleforge.config.explain import inner_model
from particleforge.config.published import PublishedConfig
from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.tables import schema as columns

_DATA = "docs/data.md"
_BEGIN, _END = "<!-- columns: begin -->", "<!-- columns: end -->"
_INTRODUCTION = """# Configuration

<!-- Made from the models in src/particleforge/config by `make docs`; edit those. -->

| file | holds |
|---|---|
| `config.yaml` | what to run: preset, detectors, seed, search space |
| `presets/<name>.yaml` | sizes of a run: `smoke`, `demo`, `reference`, `large` |
| `detectors/<name>.yaml` | everything that differs between detectors |
| `spaces/<name>.yaml` | a search space, which `hpo.space_from` names: `small`, `full` |
| `published/<name>.yaml` | a published data set and its samples, which `simulation.published` \
names ([docs/real-data.md](../docs/real-data.md)) |

Later wins: defaults below < space < `config.yaml` < preset < `--config`. Nested keys on the
command line are YAML and merge deeply:
`snakemake --profile profiles/local --config preset=smoke 'training={max_steps: 500}'`.
Keys carry their unit. YAML is read as version 1.2 has it: `1e6` is a number, `012` is text. All
layers are merged before they are checked. A wrong key, type or range stops the run with one line
that names the last file that set the key, the key, its value and what is allowed; so does a
key that a file gives twice.

The schemas in `workflow/schemas` give completion in editors:
`# yaml-language-server: $schema=../workflow/schemas/config.schema.json`.

## Add a detector

1. Copy `detectors/clic.yaml` to `detectors/<name>.yaml`; or begin the file with `extends: clic`
   and give only what differs (the other must not extend one itself).
2. Edit field, beams, tracker, calorimeter, samples, cuts and plot ranges. No code knows a
   detector's name.
3. `particleforge show-config --detector <name>` checks it;
   `snakemake --profile profiles/local --config detector=<name> -n` plans the run.

`detector` takes several names, `--config 'detector=[clic, cld]'`; each has its own folder below
`results_dir`.
"""


def _type_name(schema: dict[str, Any]) -> str:
    """Return a short name of a JSON schema's type."""
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " \\| ".join(_type_name(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type_name(schema['items'])}" if "items" in schema else "list"
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1].removesuffix("Config")
    name = str(schema.get("type", "any"))
    return {"object": "mapping", "null": "none"}.get(name, name)


def _bounds(schema: dict[str, Any]) -> str:
    """Return the allowed range in words."""
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    return ", ".join(f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)


def _default(field: FieldInfo) -> str:
    """Return a field's default as text."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value == {}:
        return ""
    return f"`{json.dumps(value)}`"


def _rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield a table row per key of a model, nested keys with their dotted path."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        inner = inner_model(field.annotation)
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        schema = properties[name]
        text = (
            field.description or (inner.__doc__ or "").strip().split("\n")[0]
            if nested
            else field.description or ""
        )
        text = str(text).replace("|", "\\|")
        if nested:
            several = inner is not field.annotation
            marker = (
                {"array": "[]", "object": ".<name>"}.get(schema.get("type", ""), "")
                if several
                else ""
            )
            yield f"| **`{prefix}{name}{marker}`** | | | {text} |"
            yield from _rows(inner, f"{prefix}{name}{marker}.")
        else:
            kind = _type_name(schema)
            bounds = _bounds(schema)
            yield (
                f"| `{prefix}{name}` | {kind}{f', {bounds}' if bounds else ''} | {_default(field)}"
                f" | {text} |"
            )


def _table(model: type[BaseModel]) -> str:
    """Return the table of all keys of a model."""
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *_rows(model)])


def _columns(fields: Sequence[columns.Field]) -> str:
    """Return the table of some columns, or of the members of a record."""
    rows = [
        f"| `{field.name}` | {field.dtype.replace('<', ' of ').rstrip('>')} | {field.unit} |"
        f" {field.description} |"
        for field in fields
    ]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows])


def _columns_of_all_tables() -> str:
    """Return a section for the columns of events, each collection, and the training shards."""
    sections: list[tuple[str, str, Sequence[columns.Field]]] = [
        (
            "events",
            "of every file but the training shards; `split` of selected events only",
            (*columns.EVENT, columns.SPLIT),
        )
    ]
    model_adds = (
        f"; `{columns.WEIGHT.name}` of the model's candidates only. With `reconstruction.latents`"
        f" these have a column `{columns.LATENTS.name}` beside them, for each a list of"
        f" {columns.LATENTS.dtype}: {columns.LATENTS.description}"
    )
    for collection in columns.DATASET:
        sections.append(
            (
                collection.name,
                f"{collection.description}{model_adds}",
                columns.WEIGHTED_CANDIDATES.fields,
            )
            if collection is columns.CANDIDATES
            else (collection.name, collection.description, collection.fields)
        )
        if collection is columns.CLUSTERS:
            sections.append(
                ("clusters, where hits are elements", columns.HITS.description, columns.HITS.fields)
            )
    sections.append(
        (
            "without truth",
            "beside the columns above, of datasets without truth and of what is reconstructed from"
            f" files; `{columns.ORIGINS.name}` is a list: {columns.ORIGINS.description}",
            (*columns.HEADER_OF_FILE, *columns.ORIGINS.fields),
        )
    )
    sections.append(
        ("training shards", "flat lists per event, ready for the loader", columns.SHARD)
    )
    return "\n\n".join(
        f"### {title}\n\n{text[0].upper()}{text[1:]}.\n\n{_columns(fields)}"
        for title, text, fields in sections
    )


def _with_columns(text: str) -> str:
    """Return ``docs/data.md`` with what stands between its two marks made anew."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise UserError(
            f"{_DATA}: lacks the line '{_END if begin else _BEGIN}'; put it where the tables of"
            " columns should stand"
        )
    return f"{before}{begin}\n\n{_columns_of_all_tables()}\n\n{end}{after}"


def documents(root: Path = Path()) -> dict[str, str]:
    """Return the content of every generated file by its path below ``root``, the repository."""
    readme = "\n".join(
        [
            _INTRODUCTION,
            "## `config.yaml`, presets and `--config`\n",
            _table(RunConfig),
            "\n## `detectors/<name>.yaml`\n",
            _table(DetectorConfig),
            "\n## `published/<name>.yaml`\n",
            _table(PublishedConfig),
            "",
        ]
    )
    files = {
        "config/README.md": readme,
        _DATA: _with_columns((root / _DATA).read_text(encoding="utf-8")),
    }
    for name, model in (
        ("config", RunConfig),
        ("detector", DetectorConfig),
        ("published", PublishedConfig),
    ):
        files[f"workflow/schemas/{name}.schema.json"] = (
            json.dumps(model.model_json_schema(), indent=2) + "\n"
        )
    return files


if __name__ == "__main__":
    for path, content in documents().items():
        write_text(Path(path), content)
