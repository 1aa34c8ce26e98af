"""The drawings of a report, each in a width for a desk and one for a phone: a drawing that shrinks cannot be read.

The style sheet shows one of the two; the other is out of sight of eyes, keys and screen readers alike. Where nothing
can be drawn there is no figure, and the tables say why.
"""

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from planner.render.bar import parts
from planner.render.report.candidates import mark_words
from planner.render.report.charts.compare import compare_height, paint_compare
from planner.render.report.charts.depth import known_depths, paint_depth
from planner.render.report.charts.memory import memory_height, paint_memory
from planner.render.report.charts.pareto import drawable, paint_pareto, point_id
from planner.render.report.charts.samples import paint_samples, samples_height, with_spread
from planner.render.report.drawing import Link, Size, draw
from planner.render.report.samples import timed
from planner.render.report.sheet import Sheet

__all__ = ["compare_figure", "depth_figure", "memory_figure", "pareto_figure", "samples_figure"]

_WIDE, _NARROW = 800, 328
_MOST_TESTS = 24
_MOST_SANE_BYTES = 1 << 60


def compare_figure(plans: Sequence[Sheet]) -> Markup:
    """Speed and index of every plan's choice."""
    return _both(
        lambda figure, size: paint_compare(figure, size, plans),
        heights=(compare_height(plans, narrow=False), compare_height(plans, narrow=True)),
        prefix="compare",
        label=f"Speed and capability of {len(plans)} plans; the table below has every number",
    )


def memory_figure(sheet: Sheet) -> Markup | None:
    """The choice's memory on every device; ``None`` where sizes are none that a computer has."""
    chosen = sheet.plan.chosen
    if chosen is None or not chosen.memory:
        return None
    sizes = [value for device in chosen.memory for value in (device.total_bytes, device.available_bytes or 0)]
    sizes += [part for device in chosen.memory for part in parts(device)]
    if not all(0 <= value < _MOST_SANE_BYTES for value in sizes):
        return None
    devices = chosen.memory
    return _both(
        lambda figure, size: paint_memory(figure, size, devices),
        heights=(memory_height(devices, narrow=False), memory_height(devices, narrow=True)),
        prefix=f"{sheet.anchor}-memory",
        label="Memory of each device by purpose, against what it offers; the table below has every number",
    )


def depth_figure(sheet: Sheet) -> Markup | None:
    """Speed against the depth of the context; ``None`` where no speed is known."""
    chosen = sheet.plan.chosen
    if chosen is None or not known_depths(chosen.speed):
        return None
    asked = sheet.plan.goal.min_tokens_per_s
    return _both(
        lambda figure, size: paint_depth(figure, size, chosen, asked),
        heights=(300, 290),
        prefix=f"{sheet.anchor}-depth",
        label="Tokens per second against tokens in the context, with intervals; the table below has every number",
    )


def pareto_figure(sheet: Sheet) -> Markup | None:
    """Quality against speed; each mark leads to its row of the table and says its numbers aloud."""
    found = drawable(sheet.marks)
    if not found:
        return None
    links = {
        point_id(mark): Link(
            href=f"#{sheet.anchor}-candidate-{mark.number}", words=mark_words(mark), classes=f"n{mark.number}"
        )
        for mark in found
    }
    return _both(
        lambda figure, _: paint_pareto(figure, found),
        heights=(440, 400),
        prefix=f"{sheet.anchor}-pareto",
        label="Index against tokens per second, a mark for each candidate",
        links=links,
    )


def samples_figure(sheet: Sheet) -> Markup | None:
    """Every repetition that was timed, around its median; ``None`` where nothing was."""
    found = with_spread(timed(sheet.plan))[:_MOST_TESTS]
    if not found:
        return None
    return _both(
        lambda figure, size: paint_samples(figure, size, found),
        heights=(samples_height(found), samples_height(found)),
        prefix=f"{sheet.anchor}-samples",
        label="Every timed repetition around the median of its test; the table below has the numbers",
    )


def _both(
    paint: Callable[[Figure, Size], None],
    *,
    heights: tuple[int, int],
    prefix: str,
    label: str,
    links: Mapping[str, Link] | None = None,
) -> Markup:
    sizes = (Size("wide", _WIDE, heights[0]), Size("narrow", _NARROW, heights[1]))
    drawn = [draw(paint, size, prefix=f"{prefix}-{size.name}", label=label, links=links) for size in sizes]
    return Markup("\n").join(drawn)
