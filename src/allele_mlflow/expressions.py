"""
Expressions over a cell's parameters, for `constraints` and `--only`: Python's, without its power.

Comparisons, `and`, `or`, `not`, arithmetic, `in`, conditional expressions, and the functions `abs`,
`len`, `max`, `min` and `round`. No attributes, no indexing, no other call: a suite file is data.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from allele_mlflow.errors import ErrorKind, MatrixError

LONGEST_EXPRESSION = 2000
#: Larger powers and repeated texts would only keep the machine busy.
LARGEST_POWER = 1024
FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (abs, len, max, min, round)
}

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
    ast.Is: lambda one, other: one is other,
    ast.IsNot: lambda one, other: one is not other,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}


class Expression:
    """
    A parsed expression. Immutable, any thread.
    """

    def __init__(self, text: str, tree: ast.expr, names: frozenset[str]) -> None:
        self.text = text
        #: The parameters that it speaks of.
        self.names = names
        self._tree = tree

    def holds(self, params: Mapping[str, Any]) -> bool:
        """
        Whether it is true of a cell.

        Raises:
            MatrixError: it cannot be computed, e.g. a number is compared with a text.
        """
        try:
            return bool(_value(self._tree, params))
        except MatrixError:
            raise
        except Exception as exc:
            shown = ", ".join(
                f"{name}={params[name]!r}" for name in sorted(self.names & set(params))
            )
            raise _bad(self.text, f"of {shown or 'no parameter'}: {exc}") from exc


def parse_expression(text: str) -> Expression:
    """
    Read an expression.

    Raises:
        MatrixError: it is none, or uses what is not allowed.
    """
    if len(text) > LONGEST_EXPRESSION:
        raise _bad(text[:50] + "...", f"want at most {LONGEST_EXPRESSION} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        names = frozenset(_check(tree, text))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        if isinstance(exc, MatrixError):
            raise
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
        raise _bad(text, f"want an expression such as 'population_size > 50' ({reason})") from exc
    return Expression(text, tree, names)


def _check(tree: ast.expr, text: str) -> list[str]:
    """
    The names in the tree, once all of it is known to be harmless.
    """
    names = []
    called = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
                called.add(id(node.func))
            case ast.Name(id=name):
                if id(node) not in called:
                    names.append(name)
            case ast.Compare() | ast.BoolOp() | ast.IfExp() | ast.boolop() | ast.expr_context():
                pass
            case ast.List() | ast.Tuple() | ast.Set():
                pass
            case ast.Constant(value=None | bool() | int() | float() | str()):
                pass
            case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
                pass
            case ast.UnaryOp(op=op) if type(op) in _SIGNS:
                pass
            case ast.cmpop() | ast.operator() | ast.unaryop():
                pass
            case _:
                allowed = ", ".join(sorted(FUNCTIONS))
                raise _bad(
                    text,
                    f"{ast.unparse(node)!r} is not allowed: want comparisons, and, or, not, in, "
                    f"arithmetic and {allowed}",
                )
    return names


def _value(node: ast.expr, params: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            if name not in params:
                raise KeyError(f"{name!r} is not a parameter of this cell")
            return params[name]
        case ast.BoolOp(op=op, values=values):
            wanted = isinstance(op, ast.Or)
            found: Any = not wanted
            for one in values:
                found = _value(one, params)
                if bool(found) is wanted:
                    break
            return found
        case ast.UnaryOp(op=op, operand=operand):
            return _SIGNS[type(op)](_value(operand, params))
        case ast.BinOp(op=op, left=left, right=right):
            return _compute(op, _value(left, params), _value(right, params))
        case ast.Compare(left=left, ops=ops, comparators=others):
            one = _value(left, params)
            for comparison, node_of_other in zip(ops, others, strict=True):
                other = _value(node_of_other, params)
                if not _COMPARISONS[type(comparison)](one, other):
                    return False
                one = other
            return True
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, params) else orelse, params)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_value(one, params) for one in arguments))
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return [_value(one, params) for one in elements]
    raise AssertionError(f"{ast.dump(node)} was let through")


def _compute(op: ast.operator, left: Any, right: Any) -> Any:
    is_text = isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str)
    if not is_text and not all(isinstance(one, (int, float)) for one in (left, right)):
        raise TypeError(f"cannot compute with {left!r} and {right!r}: want numbers")
    if isinstance(op, ast.Pow) and max(abs(left), abs(right)) > LARGEST_POWER:
        raise ValueError(f"{left!r} ** {right!r}: want numbers up to {LARGEST_POWER}")
    return _ARITHMETIC[type(op)](left, right)


def _bad(text: str, what: str) -> MatrixError:
    return MatrixError(f"expression {text!r}: {what}", kind=ErrorKind.BAD_SUITE, text=text)
