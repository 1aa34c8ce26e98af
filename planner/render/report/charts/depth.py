"""How fast an answer is written as the context fills: depths that are known, their intervals, and where nobody knows.

The mistakes it prevents are a line drawn on past the last depth that anything is known of, and a straight one between
two depths: attention reads the whole context for each token, so it is the time that grows in a straight line.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from planner import units
from planner.render.report.drawing import COLOURS, Size
from planner.render.text import tokens
from planner.types.plan import Candidate, Speed, Speeds

__all__ = ["at_depths", "between_depths", "context_of_one", "known_depths", "paint_depth", "plottable"]

_FASTEST = 1e9
_PARTS = 4
_STEPS = 40
_BACKGROUND = {"facecolor": COLOURS.paper, "edgecolor": "none", "pad": 2}


def plottable(speed: Speed | None) -> bool:
    """Whether a speed can be drawn: finite numbers in order; a plan is a file, and a file may say anything."""
    if speed is None:
        return False
    values = (speed.low, speed.tokens_per_s, speed.high)
    return all(math.isfinite(value) and 0 < value < _FASTEST for value in values) and (
        speed.low <= speed.tokens_per_s <= speed.high
    )


def known_depths(speeds: Speeds) -> tuple[Speed, ...]:
    """The decode speeds of one sequence alone, one for each depth, the shallowest first."""
    found = {
        each.at_context_tokens: each
        for each in (speeds.generate_full, speeds.generate_at_depth, speeds.generate)
        if each is not None and plottable(each) and each.at_context_tokens >= 0
    }
    return tuple(found[depth] for depth in sorted(found))


def context_of_one(candidate: Candidate) -> int:
    """Tokens that one sequence may fill."""
    settings = candidate.settings
    return settings.context_tokens if settings.kv_unified else settings.context_tokens // max(1, settings.parallel)


def paint_depth(figure: Figure, size: Size, candidate: Candidate, asked_tokens_per_s: float) -> None:
    """Speed over depth with its interval as a band, the speed that was asked for, and what is not known."""
    known = known_depths(candidate.speed)
    whole = max(context_of_one(candidate), known[-1].at_context_tokens, 1)
    axes = figure.subplots()
    depths = [each.at_context_tokens for each in known]
    low, middle, high = ([getattr(each, name) for each in known] for name in ("low", "tokens_per_s", "high"))
    between = between_depths(depths)
    axes.fill_between(between, at_depths(depths, low, between), at_depths(depths, high, between), color=COLOURS.accent,
                      alpha=0.18, linewidth=0)  # fmt: skip
    axes.plot(between, at_depths(depths, middle, between), color=COLOURS.accent, linewidth=2)
    errors = [_below(middle, low), _below(high, middle)]
    axes.errorbar(depths, middle, yerr=errors, color=COLOURS.accent, marker="o", markersize=7, capsize=5, elinewidth=2,
                  linestyle="none", clip_on=False, zorder=3)  # fmt: skip
    top = max(*high, asked_tokens_per_s if asked_tokens_per_s < 3 * max(high) else 0.0) * 1.12
    for each in known:
        _value(axes, each, whole)
    if asked_tokens_per_s < top:
        axes.axhline(asked_tokens_per_s, color=COLOURS.warn, linestyle=(0, (6, 4)), linewidth=1.4)
        words = f"{units.rate(asked_tokens_per_s)} asked for"
        axes.annotate(words, (whole, asked_tokens_per_s), (0, -6), textcoords="offset points", ha="right", va="top",
                      color=COLOURS.warn, bbox=_BACKGROUND)  # fmt: skip
    if depths[-1] < whole:
        _unknown(axes, depths[-1], whole, top, size)
    axes.set_ylim(0, top)
    axes.set_xlim(0, whole * 1.02)
    axes.set_xlabel("tokens in the context already")
    axes.set_ylabel("tokens per second" if not size.narrow else "tokens/s")
    axes.set_xticks([round(whole * part / _PARTS) for part in range(_PARTS + 1)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens(round(value))))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def between_depths(depths: Sequence[int]) -> list[float]:
    """The known depths, and between two of them enough others to draw a bent line."""
    steps = [first + (second - first) * step / _STEPS for first, second in pairwise(depths) for step in range(_STEPS)]
    return [*steps, depths[-1]]


def at_depths(depths: Sequence[int], speeds: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Speeds at depths between known ones, the time of a token taken as a straight line from each to the next."""
    if len(depths) == 1:
        return [speeds[0]] * len(wanted)
    found = []
    for depth in wanted:
        place = max(0, min(len(depths) - 2, sum(known <= depth for known in depths) - 1))
        share = (depth - depths[place]) / (depths[place + 1] - depths[place])
        found.append(1 / ((1 - share) / speeds[place] + share / speeds[place + 1]))
    return found


def _below(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    return [high - low for high, low in zip(upper, lower, strict=True)]


def _value(axes: Axes, speed: Speed, whole: int) -> None:
    """The number beside its mark, on the side where there is room."""
    left = speed.at_context_tokens > whole / 2
    axes.annotate(
        units.rate(speed.tokens_per_s),
        (speed.at_context_tokens, speed.tokens_per_s),
        (-11 if left else 11, 11),
        textcoords="offset points",
        ha="right" if left else "left",
        weight="bold",
        bbox=_BACKGROUND,
        zorder=4,
    )


def _unknown(axes: Axes, start: int, end: int, top: float, size: Size) -> None:
    """The depths that nothing is known of, said in words as well as by hatching."""
    axes.axvspan(start, end, facecolor="none", edgecolor=COLOURS.grid, hatch="//", linewidth=0, zorder=0)
    wide = (end - start) / end * size.width > 190
    words = f"not known beyond\n{tokens(start)} tokens" if wide else "not\nknown"
    axes.text((start + end) / 2, top * 0.95, words, ha="center", va="top", color=COLOURS.muted, bbox=_BACKGROUND)
