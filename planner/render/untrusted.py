"""Documents with words of strangers in them, made fit for a terminal as a whole.

The mistake it prevents is a list of fields to clean: the next field with a stranger's word in it would be forgotten.
"""

from typing import Any, TypeVar

import msgspec

from planner.render.printable import LONGEST, printable

__all__ = ["cleaned"]

StructT = TypeVar("StructT", bound=msgspec.Struct)


def cleaned(document: StructT) -> StructT:
    """The same struct with every text in it, keys of mappings included, made :func:`printable`.

    A document without an unprintable character comes back equal.
    """
    return msgspec.convert(_mapped(msgspec.to_builtins(document)), type(document))


def _mapped(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(value, str):
        return value if value.isprintable() and len(value) <= LONGEST else printable(value)
    if isinstance(value, list | tuple):
        return [_mapped(each) for each in value]
    if isinstance(value, dict):
        return {_mapped(key): _mapped(each) for key, each in value.items()}
    return value
