"""The structs as JSON documents: deterministic bytes, indented for people, one newline at the end."""

import msgspec

from planner.render.printable import printable_json

__all__ = ["to_json"]


def to_json(document: msgspec.Struct) -> bytes:
    """The document as UTF-8 JSON: fields in the order of the struct, keys of mappings sorted, two-space indent.

    The same struct always gives the same bytes, so that two plans can be compared with ``cmp``. A terminal finds no
    control character in them, whoever wrote the names.
    """
    return printable_json(msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=2)) + b"\n"
