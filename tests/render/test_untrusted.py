r"""Words of strangers reach no terminal as anything but letters: not in text, not in JSON, not in errors."""

import json
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planner.render.estimate import estimate_text
from planner.render.inspect import inspection_text
from planner.render.json import to_json
from planner.render.local import local_text
from planner.render.measure import measurement_text
from planner.render.plan import plan_text
from planner.render.printable import LONGEST, printable, printable_json
from planner.render.untrusted import cleaned
from planner.types.inspection import Inspection

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\r\nerror: \x00\u200b\ud7ff\U000e0041\x7f"

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


def dangerous(text):
    """The characters of a text that a terminal might obey; line ends of our own are none."""
    return [
        each
        for each in text
        if each != "\n" and unicodedata.category(each) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    ]


@given(ANY_TEXT)
def test_no_text_keeps_a_character_that_a_terminal_obeys(text):
    """Whatever it was, it is one printable line now."""
    shown = printable(text)
    assert shown.isprintable()
    assert not dangerous(shown)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), max_size=60))
def test_an_honest_text_stays_as_it_is(text):
    """Chinese, Arabic and emoji are words, not tricks."""
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\u202eb", "a\\u202eb"),
        ("a\U000e0041b", "a\\U000e0041b"),
        ("one\n two\tthree", "one two three"),
        ("\ud800", "\\ud800"),
        ("通义千问", "通义千问"),
    ],
)
def test_a_trick_is_spelled_out_and_seen(text, shown):
    """Nothing vanishes."""
    assert printable(text) == shown


def test_a_megabyte_is_cut():
    """A header may hold a name of a megabyte; nobody reads it."""
    assert len(printable("x" * 1_000_000)) == LONGEST


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4))
def test_json_says_the_same_and_holds_nothing_to_obey(document):
    """Escaped differently, read back equal."""
    data = printable_json(msgspec.json.format(msgspec.json.encode(document), indent=2))
    assert json.loads(data) == document
    assert not dangerous(data.decode())


@pytest.fixture
def documents(plan, chosen, inspection, measurement, local):
    """Every document that may hold a file's words, each text in it hostile, and the text that is made of it."""
    return {
        "plan": (plan, plan_text),
        "estimate": (chosen, estimate_text),
        "inspection": (inspection, inspection_text),
        "measurement": (measurement, measurement_text),
        "local": (local, lambda document: local_text(document, home="/home")),
    }


def poisoned(value):
    """The document with the hostile text behind every free text; what is one of a few words stays."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, list | tuple):
        return [poisoned(each) for each in value]
    if isinstance(value, msgspec.Struct):
        changed = {}
        for field in msgspec.structs.fields(value):
            before = getattr(value, field.name)
            after = before if "Literal" in str(field.type) else poisoned(before)
            changed[field.name] = tuple(after) if isinstance(before, tuple) else after
        return replace(value, **changed)
    return value


@pytest.mark.parametrize("name", ["plan", "estimate", "inspection", "measurement", "local"])
def test_a_document_full_of_tricks_prints_none(name, documents):
    """Every field at once: none can be forgotten."""
    document, text_of = documents[name]
    bad = poisoned(document)
    assert bad != document
    assert not dangerous(text_of(bad))
    assert not dangerous(to_json(bad).decode())
    assert msgspec.json.decode(to_json(bad), type=type(bad)) == bad


def test_an_honest_document_is_not_changed(plan, inspection):
    """Cleaning costs nothing where there is nothing to clean."""
    assert cleaned(inspection) == inspection
    assert isinstance(cleaned(inspection), Inspection)
    flat = replace(plan, commands=None)
    assert cleaned(flat) == flat
