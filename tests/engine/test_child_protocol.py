"""The line protocol: what was sent arrives, and nothing else is taken for a reply."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.engine.protocol import Failure, NotAReplyError, Reply, Request, decode_reply

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(max_size=20)
ANY_TEXT = st.text(st.characters(), max_size=20)
"""Lone surrogates included: how Python holds a path that is no UTF-8."""
VALUES = st.recursive(SCALARS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=8)
RESULTS = st.dictionaries(TEXTS, VALUES, max_size=4)


@settings(max_examples=50)
@given(result=RESULTS, number=st.integers(0, 2**53))
def test_every_result_comes_back_as_it_was(result, number):
    """Whatever JSON can hold."""
    line = json.dumps({"id": number, "ok": result}, ensure_ascii=False).encode()
    assert decode_reply(line, expected_id=number) == Reply(id=number, ok=result)


@given(line=st.binary() | TEXTS.map(str.encode) | VALUES.map(msgspec.json.encode))
def test_no_line_does_more_than_fail_to_be_a_reply(line):
    """Arbitrary bytes and arbitrary JSON give one error type, never another exception."""
    with pytest.raises(NotAReplyError):
        decode_reply(line, expected_id=1)


@settings(max_examples=50)
@given(args=st.dictionaries(ANY_TEXT, VALUES | ANY_TEXT, max_size=4))
def test_every_request_is_one_line_of_ascii(args):
    """Lone surrogates, line ends and all; the other side reads what was sent."""
    line = Request(id=7, op="ping", args=args).encode()
    assert line.isascii()
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert json.loads(line) == {"id": 7, "op": "ping", "args": args}


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":1}',
        b'{"id":1,"ok":{},"event":{}}',
        b'{"id":1,"ok":{},"extra":1}',
        b'{"id":1,"ok":[]}',
        b'{"id":"1","ok":{}}',
        b'{"id":1,"error":{"kind":"tired","message":""}}',
        b'{"id":1,"error":{"kind":"bug"}}',
        b'{"id":2,"ok":{}}',
        b'{"id":1,"ok":{"x":NaN}}',
        b'{"id":1,"ok":{"x":"\\udc80"}}',
        b'{"id":1,"ok":' + b'{"x":' * 100_000,
    ],
)
def test_a_reply_holds_exactly_one_thing_of_the_right_kind(line):
    """Two results, none, an unknown key or kind, another question's number: all are garbage."""
    with pytest.raises(NotAReplyError):
        decode_reply(line, expected_id=1)


def test_a_failure_has_a_kind_and_words():
    """The form in which the worker says no."""
    line = b'{"id":1,"error":{"kind":"refused","message":"no such file"}}'
    assert decode_reply(line, expected_id=1).error == Failure(kind="refused", message="no such file")


@pytest.mark.parametrize("value", [float("nan"), object(), b"bytes"])
def test_a_request_that_json_cannot_hold_is_refused_here(value):
    """And not by a child that would have to guess."""
    with pytest.raises((TypeError, ValueError)):
        Request(id=1, op="ping", args={"value": value}).encode()
