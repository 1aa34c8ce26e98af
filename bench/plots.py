"""Pictures of recorded speeds for the README and the documentation: what was predicted beside what was measured.

They are made from ``results/speed.json`` alone, so that a picture never shows what no file holds; run it again after
every new recording. Each is one SVG file that follows the reader's light or dark theme, with words as words.

    python bench/plots.py [--results bench/results/speed.json] [--to docs/images]
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from speed_report import at_pace_of

from planner.files import atomic_write
from planner.render.report.charts.depth import at_depths, between_depths
from planner.render.report.drawing import COLOURS, Size, draw

DEPTH = 8192
TESTS = {
    "tg": ("o", "writing, empty context", 1),
    f"tg@{DEPTH}": ("s", f"writing at a depth of {DEPTH:,}", 1),
    "pp512": ("^", "reading a prompt of 512", 512),
    "x2": ("v", "2 sequences together", 2),
    "x4": ("D", "4 sequences together", 4),
    "x8": ("P", "8 sequences together", 8),
}
"""Each test: its mark, its words, and the tokens that one of its times stands for."""
_PANELS = 9
_DARK = {
    "paper": "#0d1117", "ink": "#e6edf3", "muted": "#9da7b3", "grid": "#30363d", "accent": "#79b8ff",
    "other": "#9da7b3",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One test of one model in tokens per second: what was measured, and what had been predicted with its interval."""

    model: str
    test: str
    measured: float
    samples: tuple[float, ...]
    predicted: float
    low: float
    high: float


