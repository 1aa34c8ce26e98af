"""Every repetition of every test that was timed, around its own median: how far one run is from the next.

Rates of a prompt and of an answer differ a hundredfold, so each row is drawn in per cent of its median, which stands
in the row's name. A repetition is a dot, the interval a bar; no repetition is hidden behind an average.
"""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from planner import units
from planner.render.report.drawing import COLOURS, Size, shortened
from planner.render.report.samples import Timed

__all__ = ["paint_samples", "samples_height", "with_spread"]

_FASTEST = 1e9


def with_spread(tests: Sequence[Timed]) -> tuple[Timed, ...]:
    """The tests that can be drawn: at least one repetition and a median above zero."""
    return tuple(each for each in tests if each.rates and _finite(each))


def _finite(each: Timed) -> bool:
    spread = each.result.tokens_per_s
    values = (spread.low, spread.median, spread.high)
    return all(math.isfinite(value) and 0 < value < _FASTEST for value in values) and spread.low <= spread.high


def samples_height(tests: Sequence[Timed]) -> int:
    """The height in pixels for that many rows."""
    return 52 * len(tests) + 92


def paint_samples(figure: Figure, size: Size, tests: Sequence[Timed]) -> None:
    """A row for each test: dots for repetitions, a bar for the interval, a tick for the median."""
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    for row, each in enumerate(tests):
        spread = each.result.tokens_per_s
        ends = [100 * spread.low / spread.median, 100 * spread.high / spread.median]
        axes.barh(row + 0.14, ends[1] - ends[0], left=ends[0], height=0.34, color=COLOURS.accent, alpha=0.18)
        axes.plot([100, 100], [row - 0.06, row + 0.34], color=COLOURS.accent, linewidth=2.4)
        shares = [100 * rate / spread.median for rate in each.rates]
        axes.plot(shares, [row + 0.14] * len(shares), "o", markersize=8, color=COLOURS.ink, alpha=0.75, clip_on=False,
                  markerfacecolor="none", markeredgewidth=1.8)  # fmt: skip
        words = f"{shortened(each.name, 28 if size.narrow else 70)}: {units.rate(spread.median)} tokens/s"
        axes.annotate(words, (0, row - 0.24), xycoords=("axes fraction", "data"), va="center", ha="left")
    axes.set_ylim(len(tests) - 0.45, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    axes.set_xlabel("% of the median of its own test")
