"""The one reader of YAML: what every configuration file, ``--set`` and ``--config`` go through.

YAML text -> plain Python values. Plain scalars are read as YAML 1.2 has it (core schema, section
10.3.2): ``1e6`` is a number, ``012`` and ``2026-04-01`` are text, and so are ``yes`` and ``no``.
PyYAML's rules are those of 1.1, where ``012`` is ten.

Beyond what PyYAML refuses, a key may stand only once in its mapping, keys are text, and a text
holds so much at most, aliases written out: a few lines of aliases of aliases would otherwise fill
the memory. Every mistake is one line that names the source.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml

from particleforge.errors import UserError, did_you_mean
from particleforge.stored import check_regular

Tree = dict[str, Any]


class _UnreadableError(UserError):
    """A text that is no YAML."""


DEPTH_MAX = 40  # mappings and lists within each other
_VALUES_MAX = 200_000  # keys and values, aliases written out

_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader, in C where it was built so, with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _kind, (_pattern, _beginnings) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}",
        re.compile(rf"^(?:{_pattern})$"),
        ["" if letter == "\0" else letter for letter in _beginnings],
    )


def read_yaml(path: Path) -> Tree:
    """Return the mapping in a YAML file; anything else is a UserError."""
    try:
        check_regular(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        names = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise UserError(
            f"{path}: no such file; there are:"
            f" {', '.join(names) or 'none'}{did_you_mean(path.stem, names)}"
        ) from None
    except (OSError, ValueError) as error:  # of its bytes, or of its name
        raise UserError(f"{path}: not readable as YAML: {error}") from error
    content = parse_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values, found a {type(content).__name__}")
    return content


def parse_yaml(text: str, source: str) -> Any:
    """Return what a YAML text holds; a UserError in the name of ``source`` if it is unreadable."""
    try:
        _check_depth(text, source)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node, _node_children, source)
            _check_keys(node, source, "", set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        # also of a number of 5000 digits, and of values that do not fit a tag like !!int
        raise _UnreadableError(f"{source}: not readable as YAML: {error}") from error


def check_given(arguments: Iterable[str] | None, files: Iterable[Path]) -> None:
    """Raise a UserError for what Snakemake was given by ``--config`` and ``--configfile``.

    It parses both itself and keeps the last of two equal keys. What is no YAML is a string to it.
    """
    for argument in arguments or ():
        name, _, value = argument.partition("=")
        with suppress(_UnreadableError):
            parse_yaml(value, f"--config {name}")
    for file in files:
        read_yaml(file)


def check_size(tree: Any, source: str) -> None:
    """Raise a UserError for plain values that hold too much, or are nested too deeply."""
    _check_size(tree, _value_children, source)


def _check_depth(text: str, source: str) -> None:
    """Refuse what is nested too deeply before anything that recurses meets it."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise UserError(
                    f"{source}: line {_line(event)}: nested deeper than {DEPTH_MAX} levels;"
                    " no setting is"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(item: yaml.Event | yaml.Node) -> int:
    assert item.start_mark is not None
    return item.start_mark.line + 1


def _check_size(root: Any, children: Callable[[Any], Iterable[Any]], source: str) -> None:
    n, waiting = 0, [(root, 0)]
    while waiting:
        item, depth = waiting.pop()
        n += 1
        if n > _VALUES_MAX or depth > DEPTH_MAX:
            raise UserError(
                f"{source}: holds more than {_VALUES_MAX} values or {DEPTH_MAX} levels with its"
                " aliases (*name) written out; take them out"
            )
        waiting += [(child, depth + 1) for child in children(item)]


def _node_children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _value_children(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _check_keys(node: yaml.Node, source: str, prefix: str, seen: set[int]) -> None:
    """Refuse keys that stand twice in their mapping, and keys that are no text."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            _check_keys(child, source, f"{prefix}{number}.", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, child in node.value:
        line = _line(key)
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.tag != "tag:yaml.org,2002:str":
            shown = f"'{key.value}'" if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise UserError(
                f"{source}: line {line}: the key {shown} is read as no text; put it into quotes"
            )
        if key.value in lines:
            first = lines[key.value]
            where = f"lines {first} and {line}" if first != line else f"line {line}"
            raise UserError(
                f"{source}: {prefix}{key.value}: is given twice, in {where}; keep one of them"
            )
        lines[key.value] = line
        _check_keys(child, source, f"{prefix}{key.value}.", seen)
