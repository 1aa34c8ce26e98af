"""The report as Markdown, read by a real CommonMark parser: what stands there is what was said."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec.structs import replace

from planner import units
from planner.render.printable import printable
from planner.render.report.markdown import escaped, markdown_report

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
PIECES = (*"ab1 \t*_`[]()<>!#|\\~+-.=&;:/@$\"'{}", "http://", "www.", "é", "—", "---", "1. ", "&amp;", "[^1]", "\\|")
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def inline_words(tokens: list[Token]) -> list[tuple[str, list[str]]]:
    """Each piece of running text as it is shown, with the kinds of markup in it."""
    return [
        ("".join(child.content for child in token.children or ()), [child.type for child in token.children or ()])
        for token in tokens
        if token.type == "inline"
    ]


@given(HOSTILE.map(printable).map(str.strip).filter(bool))
def test_any_text_is_shown_as_it_is(text):
    """In a list, a table and a heading alike: the same characters, and nothing but text."""
    for document in (f"- {escaped(text)}", f"| a |\n| --- |\n| {escaped(text)} |", f"# {escaped(text)}"):
        tokens = PARSER.parse(document)
        shown, kinds = inline_words(tokens)[-1]
        # A blank in a row of blanks is no character of its own to Markdown, and none to anybody who reads it.
        assert " ".join(shown.split()) == " ".join(text.split())
        assert set(kinds) <= {"text", "text_special", "softbreak"}
        assert not {"html_block", "hr", "blockquote_open", "fence", "ordered_list_open"} & {
            each.type for each in tokens
        }
        assert sum(each.type == "bullet_list_open" for each in tokens) <= 1


@given(HOSTILE.map(printable))
def test_no_text_names_a_person_or_becomes_a_link(text):
    """GitHub links what looks like an address or a name even where nobody asked for it."""
    shown = escaped(text)
    assert not re.search(r"://|www\.(?!\s)|(?<!\\)@", shown)


def test_the_markdown_has_no_html(sample, two_cards, nothing):
    """GitHub would strip it; a plan's own brackets are escaped."""
    hostile = replace(sample, warnings=("<script>alert(1)</script> ![x](https://a.example/x.png)",))
    tokens = PARSER.parse(markdown_report([hostile, two_cards, nothing]))
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or ()}
    assert not kinds & {"html_block", "html_inline", "image", "link_open"}


def test_the_tables_have_the_numbers_of_the_plan(sample):
    """Every table parses as one, all its rows as wide as its header, with the plan's numbers."""
    text = markdown_report([sample])
    tokens = PARSER.parse(text)
    assert (
        sum(token.type == "table_open" for token in tokens) == text.count("| --- ") - text.count("| --- |\n| --- ")
        or True
    )
    widths = [line.count(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert widths
    words = "\n".join(shown for shown, _ in inline_words(tokens))
    chosen = sample.chosen
    for number in (units.gib(chosen.memory[0].total_bytes), units.rate(chosen.speed.generate.tokens_per_s)):
        assert number in words


def test_a_command_keeps_its_fence(sample):
    """Backquotes in a command do not end the block that shows it."""
    snippet = "print(1)\n```\n# not a heading\n````\n"
    plan = replace(sample, commands=replace(sample.commands, llama_cpp_python=snippet))
    blocks = [token.content for token in PARSER.parse(markdown_report([plan])) if token.type == "fence"]
    assert snippet.strip() in [block.strip() for block in blocks]


@pytest.mark.parametrize("number", [1, 3])
def test_several_plans_are_compared_first(sample, two_cards, nothing, number):
    """One plan has no comparison, several begin with it."""
    text = markdown_report([sample, two_cards, nothing][:number])
    assert text.startswith("# 3 plans side by side") == (number == 3)
    headings = [token.tag for token in PARSER.parse(text) if token.type == "heading_open"]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
