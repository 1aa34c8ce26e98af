"""Several plans below each other: how fast each writes and how capable its choice is, with both intervals.

The rows of both halves are the same plans in the order in which they were given. A speed axis that must hold a laptop
and a rack of cards is logarithmic; it says so.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from planner import units
from planner.render.report.charts.depth import plottable
from planner.render.report.drawing import COLOURS, Size, shortened
from planner.render.report.sheet import Sheet

__all__ = ["compare_height", "paint_compare"]

_LOGARITHMIC_FROM = 6.0


def compare_height(plans: Sequence[Sheet], *, narrow: bool) -> int:
    """The height in pixels; on a phone the halves stand below each other."""
    half = 46 * len(plans) + 90
    return 2 * half if narrow else half


def paint_compare(figure: Figure, size: Size, plans: Sequence[Sheet]) -> None:
    """Speed in one half, index in the other, a row for each plan."""
    halves = figure.subplots(2, 1) if size.narrow else figure.subplots(1, 2, sharey=True)
    speed_axes, index_axes = halves
    for row, sheet in enumerate(plans):
        _speed(speed_axes, row, sheet)
        _index(index_axes, row, sheet)
    for axes in halves:
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(plans) - 0.4, -0.75)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(range(len(plans)), [shortened(sheet.name, 18 if size.narrow else 26) for sheet in plans])
    _speed_scale(speed_axes, plans)
    speed_axes.set_xlabel("tokens per second" + (", logarithmic" if speed_axes.get_xscale() == "log" else ""))
    index_axes.set_xlim(0, 103)
    index_axes.set_xlabel("index of the choice, 0 to 100")


def _speed(axes: Axes, row: int, sheet: Sheet) -> None:
    chosen = sheet.plan.chosen
    speed = None if chosen is None else chosen.speed.generate
    if speed is None or not plottable(speed):
        _unknown(axes, row, "nothing was chosen" if chosen is None else "unknown")
        return
    _point(axes, row, (speed.low, speed.tokens_per_s, speed.high), units.rate(speed.tokens_per_s))


def _index(axes: Axes, row: int, sheet: Sheet) -> None:
    chosen = sheet.plan.chosen
    index = None if chosen is None else chosen.index
    if index is None or not 0 <= index.low <= index.value <= index.high <= 100:
        _unknown(axes, row, "nothing was chosen" if chosen is None else "unknown")
        return
    _point(axes, row, (index.low, index.value, index.high), f"{index.value:.0f}")


def _point(axes: Axes, row: int, interval: tuple[float, float, float], words: str) -> None:
    low, middle, high = interval
    axes.plot([low, high], [row, row], color=COLOURS.accent, linewidth=7, alpha=0.25, solid_capstyle="butt")
    axes.plot([middle], [row], "o", color=COLOURS.accent, markersize=9)
    axes.annotate(words, (middle, row), (0, 9), textcoords="offset points", ha="center", va="bottom", weight="bold")


def _unknown(axes: Axes, row: int, words: str) -> None:
    axes.annotate(words, (0.02, row), xycoords=("axes fraction", "data"), va="center", color=COLOURS.muted)


def _speed_scale(axes: Axes, plans: Sequence[Sheet]) -> None:
    known = [sheet.plan.chosen.speed.generate for sheet in plans if sheet.plan.chosen is not None]
    ends = [(each.low, each.high) for each in known if each is not None and plottable(each)]
    if ends and max(high for _, high in ends) / min(low for low, _ in ends) >= _LOGARITHMIC_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif ends:
        axes.set_xlim(0, max(high for _, high in ends) * 1.08)
