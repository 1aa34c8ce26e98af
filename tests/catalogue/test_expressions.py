"""The language of profiles: as much arithmetic as a layout needs, and no way to do anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalogue.expressions import LAYERS, ExpressionError, compile_expression

_NAMES = {"n_embd": 4096, "n_head": 32, "n_expert": 128, "tied": True}


def _joined(children):
    operators = st.sampled_from(["+", "-", "*", "//", "%", "<", "<=", "==", "!=", ">", ">=", "and", "or"])
    binary = st.tuples(children, operators, children).map(lambda part: f"({part[0]} {part[1]} {part[2]})")
    choice = st.tuples(children, children, children).map(lambda part: f"({part[0]} if {part[1]} else {part[2]})")
    called = st.tuples(st.sampled_from(["min", "max"]), children, children).map(lambda p: f"{p[0]}({p[1]}, {p[2]})")
    return binary | choice | called | children.map(lambda part: f"(not {part})") | children.map(lambda p: f"(-{p})")


_EXPRESSIONS = st.recursive(st.integers(0, 50).map(str) | st.sampled_from(sorted(_NAMES)), _joined, max_leaves=12)


@given(_EXPRESSIONS)
def test_an_expression_means_what_it_means_in_python(text):
    """The evaluator and Python agree on every expression both understand, errors included."""
    try:
        expected = eval(text, {"min": min, "max": max}, _NAMES)  # noqa: S307 - the text is made above
    except ZeroDivisionError:
        with pytest.raises(ExpressionError):
            compile_expression(text)(_NAMES)
        return
    value = compile_expression(text)(_NAMES)
    # `and`/`or` say only whether they hold, which is all a condition needs.
    assert bool(value) == bool(expected)
    if " and " not in text and " or " not in text:
        assert value == expected


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_by_name(text):
    """No text makes the evaluator do anything but return a value or raise ExpressionError."""
    try:
        value = compile_expression(text)(_NAMES)
    except ExpressionError:
        return
    assert isinstance(value, int | float | bool | str)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "n_embd.real",
        "n_embd.__class__",
        "[n_embd][0]",
        "(lambda: 1)()",
        "[i for i in n_embd]",
        "f'{n_embd}'",
        "(n := 3)",
        "9 ** 9 ** 9",
        "1 << 99",
        "open('x')",
        "min(*n_embd)",
        "max(n_embd)",
        "count(n_embd, 2)",
        "n_embd in (1, 2)",
        "tied is True",
        "'a' * 9999999999",
        "None",
        "b'x'",
        "1j",
        "~n_embd",
        "",
        "n_embd n_head",
        "-" * 20_000 + "1",
        "(" * 500 + "1" + ")" * 500,
    ],
)
def test_what_could_do_more_than_arithmetic_is_refused(text):
    """Attributes, subscripts, powers, comprehensions, foreign calls and deep nesting do not exist in profiles."""
    with pytest.raises(ExpressionError):
        compile_expression(text)({**_NAMES, LAYERS: (0, 1)})


def test_an_unknown_name_is_named():
    """The error says which name the shape lacks."""
    with pytest.raises(ExpressionError, match="q_lora_rank"):
        compile_expression("n_embd * q_lora_rank")(_NAMES)


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(0, 60))
def test_count_says_for_how_many_kept_layers_a_condition_holds(layers, bound):
    """``count`` walks over the original indices that a slice keeps."""
    scope = {LAYERS: tuple(layers), "bound": bound}
    assert compile_expression("count(i < bound)")(scope) == sum(layer < bound for layer in layers)


def test_count_has_no_meaning_without_layers():
    """Where no layers are known, ``count`` is an error and not zero."""
    with pytest.raises(ExpressionError, match="layers"):
        compile_expression("count(n_embd > 1)")(_NAMES)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=8), st.integers(-3, 10))
def test_lists_of_a_shape_are_read_entry_by_entry(ratios, index):
    """``at`` gives the entry that stands there, or names the length of the list; it never counts from the end."""
    scope = {"ratios": tuple(ratios), "i": index}
    entry = compile_expression("at(ratios, i)")
    if 0 <= index < len(ratios):
        assert entry(scope) == ratios[index]
    else:
        with pytest.raises(ExpressionError, match=f"list of {len(ratios)}"):
            entry(scope)


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(0, 20))
def test_member_says_whether_a_list_holds_a_value(layers, index):
    """As ``in`` does, which profiles may not use."""
    scope = {"full_attn_layers": tuple(layers), "i": index}
    assert compile_expression("member(i + 1, full_attn_layers)")(scope) == (index + 1 in layers)


@pytest.mark.parametrize("text", ["at(n_embd, 0)", "member(1, n_embd)", "at(ratios + 1, 0)", "at(1, 0)", "at(ratios)"])
def test_only_a_named_list_can_be_read_as_one(text):
    """A number, a sum or a missing argument is refused."""
    with pytest.raises(ExpressionError):
        compile_expression(text)({**_NAMES, "ratios": (0, 4)})
