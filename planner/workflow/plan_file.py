"""Reading a plan that was written earlier: the one input of everything that deploys.

The mistake it prevents: half a plan, or a document of another kind, taken for a plan and obeyed.
"""

import sys
from pathlib import Path

import msgspec

from planner.errors import BadInputError, MissingInputError
from planner.types.plan import Plan

__all__ = ["read_plan"]

_MOST_BYTES = 64 << 20
_SCHEMA = "planner/plan/1"
_HINT = "write one with: planner plan --output plan.json"


class _Document(msgspec.Struct):
    """As much of any document as tells what it is."""

    schema: str | None = None


def read_plan(path: str | Path) -> Plan:
    """The plan in the file ``path``, ``-`` for stdin.

    Raises :class:`MissingInputError` when there is none, :class:`BadInputError` (code ``bad-plan``) when it is broken,
    with the place in it, or is a document of another kind.
    """
    name = "stdin" if str(path) == "-" else str(path)
    data = _read(path, name)
    try:
        schema = msgspec.json.decode(data, type=_Document).schema
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"{name}: no JSON document: {error}", hint=_HINT, code="bad-plan") from error
    if schema != _SCHEMA:
        what = f"its schema is {schema!r}" if schema else "it names no schema"
        raise BadInputError(
            f"{name}: no plan that this planner reads: {what}, not {_SCHEMA}", hint=_HINT, code="bad-plan"
        )
    try:
        return msgspec.json.decode(data, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"{name}: a broken plan: {error}", hint=_HINT, code="bad-plan") from error


def _read(path: str | Path, name: str) -> bytes:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise MissingInputError(f"{name} cannot be read: {reason}", hint=_HINT) from error
    if len(data) > _MOST_BYTES:
        raise BadInputError(f"{name}: larger than any plan ({_MOST_BYTES >> 20} MiB)", hint=_HINT, code="bad-plan")
    return data
