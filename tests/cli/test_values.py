import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cli.values import MOST_TOKENS, overrides, shares, size_bytes, tokens, tokens_per_s


@given(st.integers(1, MOST_TOKENS))
def test_every_possible_context_is_read_as_itself(count):
    """1 to 2³¹ − 1."""
    assert tokens(str(count)) == count


@given(st.integers(1, 2_000_000))
def test_k_means_1024_tokens(count):
    """As in "32k context"."""
    assert tokens(f"{count}k") == tokens(f"{count}K") == count * 1024


@pytest.mark.parametrize(
    "text", ["0", "-1", str(MOST_TOKENS + 1), "3000000k", "", "k", "1.5", "1e3", "٣", "8192 tokens"]
)
def test_an_impossible_number_of_tokens_is_refused(text):
    """With words, never by clamping."""
    with pytest.raises(click.BadParameter):
        tokens(text)


@given(st.text())
def test_any_text_is_a_number_or_a_refusal(text):
    """No other exception escapes."""
    for read in (tokens, tokens_per_s, size_bytes):
        try:
            assert read(text) >= 0
        except click.BadParameter as refusal:
            assert refusal.message  # noqa: PT017 - both outcomes are good


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.1", "fast", "1e999"])
def test_an_impossible_speed_is_refused(text):
    """``nan`` compares false with everything and would let any model through."""
    with pytest.raises(click.BadParameter):
        tokens_per_s(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("2GiB", 2 << 30), ("2 gib", 2 << 30), ("1.5G", 3 << 29), ("500MB", 500_000_000), ("64KiB", 1 << 16)],
)
def test_a_size_says_its_unit(text, size):
    """Binary and decimal units are told apart."""
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["2", "GiB", "-1GiB", "2 apples", "2GiBs", "1e3MB", "9999999TiB"])
def test_a_size_without_a_sensible_unit_is_refused(text):
    """A bare 2 would be two of what."""
    with pytest.raises(click.BadParameter):
        size_bytes(text)


def test_overrides_are_split_as_llama_server_splits_them():
    """At commas, then at the first equals sign."""
    assert overrides("exps=CPU") == (("exps", "CPU"),)
    assert overrides(r"blk\.[0-3]\.=CUDA1,output=CPU") == ((r"blk\.[0-3]\.", "CUDA1"), ("output", "CPU"))


@pytest.mark.parametrize("text", ["", "exps", "exps=", "=CPU", "a{1,2}=CPU", "a=CPU,"])
def test_an_override_without_pattern_or_buffer_is_refused(text):
    """A comma inside a pattern cuts it for llama-server, too."""
    with pytest.raises(click.BadParameter, match="PATTERN=BUFFER"):
        overrides(text)


@pytest.mark.parametrize("text", ["", "0", "0,0", "-1,2", "nan", "inf,1", "a,b", "1;2"])
def test_impossible_shares_are_refused(text):
    """A share is a finite number, and somebody gets something."""
    with pytest.raises(click.BadParameter, match="shares"):
        shares(text)
    assert shares("3,0,1.5") == (3.0, 0.0, 1.5)
