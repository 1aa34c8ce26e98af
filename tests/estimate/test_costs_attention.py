"""The walk over the cache: threads wait for the longest stretch, and rows far apart are fetched from far."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.estimate.costs_attention import NEAR_UNKNOWN, Near, Walk, waited_for, walked

TWO = Near(bytes_per_core=1 << 20, cores=2)


def walk(kv_heads: int = 8, *, sharing: int = 1, width: int = 128, cells: float = 100, by_cells: bool = True) -> Walk:
    """A walk over a cache in f16."""
    key = 2 * width
    return Walk(kv_heads * sharing, kv_heads, key, 2 * key, cells, by_cells)


@given(st.floats(1, 60_000), st.integers(1, 64))
def test_what_is_waited_for_is_no_less_than_what_is_seen_and_no_more_than_what_is_looked_at(seen, cores):
    """The engine looks at the cells in steps of 256, and a thread has a whole number of them."""
    waited = waited_for(Near(cores=cores), cells=65536, seen=seen)
    assert seen - 1e-6 <= waited
    assert waited <= seen + 257 + cores


@given(st.floats(1, 60_000))
def test_one_thread_waits_for_nobody(seen):
    """Nor does anything else where nobody tells how many compute."""
    assert waited_for(NEAR_UNKNOWN, cells=65536, seen=seen) == seen


def test_the_stretches_of_two_threads_at_some_depths():
    """By heads below 512 cells; then half of the cells looked at, of which the second has the empty ones."""
    told = {seen: waited_for(TWO, cells=65536, seen=seen) for seen in (250, 256, 400, 512, 1024, 2048)}
    assert told == {250: 250, 256: 512, 400: 512, 512: 768, 1024: 1280, 2048: 2304}
    assert waited_for(TWO, cells=1024, seen=1024) == 1024, "a full cache has no empty cells"


def test_rows_of_the_cache_that_lie_close_together_or_are_short_are_fetched_ahead():
    """A single head, eight 64 wide; of two of 128 a half is not, four a kilobyte apart are not, 16 of 64 in part."""
    jumps = {
        (width, kv_heads): round(walked(NEAR_UNKNOWN, walk(kv_heads, width=width))[0], 3)
        for width, kv_heads in ((128, 1), (128, 2), (64, 8), (64, 16), (128, 3), (128, 4), (128, 8))
    }
    assert jumps == {(128, 1): 0, (128, 2): 1, (64, 8): 0, (64, 16): 4, (128, 3): 2.25, (128, 4): 4, (128, 8): 8}


@given(st.integers(1, 60_000), st.sampled_from((1, 2, 4)))
def test_heads_that_share_a_row_fetch_it_again_ever_more_slowly_beyond_what_stays_near(cells, sharing):
    """Once while the cells of one head fit into the caches of the cores, thrice at most, and sooner with one core."""
    _, again = walked(TWO, walk(4, sharing=sharing, cells=cells))
    once = 4 * (sharing - 1)
    held = cells * 512 <= 2 << 20
    assert once <= again <= 3 * once
    assert (again == once) == (held or sharing == 1)
    assert walked(TWO, walk(4, sharing=sharing, cells=cells + 1000))[1] >= again
    assert walked(TWO, walk(4, sharing=sharing, cells=cells, by_cells=False))[1] >= again
    assert walked(Near(1 << 20, 4), walk(4, sharing=sharing, cells=cells))[1] <= again


@given(st.integers(1, 60_000), st.sampled_from((1, 2, 4)))
def test_pages_that_a_core_has_forgotten_cost_a_part_of_a_row_for_each_head(cells, sharing):
    """Nothing up to two thousand pages for each core; from four thousand on a fifth of a row, for each head."""
    far, _ = walked(TWO, walk(8, sharing=sharing, cells=cells))
    assert 8 <= far <= 8 * (1 + 0.2 * sharing)
    assert (far == 8) == (cells / 2 <= 2048)
    assert cells / 2 < 4096 or far == pytest.approx(8 * (1 + 0.2 * sharing))
