"""Plain data as a YAML document in blocks, the same for a reader of YAML 1.1 and one of 1.2.

The mistake it prevents: a word that one reader takes for text and another for a number or a switch (``1e3``, ``on``,
``12:30``). What is not an unmistakable word stands in double quotes.
"""

import re
from collections.abc import Mapping, Sequence

from planner.render.export.yaml_text import quoted

__all__ = ["Value", "block"]

Value = str | int | bool | Sequence["Value"] | Mapping[str, "Value"]
"""What a document holds; keys are ours and plain."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_/-]*")
_NO_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


def block(value: Mapping[str, Value]) -> str:
    """The document with two blanks for each step, ending with a newline."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Value) -> list[str]:
    """The lines of a value that needs more than one; a scalar or something empty is a single line."""
    if isinstance(value, Mapping) and value:
        return [line for key, each in value.items() for line in _entry(f"{key}:", each)]
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [line for each in value for line in _item(each)]
    return [_scalar(value)]


def _entry(head: str, value: Value) -> list[str]:
    lines = _lines(value)
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str) and value:
        return [head, *(f"  {line}" for line in lines)]
    return [f"{head} {lines[0]}"]


def _item(value: Value) -> list[str]:
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return value if _WORD.fullmatch(value) and value.lower() not in _NO_WORDS else quoted(value)
        case Mapping():
            return "{}"
        case _:
            return "[]"
