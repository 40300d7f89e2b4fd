"""Expressions that select events and objects by the dataset's columns: grammar and check, no data.

Text such as ``num(tracks.pt) + num(clusters.energy) >= 2`` -> syntax tree that
``selection.expressions`` evaluates for all events at once. Allowed are numbers, event columns
(``weight``), members of collections (``tracks.pt``), ``+ - * / **``, comparisons, ``and or not``,
and the functions below; anything else is refused before it is evaluated, so that a configuration
file cannot run code. Each node has a *level*: one value per event, or one per object of a
collection. Values of different collections do not mix, reductions (num, sum, max, min, any, all)
lead from objects to the event, and values of the event join those of any object. A cut on events is
one yes or no per event, a cut on objects one per object of its collection. Where hits are elements,
``clusters`` holds them, as in the table; ``hits`` is the same with the members that only hits have.
All columns are known to ``schema``, hence a mistake shows when the configuration is read.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from particleforge.errors import did_you_mean
from particleforge.tables import schema

REDUCTIONS = ("num", "sum", "max", "min", "any", "all")
ELEMENTWISE = ("abs", "sqrt", "log")
LENGTH_MAX = 1000  # longer text could exhaust the parser's stack

_COLLECTIONS = {collection.name: collection.names for collection in schema.DATASET} | {
    "hits": schema.HITS.names
}
_EVENT_COLUMNS = tuple(field.name for field in schema.EVENT)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)


@dataclass(frozen=True)
class _Value:
    """What a node evaluates to."""

    collection: str | None  # None: one value per event
    is_boolean: bool


def parse_condition(text: str, per: str | None = None) -> ast.expr:
    """Return the checked syntax tree of a cut on events, or on the objects of ``per``.

    A mistake is a ValueError with the remedy.
    """
    tree, value = _parse(text)
    if not value.is_boolean:
        raise ValueError("a cut is yes or no, this is a number; compare it, e.g. '... > 0'")
    _check_level(value, per, "a cut")
    return tree


def parse_number(text: str, per: str) -> ast.expr:
    """Return the checked syntax tree of a number per object of ``per``.

    A mistake is a ValueError with the remedy.
    """
    tree, value = _parse(text)
    if value.is_boolean:
        raise ValueError(
            f"a number is needed, this is a condition; give e.g. '{per}.{_COLLECTIONS[per][0]}'"
        )
    _check_level(value, per, "the number")
    return tree


def check_calorimeter(text: str, calorimeter_elements: str) -> None:
    """Raise a ValueError if an expression asks for what the calorimeter elements do not have.

    The dataset's elements are ``clusters`` or ``hits``.
    """
    for node in ast.walk(parse_any(text)):
        match node:
            case ast.Attribute(value=ast.Name(id="hits")) if calorimeter_elements == "clusters":
                raise ValueError(
                    "there are no hits with dataset.calorimeter_elements: clusters; take it out, or"
                    " set that to hits"
                )
            case ast.Attribute(value=ast.Name(id="clusters"), attr=member) if (
                calorimeter_elements == "hits"
            ):
                if member not in schema.HITS.names:
                    raise ValueError(
                        f"hits, as dataset.calorimeter_elements has it, have no '{member}'; take it"
                        " out, or set that to clusters"
                    )


def parse_any(text: str) -> ast.expr:
    """Return the checked syntax tree of an expression of any kind."""
    return _parse(text)[0]


def _parse(text: str) -> tuple[ast.expr, _Value]:
    if len(text) > LENGTH_MAX:
        raise ValueError(f"expression has {len(text)} characters, at most {LENGTH_MAX} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return tree, _check(tree)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"expression cannot be parsed: {getattr(error, 'msg', None) or 'nested too deeply'}"
        ) from None


def _check_level(value: _Value, per: str | None, what: str) -> None:
    if value.collection == per:
        return
    if per is None:
        raise ValueError(
            f"a cut is one value per event, this is one per object of '{value.collection}'; reduce"
            " it with any() or all()"
        )
    found = (
        "one value per event"
        if value.collection is None
        else f"one per object of '{value.collection}'"
    )
    remedy = (
        "cuts on whole events belong into cuts.events"
        if value.collection is None
        else f"reduce it, or cut {value.collection} instead"
    )
    raise ValueError(f"{what} is one value per object of '{per}', this is {found}; {remedy}")


def _check(node: ast.expr) -> _Value:
    """Return what a node evaluates to; whatever is not listed here is refused."""
    match node:
        case ast.Constant() | ast.Name() | ast.Attribute():
            return _leaf(node)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _call(name, arguments)
        case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, _ARITHMETIC):
            return _Value(_same_collection(_numbers([left, right])), False)
        case ast.Compare(left=left, ops=operators, comparators=others) if all(
            isinstance(op, _COMPARISONS) for op in operators
        ):
            return _Value(_same_collection(_numbers([left, *others])), True)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _numbers([operand])[0]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _booleans([operand])[0]
        case ast.BoolOp(values=values):
            return _Value(_same_collection(_booleans(values)), True)
        case _:
            raise _refusal(node)


def _leaf(node: ast.expr) -> _Value:
    match node:
        case ast.Constant(value=bool()):
            return _Value(None, True)
        case ast.Constant(value=int() | float() as number):
            _check_number(number)
            return _Value(None, False)
        case ast.Name(id=name):
            return _event_column(name)
        case ast.Attribute(value=ast.Name(id=collection), attr=member):
            return _member(collection, member)
        case _:
            raise _refusal(node)


def _check_number(number: float) -> None:
    try:
        float(number)
    except OverflowError:
        raise ValueError("a number of the expression is too large") from None


def _event_column(name: str) -> _Value:
    if name in _COLLECTIONS:
        raise ValueError(
            f"'{name}' is a collection; name a member, e.g. '{name}.{_COLLECTIONS[name][0]}'"
        )
    if name not in _EVENT_COLUMNS:
        known = (*_EVENT_COLUMNS, *_COLLECTIONS)
        raise ValueError(
            f"unknown column '{name}'; allowed: {', '.join(known)}{did_you_mean(name, known)}"
        )
    return _Value(None, False)


def _member(collection: str, member: str) -> _Value:
    if collection not in _COLLECTIONS:
        raise ValueError(
            f"unknown collection '{collection}'; allowed:"
            f" {', '.join(_COLLECTIONS)}{did_you_mean(collection, _COLLECTIONS)}"
        )
    members = _COLLECTIONS[collection]
    if member not in members:
        raise ValueError(
            f"'{collection}' has no member '{member}'; allowed:"
            f" {', '.join(members)}{did_you_mean(member, members)}"
        )
    return _Value(collection, False)


def _call(name: str, arguments: list[ast.expr]) -> _Value:
    known = (*REDUCTIONS, *ELEMENTWISE)
    if name not in known:
        raise ValueError(
            f"unknown function '{name}'; allowed: {', '.join(known)}{did_you_mean(name, known)}"
        )
    if len(arguments) != 1:
        raise ValueError(f"{name}() takes one argument, got {len(arguments)}")
    argument = _check(arguments[0])
    if name in ELEMENTWISE:
        return _numbers(arguments)[0]
    if argument.collection is None:
        raise ValueError(
            f"{name}() reduces the objects of a collection, e.g. {name}(tracks.pt); its argument is"
            " one value per event"
        )
    if name in ("any", "all") and not argument.is_boolean:
        raise ValueError(f"{name}() needs a condition, e.g. {name}(tracks.pt > 1)")
    if name in ("max", "min") and argument.is_boolean:
        raise ValueError(f"{name}() needs numbers; for conditions there are any() and all()")
    return _Value(None, name in ("any", "all"))


def _numbers(nodes: Iterable[ast.expr]) -> list[_Value]:
    values = [_check(node) for node in nodes]
    if any(value.is_boolean for value in values):
        raise ValueError(
            "arithmetic and comparisons need numbers, not conditions; join conditions with and,"
            " or, not"
        )
    return values


def _booleans(nodes: Iterable[ast.expr]) -> list[_Value]:
    values = [_check(node) for node in nodes]
    if not all(value.is_boolean for value in values):
        raise ValueError(
            "and, or, not join conditions, not numbers; compare each number first, e.g. 'weight > 0"
            " and ...'"
        )
    return values


def _same_collection(values: Iterable[_Value]) -> str | None:
    """Return the one collection that the values belong to, None where all are per event."""
    found = sorted({value.collection for value in values if value.collection is not None})
    if len(found) > 1:
        raise ValueError(
            f"objects of {' and '.join(found)} cannot be combined one by one; reduce each first,"
            " e.g. with sum()"
        )
    return found[0] if found else None


def _refusal(node: ast.AST) -> ValueError:
    return ValueError(
        f"'{ast.unparse(node)}' is not allowed; allowed are numbers, columns, + - * / **,"
        f" comparisons, and, or, not, and the functions {', '.join((*REDUCTIONS, *ELEMENTWISE))}"
    )
