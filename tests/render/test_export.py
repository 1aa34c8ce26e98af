"""Every format: the same server, names said exactly or refused, no secret, no open port by oversight."""

import json

import pytest
from msgspec.structs import replace

from planner.errors import BadInputError, UsageError
from planner.render.export import FORMATS, export
from planner.render.export.words import say


def test_an_unknown_format_is_refused_with_the_known_ones():
    """The names are the hint."""
    with pytest.raises(UsageError) as raised:
        export("docker", None)
    assert "compose" in raised.value.hint


def test_the_hostile_names_are_two_thousand_and_always_the_same(hostile_names):
    """What a seed makes on one machine it makes on the next; every grammar's own characters are there."""
    assert len(hostile_names) == len(set(hostile_names)) == 2000
    told = "".join(hostile_names)
    assert not set("'\"`$\\%#;:{}[]&*!|>-~\n\r\t\x1b\x7f\x85\u2028") - set(told)
    assert not set("/\0") & set(told)
    assert any(name.startswith("-") for name in hostile_names)


def test_no_text_file_holds_bytes_that_are_no_text(deployed):
    """A path that is no UTF-8, a NUL."""
    made = deployed()
    for character in ("\udcff", "\0"):
        bad = replace(made, weights=(f"/models/{character}.gguf",))
        for name in FORMATS:
            with pytest.raises(BadInputError) as raised:
                export(name, bad)
            assert raised.value.code == "unsayable"
            assert f"U+{ord(character):04X}" in raised.value.message


def test_characters_are_named():
    """A person finds the character by its number, a reader by its name."""
    assert say("\n") == "U+000A (line feed)"
    assert say("%") == "U+0025 (percent sign) %"
    assert say("\x85") == "U+0085"


def test_the_argv_files_say_every_word(deployed, hostile_names):
    """One word a line, and the same words as JSON; a line feed is refused."""
    refused = 0
    for name in hostile_names:
        made = deployed(name)
        try:
            files = export("llama-server", made)
        except BadInputError as error:
            refused += 1
            assert "\n" in name
            assert "U+000A" in error.message
            continue
        lines, document = files[f"{made.name}.argv"], json.loads(files[f"{made.name}.argv.json"])
        assert tuple(lines.removesuffix("\n").split("\n")) == made.argv
        assert document == {"argv": list(made.argv), "environment": made.environment}
    assert 0 < refused < 400
