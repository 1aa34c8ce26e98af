"""Quality against speed: every candidate whose index and speed are known, each with both intervals and its number.

Form tells what colour tells: the choice is a diamond, an unbeaten one a full circle, a runner-up an empty one. The
mistake it prevents is a heap of names on one spot: marks carry the numbers of the table, set apart where they collide.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from planner.render.report.candidates import Mark
from planner.render.report.charts.depth import plottable
from planner.render.report.drawing import COLOURS

__all__ = ["drawable", "paint_pareto", "point_id"]

_LOGARITHMIC_FROM = 5.0
_LABEL = 9.0
"""Half the side of the square that a number takes, in pixels."""


def drawable(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """The marks that have a place: an index and a speed that are finite numbers."""
    return tuple(mark for mark in marks if plottable(mark.candidate.speed.generate) and _has_index(mark))


def point_id(mark: Mark) -> str:
    """The gid of a mark's group."""
    return f"point:{mark.number}"


def _has_index(mark: Mark) -> bool:
    index = mark.candidate.index
    return index is not None and 0 <= index.low <= index.value <= index.high <= 100


def paint_pareto(figure: Figure, marks: Sequence[Mark]) -> None:
    """A mark for each candidate, thin lines for its intervals, its number beside it."""
    axes = figure.subplots()
    places = [_place(mark) for mark in marks]
    for mark in sorted(marks, key=lambda each: each.chosen):
        _mark(axes, mark)
    ends = [(each.low, each.high) for mark in marks if (each := mark.candidate.speed.generate) is not None]
    slowest, fastest = min(low for low, _ in ends), max(high for _, high in ends)
    if fastest / slowest >= _LOGARITHMIC_FROM:
        _logarithmic(axes)
        axes.set_xlim(slowest / 1.15, fastest * 1.15)
    else:
        axes.set_xlim(0, fastest * 1.05)
    _vertical_limits(axes, marks)
    logarithmic = axes.get_xscale() == "log"
    axes.set_xlabel("tokens per second" + (", logarithmic" if logarithmic else ""))
    axes.set_ylabel("index, 0 to 100")
    handles = [_handle("D", "the choice", 10, full=False), _handle("o", "unbeaten", 7, full=True),
               _handle("o", "runner-up", 9, full=False)]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handletextpad=0.2, handlelength=1.4,
                  columnspacing=1.0)  # fmt: skip
    figure.draw_without_rendering()
    _numbers(axes, marks, places)


def _place(mark: Mark) -> tuple[float, float]:
    speed, index = mark.candidate.speed.generate, mark.candidate.index
    assert speed is not None  # noqa: S101 - drawable() let only these through
    assert index is not None  # noqa: S101 - the same
    return speed.tokens_per_s, index.value


def _mark(axes: Axes, mark: Mark) -> None:
    speed, index = mark.candidate.speed.generate, mark.candidate.index
    if speed is None or index is None:
        return
    colour = COLOURS.accent if mark.chosen else COLOURS.other
    width, strength = (2.0, 0.8) if mark.chosen else (1.0, 0.35)
    for xs, ys in (((speed.low, speed.high), (index.value,) * 2), ((speed.tokens_per_s,) * 2, (index.low, index.high))):
        axes.plot(xs, ys, color=colour, linewidth=width, alpha=strength, zorder=2)
    axes.plot(
        [speed.tokens_per_s],
        [index.value],
        marker="D" if mark.chosen else "o",
        markersize=15 if mark.chosen else 8 if mark.unbeaten else 10,
        color=COLOURS.accent if mark.chosen else COLOURS.ink,
        # An open diamond does not hide what lies on the same spot.
        markerfacecolor=COLOURS.ink if mark.unbeaten and not mark.chosen else "none",
        markeredgewidth=3.0 if mark.chosen else 1.8,
        gid=point_id(mark),
        zorder=4,
        clip_on=False,
    )


def _handle(marker: str, label: str, size: int, *, full: bool) -> Line2D:
    colour = COLOURS.accent if marker == "D" else COLOURS.ink
    return Line2D([], [], marker=marker, markersize=size, color=colour, linestyle="none", label=label,
                  markerfacecolor=colour if full else "none",
                  markeredgewidth=2.6 if marker == "D" else 1.8)  # fmt: skip


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _vertical_limits(axes: Axes, marks: Sequence[Mark]) -> None:
    """Room for every interval, inside 0 to 100 with a margin for the marks at the ends."""
    indices = [mark.candidate.index for mark in marks if mark.candidate.index is not None]
    low, high = min(each.low for each in indices), max(each.high for each in indices)
    margin = max(4.0, (high - low) * 0.08)
    axes.set_ylim(max(-3.0, low - margin), min(103.0, high + margin))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))


def _numbers(axes: Axes, marks: Sequence[Mark], places: Sequence[tuple[float, float]]) -> None:
    """Each number on the first place around its mark where it covers neither a mark nor another number."""
    marked = [tuple(axes.transData.transform(place)) for place in places]
    box = axes.get_window_extent()
    taken: list[tuple[float, float]] = []
    for mark, (x, y) in zip(marks, marked, strict=True):
        spot = _free_spot((x, y), [*marked, *taken], inside=(box.x0, box.x1, box.y0, box.y1))
        taken.append(spot)
        far = math.dist(spot, (x, y)) > 3 * _LABEL
        axes.annotate(
            str(mark.number),
            xy=(x, y),
            xytext=spot,
            xycoords="figure pixels",
            textcoords="figure pixels",
            ha="center",
            va="center",
            weight="bold" if mark.chosen else "normal",
            arrowprops={"arrowstyle": "-", "color": COLOURS.muted, "linewidth": 0.8, "shrinkA": 6, "shrinkB": 5}
            if far
            else None,
            zorder=5,
        )


def _free_spot(
    mark: tuple[float, float], taken: Sequence[tuple[float, float]], *, inside: tuple[float, float, float, float]
) -> tuple[float, float]:
    """The nearest of many places on rings around a mark that is clear of everything; the least crowded if none is."""
    best, best_gap = mark, -math.inf
    for ring in (1.9, 2.7, 3.6, 4.6, 5.8, 7.2):
        for step in range(16):
            angle = math.tau * step / 16 + math.pi / 4
            spot = (mark[0] + ring * _LABEL * math.cos(angle), mark[1] + ring * _LABEL * math.sin(angle))
            if not (
                inside[0] + _LABEL < spot[0] < inside[1] - _LABEL and inside[2] + _LABEL < spot[1] < inside[3] - _LABEL
            ):
                continue
            gap = min((math.dist(spot, other) for other in taken if other != mark), default=math.inf)
            if gap >= 1.75 * _LABEL:
                return spot
            if gap > best_gap:
                best, best_gap = spot, gap
    return best
