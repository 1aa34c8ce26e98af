"""The page without a browser: valid, closed to strangers, and true to the plan in every number."""

import base64
import hashlib
import re
import string
from collections import Counter
from typing import Any
from xml.etree import ElementTree as ET

import html5lib
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from msgspec.structs import replace

from planner import units
from planner.render.report.candidates import mark_words, marks
from planner.render.report.page import html_report, linked
from planner.render.report.sheet import sheets

PAYLOADS = (
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)><svg/onload=alert(1)>'",
    'javascript:alert(1) https://a.example/"onmouseover=alert(1) data:text/html,<script>alert(1)</script>',
    "</style><style>*{background:url(https://a.example/)}</style>{{7*7}}{% raw %}",
    "<!--]]>--><title>$\\frac{1}{0}$ \x1b[2J\u202e \u0000 &lt;b&gt; &#60;i&#62;",
)
HTML = "{http://www.w3.org/1999/xhtml}"


def planted(document: Any, text: str) -> Any:
    """The same plan with ``text`` in every field that takes any text, keys of mappings included."""
    return msgspec.convert(_replaced(msgspec.to_builtins(document), text, document.__class__), type(document))


def _replaced(value: Any, text: str, kind: Any) -> Any:
    info = msgspec.inspect.type_info(kind) if not isinstance(kind, msgspec.inspect.Type) else kind
    if isinstance(info, msgspec.inspect.UnionType):
        return value if value is None else _replaced(value, text, _not_none(info))
    if isinstance(info, msgspec.inspect.StructType):
        return {
            field.encode_name: _replaced(value[field.encode_name], text, field.type)
            if field.encode_name != "schema"
            else value[field.encode_name]
            for field in info.fields
        }
    if isinstance(info, msgspec.inspect.VarTupleType):
        return [_replaced(each, text, info.item_type) for each in value]
    if isinstance(info, msgspec.inspect.TupleType):
        return [_replaced(each, text, item) for each, item in zip(value, info.item_types, strict=True)]
    if isinstance(info, msgspec.inspect.DictType):
        return {text + key[-1:]: _replaced(each, text, info.value_type) for key, each in value.items()}
    return text if isinstance(info, msgspec.inspect.StrType) else value


def _not_none(info: msgspec.inspect.UnionType) -> msgspec.inspect.Type:
    return next(each for each in info.types if not isinstance(each, msgspec.inspect.NoneType))


def parsed(page: str) -> ET.Element:
    """The page as a browser's parser builds it; any parse error fails the test."""
    return html5lib.HTMLParser(strict=True).parse(page)


def tags(root: ET.Element) -> Counter[str]:
    """How often each element stands in the page; links of addresses aside."""
    return Counter(str(element.tag) for element in root.iter() if element.get("rel") != "noopener noreferrer external")


@pytest.fixture(scope="module")
def page(sample, two_cards, nothing):
    """Three plans side by side."""
    return html_report([sample, two_cards, nothing])


@pytest.fixture(scope="module")
def alone(sample):
    """One plan's page."""
    return html_report([sample])


@pytest.fixture(scope="module")
def root(page):
    """That page, parsed."""
    return parsed(page)


def test_the_page_is_valid_html(root):
    """Not one parse error, and an id is given once; whatever refers to an id finds it."""
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    referred = [element.get("href", "")[1:] for element in root.iter() if element.get("href", "").startswith("#")]
    for element in root.iter():
        for name in ("aria-labelledby", "aria-describedby", "data-copies"):
            referred += (element.get(name) or "").split()
        for value in element.attrib.values():
            referred += re.findall(r"url\(#([^)]*)\)", value)
    assert len(referred) > 20
    assert set(referred) <= set(ids)


