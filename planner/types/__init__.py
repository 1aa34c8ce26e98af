"""The structs that travel between rooms: frozen, keyword-only, integer bytes, the unit in the field name.

``None`` means unknown and never zero. These structs are also the published JSON: what a room returns is what
``--json`` prints, so there is no second schema that could drift.
"""

import msgspec

__all__ = ["Record", "Report"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of structs that people write or that must not carry a stray key."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Base of structs that machines write: an older reader ignores what a newer writer added."""
