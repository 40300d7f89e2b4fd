"""Evaluate cuts for all events at once.

Checked syntax tree (``config.expressions``) and events (awkward records with the columns of
``schema``) -> one boolean per event or per object. Numbers are float64. Reductions of no objects
give their neutral element: num and sum 0, any False, all True, max -inf, min +inf; undefined
results (0/0, log of a negative number) are NaN, with which every comparison but != is False.
"""

import ast
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from particleforge.config.expressions import parse_condition, parse_number

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "num": lambda x: ak.values_astype(ak.num(x, axis=1), np.float64),
    "sum": lambda x: ak.sum(ak.values_astype(x, np.float64), axis=1),
    "max": lambda x: ak.max(x, axis=1, mask_identity=False),
    "min": lambda x: ak.min(x, axis=1, mask_identity=False),
    "any": lambda x: ak.any(x, axis=1),
    "all": lambda x: ak.all(x, axis=1),
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
}


def passes(expression: str, events: ak.Array) -> NDArray[np.bool_]:
    """Return which events pass a cut, boolean of shape [n_events].

    A malformed expression is a ValueError.
    """
    tree = parse_condition(expression)
    with np.errstate(all="ignore"):
        result = np.asarray(_evaluate(tree, events), dtype=np.bool_)
    return np.broadcast_to(result, (len(events),)).copy()


def passing_objects(expression: str, per: str, events: ak.Array) -> ak.Array:
    """Return which objects of the collection ``per`` pass a cut, bool [n_events, n_objects]."""
    tree = parse_condition(expression, per)
    with np.errstate(all="ignore"):
        return _evaluate(tree, events)


def object_values(expression: str, per: str, events: ak.Array) -> ak.Array:
    """Return a float64 [n_events, n_objects] for the objects of the collection ``per``."""
    tree = parse_number(expression, per)
    with np.errstate(all="ignore"):
        return _evaluate(tree, events)


def _evaluate(node: ast.expr, events: ak.Array) -> Any:
    match node:
        case ast.Constant(value=bool() as condition):
            return np.bool_(condition)
        case ast.Constant(value=int() | float() as number):
            return np.float64(number)
        case ast.Name(id=name):
            return ak.values_astype(events[name], np.float64)
        case ast.Attribute(value=ast.Name(id=collection), attr=member):
            # hits lie in the place of clusters
            return ak.values_astype(
                events["clusters" if collection == "hits" else collection, member], np.float64
            )
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return _FUNCTIONS[name](_evaluate(argument, events))
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, events), _evaluate(right, events))
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_evaluate(value, events) for value in (left, *others)]
            return reduce(
                operator.and_,
                (
                    _COMPARE[type(op)](a, b)
                    for op, a, b in zip(ops, values, values[1:], strict=False)
                ),
            )
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluate(operand, events)
            return (
                ~value if isinstance(op, ast.Not) else -value if isinstance(op, ast.USub) else value
            )
        case ast.BoolOp(op=op, values=values):
            join = operator.and_ if isinstance(op, ast.And) else operator.or_
            return reduce(join, (_evaluate(value, events) for value in values))
    raise AssertionError(f"{ast.dump(node)} passed the check but cannot be evaluated")
