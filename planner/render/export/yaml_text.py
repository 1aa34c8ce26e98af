"""Text as a YAML scalar that every reader takes for the same text.

The mistake it prevents: JSON taken for a subset of YAML in everything. A JSON encoder writes a rare character as two
halves of a surrogate pair, which YAML readers refuse, or leaves in controls that YAML forbids.
"""

__all__ = ["quoted"]

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quoted(text: str) -> str:
    """``text`` in double quotes, on one line: what is not printable is escaped (YAML 1.1 and 1.2, section 5.7)."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    number = ord(character)
    if number < 1 << 8:
        return f"\\x{number:02X}"
    return f"\\u{number:04X}" if number < 1 << 16 else f"\\U{number:08X}"
