r"""Text that a stranger wrote, fit for a terminal: what could move the cursor, change colours or turn writing round.

A GGUF header, a file's name and a repository's card are somebody else's words. The mistake it prevents: ``cat`` by
proxy, where a model's name clears the screen, hides a warning or reads backwards. Nothing is dropped: what must not be
obeyed is spelled out (``\x1b``), so that a trick is seen.
"""

__all__ = ["LONGEST", "printable", "printable_json"]

LONGEST = 4000
"""Characters of one text that are shown; a header may hold a megabyte."""

_SHORT, _MIDDLE = 0xFF, 0xFFFF


def printable(text: str, *, most: int = LONGEST) -> str:
    """The text on one line, spelled out where it is not printable, cut after ``most`` characters.

    Unicode's categories decide: controls (ANSI escapes, C1), formats (bidi overrides, zero width), surrogates, private
    and unassigned characters are spelled out; a run of white space is one blank.
    """
    line = text if text.isprintable() else " ".join(text.split())
    shown = "".join(each if each.isprintable() else _spelled(each) for each in line)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def printable_json(data: bytes) -> bytes:
    r"""The same JSON document, its unprintable characters outside ASCII written as ``\uXXXX``.

    Encoders escape the ASCII controls alone, and a terminal obeys U+009B as well as ESC [.
    """
    if data.isascii():
        return data.replace(b"\x7f", b"\\u007f")
    text = data.decode()
    if text.replace("\n", "").isprintable():
        return data
    return "".join(each if each.isprintable() or each == "\n" else _json_spelled(each) for each in text).encode()


def _spelled(character: str) -> str:
    code = ord(character)
    if code <= _SHORT:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _MIDDLE else f"\\U{code:08x}"


def _json_spelled(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