def test_the_page_allows_itself_and_nothing_else(page, root):
    """The policy names the hashes of the one style sheet and the one script; there is no style attribute or handler."""
    policy = next(each.get("content") for each in root.iter(f"{HTML}meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (element,) = [each for each in root.iter() if str(each.tag).endswith(f"}}{tag}")]
        digest = base64.b64encode(hashlib.sha256((element.text or "").encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for element in root.iter():
        assert not [name for name in element.attrib if str(name).startswith(("on", "style"))]
    assert not re.search(r"@import|url\((?!#)", page)


def test_nothing_in_the_page_is_fetched(root):
    """Every address in an attribute is inside the page, or a link that somebody must follow."""
    for element in root.iter():
        for name, value in element.attrib.items():
            assert str(name) not in {"src", "srcset", "action", "formaction", "poster", "background"}
            if str(name).endswith("href") and not value.startswith("#"):
                link = (element.tag == f"{HTML}a" and value.startswith("https://")) or value == "data:,"
                assert link, value


@pytest.fixture(scope="module")
def harmless(sample):
    """The page with the same harmless word in every field."""
    return parsed(html_report([planted(sample, "MARKER")]))


@pytest.mark.parametrize("payload", PAYLOADS, ids=["script", "attribute", "address", "style", "control"])
def test_no_word_of_a_plan_becomes_markup(sample, harmless, payload):
    """With hostile words in every field the page has the very elements that it has with harmless ones."""
    hostile = parsed(html_report([planted(sample, payload)]))
    assert tags(hostile) == tags(harmless)
    for element in hostile.iter():
        address = element.get("href", "")
        assert address.startswith(("#", "https://")) or address in {"", "data:,"}
        assert not [name for name in element.attrib if str(name).startswith("on")]
    visible = "".join(hostile.itertext())
    assert "alert(1)" in visible or "alert" not in payload
    assert not {"\x1b", "\u202e", "\x00"} & set(visible)


def test_the_words_were_planted_everywhere(harmless):
    """The check before is able to fail: the marker reaches every section of the page."""
    assert "".join(harmless.itertext()).count("MARKER") > 100


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_a_link_is_always_the_address_that_it_shows(text):
    """Whatever the text: without the links it is the text again, and no link leads elsewhere."""
    made = str(linked(text))
    bare = re.sub(r'<a href="([^"]*)" rel="noopener noreferrer external">([^<]*)</a>', r"\2", made)
    assert bare == str(escape(text))
    for address, shown in re.findall(r'<a href="([^"]*)"[^>]*>([^<]*)</a>', made):
        assert address == shown
        assert address.startswith(("https://", "http://"))


def test_an_address_in_a_sentence_is_a_link_without_the_full_stop():
    """What people write around an address does not belong to it."""
    assert 'href="https://a.example/b?c=1"' in linked("see https://a.example/b?c=1.")
    assert "<a" not in linked("javascript:alert(1) file:///etc/passwd https:evil")


def cells(root: ET.Element) -> list[list[str]]:
    """Every row of every table as the words of its cells."""
    return [
        [" ".join("".join(cell.itertext()).split()) for cell in row if str(cell.tag).endswith(("td", "th"))]
        for row in root.iter(f"{HTML}tr")
    ]


def test_every_number_of_the_plan_stands_in_the_page(sample, alone):
    """Sizes, speeds, intervals and indices of the choice and of each candidate are the plan's own."""
    rows = cells(parsed(alone))
    chosen = sample.chosen
    (device,) = chosen.memory
    assert ["needed", units.gib(device.total_bytes)] in rows
    assert ["weights", units.gib(device.weights_bytes)] in rows
    assert ["available", units.gib(device.available_bytes)] in rows
    for speed in (chosen.speed.generate, chosen.speed.generate_at_depth, chosen.speed.prompt):
        numbers = [units.rate(speed.tokens_per_s), f"{units.rate(speed.low)}–{units.rate(speed.high)}"]
        assert any(row[1:3] == numbers for row in rows)
    for mark in marks(sample):
        (row,) = [row for row in rows if row[0].startswith(f"{mark.number}. ")]
        index, speed = mark.candidate.index, mark.candidate.speed.generate
        assert row[0] == f"{mark.number}. {mark.candidate.model} {mark.candidate.quantization}"
        assert row[1] == f"{index.value:.0f} {index.low:.0f}–{index.high:.0f}"
        assert row[2].lstrip("≈").split()[0] == units.rate(speed.tokens_per_s)
        assert row[2].startswith("≈") == (speed.origin != "measured")
        assert row[4] == units.gib(sum(device.total_bytes for device in mark.candidate.memory))
    for result in sample.measurements[0].results:
        spread = result.tokens_per_s
        assert any(row[2] == units.rate(spread.median) for row in rows if len(row) == 7 and row[1] == result.test.words)


def test_the_commands_in_the_page_are_the_plans_own(sample, alone):
    """What is copied is byte for byte what the plan says, in the shell and in Python."""
    import shlex

    root = parsed(alone)
    shell, python = ["".join(each.itertext()) for each in root.iter(f"{HTML}pre")]
    words = shlex.split(shell.replace("\\\n", " "))
    assert tuple(word for word in words if "=" not in word) == sample.commands.llama_server
    assert python == sample.commands.llama_cpp_python.strip()


def test_every_point_says_what_its_row_says(root, sample, two_cards):
    """A mark that the Tab key reaches is a link to its row, named by the same words that hovering shows."""
    points = [each for each in root.iter() if (each.get("class") or "").startswith("point ")]
    told = sheets([sample])[0].marks
    # Every mark is drawn for a desk and for a phone.
    assert len(points) == 2 * (len(told) + len(marks(two_cards)))
    spoken = [each.get("aria-label") for each in points]
    assert [mark_words(mark) for mark in told] == spoken[: len(told)]


def test_the_bar_of_a_device_is_drawn_to_scale(sample, alone):
    """The parts of a memory bar are as wide as their bytes, against what the device offers."""
    from planner.render.bar import parts

    root = parsed(alone)
    drawing = next(each for each in root.iter() if each.get("class") == "chart wide")
    boxes = [
        [float(number) for number in re.findall(r"-?[0-9.]+", each.get("d", ""))]
        for each in drawing.iter()
        if each.get("clip-path") and (each.get("d") or "").endswith("z")
    ]
    (device,) = sample.chosen.memory
    sizes = [size for size in parts(device) if size]
    widths = [max(box[::2]) - min(box[::2]) for box in boxes]
    assert len(widths) == len(sizes)
    whole = sum(widths) * device.available_bytes / sum(sizes)
    for width, size in zip(widths, sizes, strict=True):
        assert width == pytest.approx(whole * size / device.available_bytes, abs=0.1)


def test_a_plan_that_chose_nothing_is_a_page_too(nothing):
    """It says so, names what to change, and draws nothing."""
    page = html_report([nothing])
    root = parsed(page)
    assert "Nothing meets the goal" in "".join(root.itertext())
    assert "ask for less" in page
    assert not [each for each in root.iter() if str(each.tag).endswith("}svg")]


def test_the_page_is_the_same_every_time(sample, alone):
    """No clock, no counter, no order of a set: the same plans are the same bytes."""
    assert html_report([sample]) == alone


def test_a_page_of_many_plans_stays_small(page, alone):
    """A dozen plans, the most that the command takes, fit into 2 MB."""
    assert len(page.encode()) - len(alone.encode()) < 2 * 150_000
    assert len(alone.encode()) < 150_000


@pytest.mark.parametrize(
    "broken",
    [
        {"tokens_per_s": 1e300, "low": 1e299, "high": 1e301},
        {"tokens_per_s": 0.0, "low": 0.0, "high": 0.0},
        {"tokens_per_s": -3.0, "low": 5.0, "high": 1.0},
        {"at_context_tokens": -7},
        {"at_context_tokens": 10**12},
    ],
    ids=["huge", "zero", "backwards", "before the start", "beyond the end"],
)
def test_a_plan_with_absurd_speeds_is_still_a_page(sample, broken):
    """A plan is a file, and a file may say anything: what cannot be drawn stands in the tables alone."""
    chosen = sample.chosen
    speed = replace(chosen.speed.generate, **broken)
    absurd = replace(chosen, speed=replace(chosen.speed, generate=speed, generate_at_depth=None))
    assert parsed(html_report([replace(sample, chosen=absurd, pareto=(), alternatives=())])) is not None


def test_a_plan_with_absurd_sizes_is_still_a_page(sample):
    """Negative and astronomic bytes are shown as they are and not drawn."""
    chosen = sample.chosen
    for size in (-1, 1 << 62):
        device = replace(chosen.memory[0], weights_bytes=size, total_bytes=size)
        page = html_report([replace(sample, chosen=replace(chosen, memory=(device,)))])
        assert units.gib(size) in page


def test_names_that_a_chart_shows_are_never_mathematics(two_cards):
    """A device called like a formula is drawn as it is written."""
    chosen = two_cards.chosen
    named = replace(chosen, memory=(replace(chosen.memory[0], device="$\\frac{a}{0}$_^"), *chosen.memory[1:]))
    drawn = [
        each
        for each in parsed(html_report([replace(two_cards, chosen=named)])).iter()
        if str(each.tag).endswith("}text")
    ]
    assert any("$\\frac{a}{0}$" in "".join(each.itertext()) for each in drawn)


def test_letters_name_any_number_of_plans(nothing):
    """After Z comes A2, and no two plans share a name."""
    names = [sheet.name for sheet in sheets([nothing] * 30)]
    assert len(set(names)) == 30
    assert names[0][0] in string.ascii_uppercase