def main() -> int:
    """Write both pictures and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "speed.json")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent.parent / "docs" / "images")
    options = parser.parse_args()
    points = read(json.loads(options.results.read_text(encoding="utf-8")))
    for name, picture in (
        ("speed-predicted.svg", predicted_picture(points)),
        ("speed-depth.svg", depth_picture(points)),
    ):
        atomic_write(options.to / name, picture.encode())
        print(f"{options.to / name}  {len(picture) // 1000} kB")
    return 0


def read(done: Mapping[str, Any]) -> tuple[Point, ...]:
    """Every test that was both timed and predicted, by the first of the longest calibrations that were recorded.

    Runs are compared with it as ratios to the reference (``speed_report.py``) and drawn at the record's usual pace.
    """
    found = []
    for name, model in done["models"].items():
        first = model["passes"][0]["predicted_ns"]
        longest = max(first, key=int)
        predicted = first[longest]
        for test, (_, _, tokens) in TESTS.items():
            told, took = predicted.get(test), model["took_ns"].get(test)
            if told is None or took is None:
                continue
            ratios = at_pace_of(done, model, test, (0, longest))
            usual = took / median(ratios)
            # A longer time is a lower speed: the ends of the interval change places.
            middle, short, long = (usual * ns for ns in told)
            found.append(
                Point(
                    model=name,
                    test=test,
                    measured=tokens * 1e9 / took,
                    samples=tuple(tokens * 1e9 / (usual * each) for each in ratios),
                    predicted=tokens * 1e9 / middle,
                    low=tokens * 1e9 / long,
                    high=tokens * 1e9 / short,
                )
            )
    return tuple(found)


def predicted_picture(points: tuple[Point, ...]) -> str:
    """Predicted against measured, a mark for each test of each model, its 80 % interval as a line."""
    label = f"Predicted against measured tokens per second: {len(points)} tests of {_models(points)} models"
    return _standalone(
        str(draw(lambda figure, _: _predicted(figure, points), Size("wide", 760, 560), prefix="p", label=label))
    )


def depth_picture(points: tuple[Point, ...]) -> str:
    """Speed against depth for the models whose speed falls most and least: band, line and every repetition."""
    chosen = _by_fall(points)
    rows = -(-len(chosen) // 3)
    label = f"Tokens per second at depth 0 and {DEPTH}: predicted with interval, and measured, for {len(chosen)} models"
    size = Size("wide", 760, 190 * rows + 70)
    return _standalone(str(draw(lambda figure, _: _depth(figure, chosen, rows), size, prefix="d", label=label)))


def _models(points: tuple[Point, ...]) -> int:
    return len({point.model for point in points})


def _predicted(figure: Figure, points: tuple[Point, ...]) -> None:
    axes = figure.subplots()
    values = [value for point in points for value in (point.measured, point.low, point.high)]
    ends = (min(values) / 1.3, max(values) * 1.3)
    axes.plot(ends, ends, color=COLOURS.muted, linewidth=1.2)
    axes.fill_between(ends, [end / 1.1 for end in ends], [end * 1.1 for end in ends], color=COLOURS.other, alpha=0.15,
                      linewidth=0, label="within 10 %")  # fmt: skip
    for test, (marker, words, _) in TESTS.items():
        of_test = [point for point in points if point.test == test]
        if not of_test:
            continue
        errors = [
            [point.predicted - point.low for point in of_test],
            [point.high - point.predicted for point in of_test],
        ]
        axes.errorbar([point.measured for point in of_test], [point.predicted for point in of_test], yerr=errors,
                      fmt="none", ecolor=COLOURS.other, elinewidth=0.9, alpha=0.6)  # fmt: skip
        axes.plot([point.measured for point in of_test], [point.predicted for point in of_test], marker, markersize=6,
                  color=COLOURS.accent, markerfacecolor="none", markeredgewidth=1.4, label=words)  # fmt: skip
    for scale, ticks in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
        scale("log")
        ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ticks.set_minor_formatter(NullFormatter())
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_xlabel("measured tokens per second")
    axes.set_ylabel("predicted tokens per second")
    error = median(abs(point.predicted / point.measured - 1) for point in points)
    held = sum(point.low <= point.measured <= point.high for point in points) / len(points)
    axes.set_title(f"{len(points)} tests of {_models(points)} models: median error {error:.1%}, "
                   f"{held:.0%} inside the 80 % interval", loc="left", size="medium")  # fmt: skip
    axes.legend(loc="upper left")


def _by_fall(points: tuple[Point, ...]) -> list[tuple[Point, Point]]:
    """Models with both depths, from the one that loses most of its speed to the one that loses least, evenly picked."""
    shallow = {point.model: point for point in points if point.test == "tg"}
    pairs = [
        (shallow[point.model], point) for point in points if point.test == f"tg@{DEPTH}" and point.model in shallow
    ]
    pairs.sort(key=lambda pair: pair[1].measured / pair[0].measured)
    if len(pairs) <= _PANELS:
        return pairs
    return [pairs[round(place * (len(pairs) - 1) / (_PANELS - 1))] for place in range(_PANELS)]


def _depth(figure: Figure, chosen: list[tuple[Point, Point]], rows: int) -> None:
    grid = figure.subplots(rows, 3, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for axes, (shallow, deep) in zip(panels, chosen, strict=False):
        _panel(axes, shallow, deep)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    for axes in panels[max(0, len(chosen) - 3) : len(chosen)]:
        axes.set_xlabel("tokens in the context")
    for row in grid:
        row[0].set_ylabel("tokens per second")


def _panel(axes: Axes, shallow: Point, deep: Point) -> None:
    ends = (0, DEPTH)
    between = between_depths(ends)
    low, middle, high = (
        at_depths(ends, speeds, between)
        for speeds in ((shallow.low, deep.low), (shallow.predicted, deep.predicted), (shallow.high, deep.high))
    )
    axes.fill_between(between, low, high, color=COLOURS.accent, alpha=0.2, linewidth=0, label="80 % interval")
    axes.plot(between, middle, color=COLOURS.accent, linewidth=2, label="predicted")
    for place, point in zip(ends, (shallow, deep), strict=True):
        label = "measured, each repetition" if place == 0 else None
        axes.plot([place] * len(point.samples), point.samples, "o", color=COLOURS.ink, markerfacecolor="none",
                  markersize=5, markeredgewidth=1.3, clip_on=False, label=label)  # fmt: skip
    axes.set_title(shallow.model, loc="left", size="medium")
    axes.set_xlim(-0.04 * DEPTH, 1.04 * DEPTH)
    axes.set_ylim(0, max(shallow.high, deep.high, *shallow.samples, *deep.samples) * 1.1)
    axes.set_xticks(ends, ["0", f"{DEPTH:,}"])


def _standalone(drawing: str) -> str:
    """The drawing as a file of its own: a background, and both themes in its style sheet."""
    light = "".join(f".f-{role}{{fill:{_colour(role)}}}.s-{role}{{stroke:{_colour(role)}}}" for role in _DARK)
    dark = "".join(f".f-{role}{{fill:{colour}}}.s-{role}{{stroke:{colour}}}" for role, colour in _DARK.items())
    style = f"svg{{font-family:system-ui,sans-serif}}{light}@media(prefers-color-scheme:dark){{{dark}}}"
    head, body = drawing.split(">", 1)
    width, height = head.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    head = head.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"')
    return f'{head}><style>{style}</style><rect width="{width}" height="{height}" class="f-paper"></rect>{body}\n'


def _colour(role: str) -> str:
    return str(getattr(COLOURS, role))


if __name__ == "__main__":
    raise SystemExit(main())
