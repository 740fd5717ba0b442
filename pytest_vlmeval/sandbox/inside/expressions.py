"""The `eval` that ms-vlmeval gets: literals and arithmetic, bounded, nothing else.

ms-vlmeval calls eval() on table cells, on answers and on judge replies. For what a
scorer can mean by that the result is Python's own, odd ones included ("2^3" is 1,
"3 or 4" is 3, and a bare name is the caller's local variable of that name); calls,
attributes, subscripts, comprehensions and everything large are refused.
"""

from __future__ import annotations

import ast
import math
import numbers
import operator
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_LENGTH = 100_000
MAX_DEPTH = 200
MAX_BITS = 20_000

_STRING = r"""(?:'[^'\\\n]*(?:\\.[^'\\\n]*)*'|"[^"\\\n]*(?:\\.[^"\\\n]*)*")"""
_STRING_LIST = re.compile(rf"\s*\[\s*{_STRING}(?:\s*,\s*{_STRING})*\s*,?\s*\]\s*")

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


_CALCULATED = (
    ast.Expression,
    ast.Constant,
    ast.UnaryOp,
    ast.UAdd,
    ast.USub,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Pow,
)


class RefusedExpressionError(ValueError):
    """The text is more than a literal or arithmetic, or too large."""


def evaluate(source: object, names: Mapping[str, object] | None = None) -> Any:
    """Return the value of an expression, with bare names from `names`.

    Raises TypeError for what is no text, SyntaxError and NameError as eval() does,
    RefusedExpressionError for what is not allowed, and what arithmetic raises.
    """
    if not isinstance(source, str):
        raise TypeError("eval() arg 1 must be a string, bytes or code object")
    if len(source) > MAX_LENGTH:
        return _string_list(source)
    tree = ast.parse(source.lstrip(" \t"), mode="eval")
    return _Evaluation(names or {}).value(tree.body, 0)


def calculate(text: str) -> complex:
    """Return the number that a text of numbers and + - * / ^ and brackets stands for.

    There are no names in it, and neither "or" nor any other word. Raises ValueError,
    SyntaxError, and what arithmetic raises.
    """
    if len(text) > MAX_LENGTH:
        raise RefusedExpressionError(f"{len(text)} characters are no number")
    tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    if not all(isinstance(node, _CALCULATED) for node in ast.walk(tree)):
        raise RefusedExpressionError("a number is made of numbers and + - * / ^")
    value = _Evaluation({}).value(tree.body, 0)
    if isinstance(value, bool) or not isinstance(value, int | float | complex):
        raise RefusedExpressionError(f"{value!r:.100} is no number")
    return value


def confined_eval(
    source: object,
    globals: Mapping[str, object] | None = None,
    locals: Mapping[str, object] | None = None,
    /,
) -> Any:
    """Stand in for eval() in a module of ms-vlmeval; see `evaluate`."""
    names = locals if locals is not None else globals
    if names is None:
        names = sys._getframe(1).f_locals
    return evaluate(source, names)


def refuse_code(*_args: object, **_kwargs: object) -> NoReturn:
    """Stand in for exec() and compile() in a module of ms-vlmeval."""
    raise RefusedExpressionError("the sandbox runs no code from data")


class _Evaluation:
    def __init__(self, names: Mapping[str, object]) -> None:
        self._names = names

    def value(self, node: ast.AST, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise RefusedExpressionError("the expression is nested too deeply")

        def inner(child: ast.AST) -> Any:
            return self.value(child, depth + 1)

        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                known = self._names.get(name)
                if isinstance(known, str) or _is_number(known):
                    return known
                raise NameError(f"name {name!r} is not defined")
            case ast.List(elts=items):
                return [inner(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(inner(item) for item in items)
            case ast.Set(elts=items):
                return {inner(item) for item in items}
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {
                    inner(key): inner(value)
                    for key, value in zip(keys, values, strict=True)
                    if key is not None
                }
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not inner(operand)
            case ast.UnaryOp(op=op, operand=operand):
                return _OPERATORS[type(op)](_number(inner(operand)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _calculate(op, _number(inner(left)), _number(inner(right)))
            case ast.BoolOp(op=op, values=values):
                return self._choose(isinstance(op, ast.Or), values, depth)
            case ast.Compare():
                return self._compare(node, depth)
        raise RefusedExpressionError(f"{type(node).__name__} is not allowed here")

    def _choose(self, wanted: bool, values: list[ast.expr], depth: int) -> Any:
        value: Any = None
        for node in values:
            value = self.value(node, depth + 1)
            if bool(value) is wanted:
                break
        return value

    def _compare(self, node: ast.Compare, depth: int) -> Any:
        left = self.value(node.left, depth + 1)
        outcome: Any = True
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            if type(op) not in _OPERATORS:
                raise RefusedExpressionError("only numbers are compared here")
            right = self.value(comparator, depth + 1)
            outcome = _OPERATORS[type(op)](_number(left), _number(right))
            if not outcome:
                break
            left = right
        return outcome


def _is_number(value: object) -> bool:
    if isinstance(value, numbers.Number):
        return True
    # Formulas that a scorer parsed itself sit in its locals too.
    sympy = sys.modules.get("sympy")
    return sympy is not None and isinstance(value, sympy.Expr)


def _number(value: Any) -> Any:
    if not _is_number(value):
        raise RefusedExpressionError("arithmetic is for numbers only")
    return value


def _calculate(op: ast.operator, left: Any, right: Any) -> Any:
    bits = 0
    if isinstance(op, ast.Mult):
        bits = _size(left) + _size(right)
    elif isinstance(op, ast.LShift) and isinstance(right, numbers.Integral):
        bits = _size(left) + int(right)
    elif isinstance(op, ast.Pow) and isinstance(right, numbers.Rational):
        bits = _size(left) * math.ceil(abs(float(right)))
    if bits > MAX_BITS:
        raise RefusedExpressionError("the number is too large")
    return _OPERATORS[type(op)](left, right)


def _size(value: Any) -> int:
    """Count the bits of an integer or a fraction; other numbers have a fixed size."""
    if not isinstance(value, numbers.Rational):
        return 0
    return int(value.numerator).bit_length() + int(value.denominator).bit_length() - 1


def _string_list(source: str) -> list[str]:
    # A cell with several images is a list of base64 texts of many megabytes, an
    # answer in several turns one of long replies.
    if not _STRING_LIST.fullmatch(source):
        raise RefusedExpressionError(
            f"the expression has {len(source)} characters, {MAX_LENGTH} are allowed"
        )
    return [
        ast.literal_eval(text) if "\\" in text else text[1:-1]
        for text in re.findall(_STRING, source)
    ]
