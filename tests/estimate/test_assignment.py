"""The assignment of layers to devices, held against the engine's own on phantom devices."""

from hypothesis import given
from hypothesis import strategies as st

from planner.estimate.assignment import assign

_SHARES = st.lists(st.floats(0.0, 1e11), min_size=1, max_size=8)


@given(layers=st.integers(1, 100), gpu_layers=st.integers(-1, 120), shares=_SHARES)
def test_every_layer_has_one_place(layers, gpu_layers, shares):
    """Host and devices together hold every layer and the output once, in order."""
    found = assign(layers, gpu_layers, shares)
    counts = [found.count(device) for device in range(len(shares))]
    assert found.first + sum(counts) == layers + 1
    assert all(count >= 0 for count in counts)
    assert list(found.ends) == sorted(found.ends)


@given(layers=st.integers(1, 100), data=st.data())
def test_a_split_written_as_counts_is_that_split(layers, data):
    """Counts per device that sum to all layers and the output give each device just as many."""
    cuts = sorted(data.draw(st.lists(st.integers(0, layers + 1), min_size=0, max_size=7)))
    counts = [b - a for a, b in zip([0, *cuts], [*cuts, layers + 1], strict=True)]
    found = assign(layers, -1, [float(count) for count in counts])
    assert [found.count(device) for device in range(len(counts))] == counts


def test_shares_that_sum_to_nothing_leave_everything_on_the_host():
    """A machine without free memory gets no layer on a GPU."""
    assert assign(10, -1, [0.0, 0.0]).output == -1
