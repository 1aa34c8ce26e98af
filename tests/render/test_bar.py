from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planner.render.bar import BAR_CELLS, SEGMENTS, allot, bar
from planner.render.style import Style

sizes = st.lists(st.integers(0, 1 << 50), min_size=1, max_size=len(SEGMENTS)).map(tuple).filter(any)


@given(sizes)
def test_the_cells_add_up_and_nothing_that_exists_is_invisible(parts):
    """Sixty cells, at least one for each part above zero, none for a part that is zero."""
    cells = allot(parts, BAR_CELLS)
    assert sum(cells) == BAR_CELLS
    assert all((count > 0) == (size > 0) for count, size in zip(cells, parts, strict=True))


@given(sizes)
def test_a_larger_part_never_gets_fewer_cells(parts):
    """The order of the parts is the order of their cells, up to the cell that rounding may cost."""
    cells = allot(parts, BAR_CELLS)
    for size, count in zip(parts, cells, strict=True):
        for other, others in zip(parts, cells, strict=True):
            assert not (size > other and count < others - 1)


def test_nothing_gets_no_cells():
    """A device with no bytes at all draws nothing."""
    assert allot((0, 0), BAR_CELLS) == (0, 0)


def test_the_bar_of_a_device_that_is_overfull_is_as_wide_as_any(chosen):
    """A candidate that does not fit is drawn against what it needs, with nothing free."""
    memory = replace(chosen.memory[0], available_bytes=1 << 20)
    drawn = bar(memory, Style())
    assert len(drawn) == BAR_CELLS
    assert "·" not in drawn
