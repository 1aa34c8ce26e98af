"""What a format cannot say: characters are refused by name, never dropped, replaced or passed on in hope.

The mistake it prevents is a path that arrives as another one, or as a command: each grammar has characters of its own
that mean something, and a few that it cannot hold at all.
"""

import unicodedata
from collections.abc import Iterable

import msgspec

from planner.errors import BadInputError
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["CONTROLS", "check_text", "comment", "refuse", "say"]

CONTROLS = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)))
"""Control characters and Unicode's own line ends: what ends a line, or moves a cursor."""


def refuse(text: str, characters: Iterable[str], *, form: str, what: str, hint: str = "") -> str:
    """``text``, if none of ``characters`` is in it.

    Else raises :class:`BadInputError` (code ``unsayable``) that names the first of them, the format and ``what``.
    """
    bad = frozenset(characters)
    for character in text:
        if character in bad:
            raise BadInputError(
                f"{form} cannot say {what}: it holds {say(character)}",
                hint=hint or "give the file a plainer name, or export to a format that can",
                code="unsayable",
            )
    return text


def say(character: str) -> str:
    """A character in words: ``U+000A (line feed)``, ``U+0027 (apostrophe) '``."""
    controls = {
        "\0": "null",
        "\t": "tab",
        "\n": "line feed",
        "\r": "carriage return",
        "\x1b": "escape",
        "\x7f": "delete",
    }
    name = controls.get(character) or unicodedata.name(character, "").lower()
    shown = f" {character}" if character.isprintable() and not character.isspace() else ""
    return f"U+{ord(character):04X}{f' ({name})' if name else ''}{shown}"


def comment(text: str) -> str:
    """``text`` for a comment, where only its line matters: what could end the line or hide is spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def check_text(deployment: Deployment, options: ExportOptions, *, form: str) -> None:
    """Refuse what no text file can hold: bytes of a path that are no UTF-8, and NUL."""
    bad = frozenset(map(chr, (0, *range(0xD800, 0xE000))))
    words = {
        "the weights' path": "".join(deployment.weights),
        "the name of the model": deployment.model + deployment.quantization,
        "the command": "".join(deployment.argv),
        "an option": "".join(each for each in msgspec.structs.astuple(options) if isinstance(each, str)),
    }
    for what, text in words.items():
        refuse(text, bad, form=form, what=what)
