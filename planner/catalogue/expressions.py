"""Arithmetic that profiles may use, and nothing else: a profile is data and must not be able to run code.

A profile writes ``n_head * head_dim`` or ``i < n_dense_lead``; this module turns it into a function of named values.
Only what is listed here is understood: names, numbers, text, arithmetic, comparisons, ``and``/``or``/``not``,
``a if c else b``, ``min``, ``max``, ``count(condition)``, which says for how many of the kept layers ``i`` the
condition holds, and for a shape's lists ``at(list, index)`` and ``member(value, list)``. Attributes, subscripts, powers
and other calls do not exist, so the worst a profile can do is fail.
"""

import ast
import operator
from collections.abc import Callable, Mapping

from planner.types.model import MetadataValue

__all__ = ["LAYERS", "Expression", "ExpressionError", "Scope", "Value", "compile_expression"]

Value = int | float | bool | str
Scope = Mapping[str, MetadataValue]
Expression = Callable[[Scope], Value]

LAYERS = "kept_layers"
"""The name under which a scope carries the original indices of the kept layers; ``count`` walks over them."""

_ARITHMETIC: dict[type[ast.operator], Callable[..., int | float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISON: dict[type[ast.cmpop], Callable[..., bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., int | float]] = {"min": min, "max": max}


class ExpressionError(ValueError):
    """An expression that cannot be read or worked out; the caller adds the file and the key."""


def compile_expression(text: str) -> Expression:
    """A function from named values to the value of ``text``.

    Raises :class:`ExpressionError` here for what is not part of the language, and on evaluation for an unknown name,
    a division by zero or operands that do not go together.
    """
    try:
        inner = _compile(ast.parse(text.strip(), mode="eval").body, text)
    except ExpressionError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{text[:60]!r} is no expression") from error

    def evaluate(scope: Scope) -> Value:
        try:
            return inner(scope)
        except (ZeroDivisionError, TypeError, OverflowError) as error:
            raise ExpressionError(f"{text!r}: {error}") from error

    return evaluate


def _compile(node: ast.expr, text: str) -> Expression:
    compiler = _COMPILERS.get(type(node))
    if compiler is None:
        raise ExpressionError(f"{text!r} uses {type(node).__name__}, which profiles may not")
    return compiler(node, text)


def _constant(node: ast.Constant, text: str) -> Expression:
    value = node.value
    if not isinstance(value, int | float | str):
        raise ExpressionError(f"{text!r} holds {value!r}, which is neither number nor text")
    return lambda _scope: value


def _name(node: ast.Name, text: str) -> Expression:
    name = node.id

    def look_up(scope: Scope) -> Value:
        value = scope.get(name)
        if not isinstance(value, int | float | str):
            raise ExpressionError(f"{text!r} needs {name!r}, which the model's shape does not give")
        return value

    return look_up


def _binary(node: ast.BinOp, text: str) -> Expression:
    apply = _ARITHMETIC.get(type(node.op))
    if apply is None:
        raise ExpressionError(f"{text!r} uses {type(node.op).__name__}, which profiles may not")
    left, right = _compile(node.left, text), _compile(node.right, text)
    return lambda scope: apply(_number(left(scope)), _number(right(scope)))


def _unary(node: ast.UnaryOp, text: str) -> Expression:
    inner = _compile(node.operand, text)
    if isinstance(node.op, ast.Not):
        return lambda scope: not inner(scope)
    if isinstance(node.op, ast.USub):
        return lambda scope: operator.neg(_number(inner(scope)))
    raise ExpressionError(f"{text!r} uses {type(node.op).__name__}, which profiles may not")


def _boolean(node: ast.BoolOp, text: str) -> Expression:
    parts = [_compile(value, text) for value in node.values]
    if isinstance(node.op, ast.And):
        return lambda scope: all(part(scope) for part in parts)
    return lambda scope: any(part(scope) for part in parts)


def _compare(node: ast.Compare, text: str) -> Expression:
    tests = [_COMPARISON.get(type(op)) for op in node.ops]
    terms = [_compile(term, text) for term in (node.left, *node.comparators)]

    def holds(scope: Scope) -> bool:
        values = [term(scope) for term in terms]
        return all(test(a, b) for test, a, b in zip(known, values, values[1:], strict=False))

    known = [test for test in tests if test is not None]
    if len(known) != len(tests):
        raise ExpressionError(f"{text!r} compares with `in` or `is`, which profiles may not")
    return holds


def _choice(node: ast.IfExp, text: str) -> Expression:
    test, yes, no = (_compile(part, text) for part in (node.test, node.body, node.orelse))
    return lambda scope: yes(scope) if test(scope) else no(scope)


def _call(node: ast.Call, text: str) -> Expression:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in _LISTS and len(node.args) == 2 and not node.keywords:
        return _LISTS[name](node.args, text)
    arguments = [_compile(argument, text) for argument in node.args]
    if node.keywords or not arguments:
        raise ExpressionError(f"{text!r} calls {name or 'something'} in a way that profiles may not")
    if name == "count" and len(arguments) == 1:
        return lambda scope: _count(arguments[0], scope)
    apply = _FUNCTIONS.get(name)
    if apply is None or len(arguments) < 2:
        raise ExpressionError(f"{text!r} calls {name or 'something'}; profiles may call min, max, count, at and member")
    return lambda scope: apply(*(_number(argument(scope)) for argument in arguments))


def _at(arguments: list[ast.expr], text: str) -> Expression:
    values, index = _list(arguments[0], text), _compile(arguments[1], text)

    def entry(scope: Scope) -> Value:
        entries, at = values(scope), _number(index(scope))
        if not isinstance(at, int) or not 0 <= at < len(entries):
            raise ExpressionError(f"{text!r} asks for entry {at} of a list of {len(entries)}")
        return entries[at]

    return entry


def _member(arguments: list[ast.expr], text: str) -> Expression:
    value, values = _compile(arguments[0], text), _list(arguments[1], text)
    return lambda scope: value(scope) in values(scope)


def _list(node: ast.expr, text: str) -> Callable[[Scope], tuple[int | float | bool, ...]]:
    """The list of a shape that ``node`` names; only a name can stand for one."""
    name = node.id if isinstance(node, ast.Name) else ""

    def look_up(scope: Scope) -> tuple[int | float | bool, ...]:
        values = scope.get(name)
        if not isinstance(values, tuple):
            raise ExpressionError(f"{text!r} needs the list {name!r}, which the model's shape does not give")
        return values

    if not name:
        raise ExpressionError(f"{text!r} needs the name of a list")
    return look_up


def _count(condition: Expression, scope: Scope) -> int:
    layers = scope.get(LAYERS)
    if not isinstance(layers, tuple):
        raise ExpressionError("count() only has a meaning where layers are known")
    return sum(bool(condition({**scope, "i": layer})) for layer in layers)


def _number(value: Value) -> int | float:
    if isinstance(value, str):
        raise ExpressionError(f"{value!r} is no number")
    return value


_LISTS: dict[str, Callable[[list[ast.expr], str], Expression]] = {"at": _at, "member": _member}

_COMPILERS: dict[type[ast.expr], Callable[..., Expression]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.IfExp: _choice,
    ast.Call: _call,
}
