"""One measurement as text: the speeds with their spread, what was timed and how, and whether to believe it.

A speed never stands alone: settings, threads, engine build and the state of the machine are part of the number.
"""

from collections.abc import Iterator

from planner import units
from planner.render.layout import bullets, columns, facts, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish, settings_lines
from planner.render.untrusted import cleaned
from planner.types.measurement import Conditions, Measurement, TestResult

__all__ = ["measurement_text"]

_ADVICE = (
    "close what else computes, plug the machine in, let it cool, and measure again; this result was not kept",
    "docs/measuring.md says where the limits are",
)


def measurement_text(measurement: Measurement, style: Style = PLAIN) -> str:
    """The table of tests, the settings, the conditions, and what was wrong where something was."""
    told = cleaned(measurement)
    lines = [*(style.heading(line) for line in paragraph(f"{told.model} {told.quantization}", indent="")), ""]
    lines += section("Speed", _table(told, style), style)
    lines += section("Settings", [line for fact in _settings(told, style) for line in paragraph(fact)], style)
    lines += section("Conditions", paragraph(facts([*_conditions(told.conditions)], style)), style)
    lines += section("Notes", bullets(told.notes, style), style)
    if told.conditions.disturbed:
        title = style.bad("Disturbed: do not use these numbers")
        lines += section(title, bullets([*told.conditions.disturbed, *_ADVICE], style), style)
    return finish(lines)


def _table(told: Measurement, style: Style) -> list[str]:
    rows = [_row(result, told, style) for result in told.results]
    return columns(("test", "tokens/s", "interval", "samples", "where the number comes from"), rows, right=(1, 2, 3))


def _row(result: TestResult, told: Measurement, style: Style) -> tuple[str, ...]:
    speed = result.tokens_per_s
    if result.origin == "measured":
        origin = "measured: the whole model ran"
    else:
        origin = f"composed from slices of {told.layers_timed} of {told.layers_total} layers"
    if result.tokens_timed < result.test.tokens:
        origin += f"; {result.tokens_timed} of {result.test.tokens} tokens timed"
    low, high = units.rate(speed.low), units.rate(speed.high)
    return (
        result.test.label,
        units.rate(speed.median),
        f"{low}{style.dash}{high}" if low != high else low,
        str(len(result.samples_ns)),
        origin,
    )


def _settings(told: Measurement, style: Style) -> Iterator[str]:
    settings = told.settings
    yield from settings_lines(settings, style)
    prompts = "" if settings.threads_batch == settings.threads else f", {settings.threads_batch} for prompts"
    yield facts([f"{settings.threads} threads{prompts}, waiting {_wait(settings.openmp_wait)}"], style)
    yield facts([f"engine build {told.engine_build}", f"taken at {told.taken_at}"], style)


def _wait(openmp_wait: str) -> str:
    return f"{openmp_wait}ly"


def _conditions(conditions: Conditions) -> Iterator[str | None]:
    yield f"other processes used {conditions.other_cpus:.2f} CPUs" if conditions.other_cpus is not None else None
    yield _share("waiting for a CPU", conditions.pressure_ratio)
    yield _share("stolen by the hypervisor", conditions.steal_ratio)
    yield _share("the clock fell by", conditions.frequency_drop_ratio)
    yield f"load {conditions.load_1min:.2f}" if conditions.load_1min is not None else None
    yield {True: "on battery", False: "on mains", None: None}[conditions.on_battery]


def _share(words: str, ratio: float | None) -> str | None:
    return None if ratio is None else f"{words} {units.percent(ratio)}"
