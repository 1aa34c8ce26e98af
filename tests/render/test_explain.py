"""An explained estimate as text: 80 columns, numbers that add up to the last digit, every part by a name of its own."""

import os
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.render.explain import explanation_text
from planner.render.style import Style
from planner.types.explanation import DeviceParts, Explanation, Part, PartName, Section, TypeBytes
from planner.types.plan import Candidate, Speeds
from planner.types.settings import Settings

MIB = 1 << 20
ASCII = Style(colour=False, unicode=False)
ROW = re.compile(r"^( *)(\S.*?)  +(-?[\d,]+\.\d\d)(?:  |$)")


def test_the_sample_reads_as_its_golden_text(explained, samples):
    """A card and the host beside it, every section, a block that is not loaded; PLANNER_UPDATE_GOLDEN=1 writes it."""
    text = explanation_text(explained)
    golden = samples / "explanation.txt"
    if os.environ.get("PLANNER_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_part_has_words_of_its_own():
    """A part added to the struct and forgotten here would end in a traceback for somebody else."""
    words = {name: labels(explanation([part(name, 5 * MIB)]))[-1] for name in get_args(PartName)}
    assert all(words.values())
    weights = [words[name] for name in get_args(PartName) if not name.endswith("-cache")]
    assert len(set(weights)) == len(weights)


def test_every_name_leaves_two_blanks_before_a_number_of_terabytes():
    """At the deepest level, beside 10,000,000.00 MiB, a name and its number stay two words to a reader's eye."""
    for name in get_args(PartName):
        alike = [part(name, 10_000_000 * MIB, form=form) for form in ("mapped", "private")]
        rows = [line for line in explanation_text(explanation(alike), ASCII).splitlines() if line.startswith(" " * 6)]
        assert len(rows) == 2
        assert all(re.search(r"\S  +10,000,000\.00$", row) for row in rows), name


@st.composite
def sections(draw):
    """Parts of every section, of any size from bytes to terabytes, one perhaps negative."""
    names = st.sampled_from(get_args(PartName))
    sizes = st.integers(1, 1 << 42) | st.integers(1, 20_000)
    found = [
        part(draw(names), draw(sizes), section, form=draw(st.sampled_from(["mapped", "private", "repacked"])))
        for section in get_args(Section)
        for _ in range(draw(st.integers(0, 5)))
    ]
    return (
        [*found, part("shared-pages", -draw(st.integers(1, 1 << 38)), form="private")]
        if found and draw(st.booleans())
        else found
    )


@given(st.lists(sections(), min_size=1, max_size=3))
def test_what_is_printed_adds_up_and_fits_80_columns(devices):
    """Level by level, the hundredths under a number sum to that number: rounding never shows."""
    told = explanation(*devices)
    text = explanation_text(told, ASCII)
    assert max(map(len, text.splitlines())) <= 80
    top = [(len(m[1]), hundredths(m[3])) for line in text.splitlines() if (m := ROW.match(line))]
    if len(devices) > 1:
        *top, (_, everything) = top
        assert everything == sum(value for indent, value in top if indent == 0)
    assert [value for indent, value in top if indent == 0] == pytest.approx(
        [100 * device.total_bytes / MIB for device in told.devices], abs=1
    )
    for place, (indent, value) in enumerate(top):
        below = []
        for deeper, inner in top[place + 1 :]:
            if deeper <= indent:
                break
            if deeper == indent + 2:
                below.append(inner)
        assert not below or sum(below) == value


def test_a_name_from_a_strangers_file_cannot_reach_the_terminal_unspelled():
    """Names of types and buffers come from files and engines."""
    evil = part("attention", MIB, types=(TypeBytes(type="q4\x1b[2J", tensors=1, size_bytes=MIB),))
    assert "\x1b" not in explanation_text(explanation([evil]))


def hundredths(text):
    """``1,234.56`` → 123456."""
    return int(text.replace(",", "").replace(".", ""))


def labels(told):
    """The words in front of the numbers."""
    return [m[2] for line in explanation_text(told, ASCII).splitlines() if (m := ROW.match(line))]


def part(name, size, section="weights", **more):
    """A part of an invented model."""
    return Part(name=name, section=section, size_bytes=size, **more)


def explanation(*devices):
    """An explanation of nothing but parts."""
    candidate = Candidate(
        model="m", quantization="Q4_K_M", settings=Settings(context_tokens=4096), file_bytes=0, memory=(),
        speed=Speeds(), verdict="fits", score=0.0,
    )  # fmt: skip
    return Explanation(
        estimate=candidate,
        devices=tuple(
            DeviceParts(device=f"D{index}", total_bytes=sum(each.size_bytes for each in parts), parts=tuple(parts))
            for index, parts in enumerate(devices)
        ),
    )
