"""One measurement as text: the speeds with their spread, what was timed and how, and whether to believe it.

A speed never stands alone: settings, threads, engine build and the state of the machine are part of the number.
"""

from collections.abc import Iterator, Sequence

from planner import units
from planner.render.layout import bullets, columns, facts, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish, settings_lines
from planner.render.untrusted import cleaned
from planner.render.waiting import waits
from planner.types.imported import Imported, ImportedRow, Kept
from planner.types.measurement import Conditions, Measurement, TestResult

__all__ = ["imported_text", "kept_text", "measurement_text"]

_ADVICE = (
    "close what else computes, plug the machine in, let it cool, and measure again; this result was not kept",
    "docs/measuring.md says where the limits are",
)


def measurement_text(measurement: Measurement, style: Style = PLAIN, *, elsewhere: Sequence[ImportedRow] = ()) -> str:
    """The table of tests, the settings, the conditions, and what was wrong where something was.

    ``elsewhere`` are imported rows of the same model and tests, shown beside it.
    """
    told = cleaned(measurement)
    lines = [*(style.heading(line) for line in paragraph(f"{told.model} {told.quantization}", indent="")), ""]
    lines += section("Speed", _table(told, style), style)
    title = "Elsewhere (imported, conditions unknown, not used for plans)"
    lines += section(title, _imported([cleaned(row) for row in elsewhere], style), style)
    lines += section("Settings", [line for fact in _settings(told, style) for line in paragraph(fact)], style)
    lines += section("Conditions", paragraph(facts([*_conditions(told.conditions)], style)), style)
    lines += section("Notes", bullets(told.notes, style), style)
    if told.conditions.disturbed:
        title = style.bad("Disturbed: do not use these numbers")
        lines += section(title, bullets([*told.conditions.disturbed, *_ADVICE], style), style)
    return finish(lines)


def imported_text(imported: Imported, style: Style = PLAIN) -> str:
    """What was read from one file, and what becomes of it."""
    told = cleaned(imported)
    lines = [*(style.heading(line) for line in paragraph(f"{told.source}: {_counted(told)}", indent="")), ""]
    lines += section("Speed as it was told", _imported(told.rows, style), style)
    lines += bullets(("kept; shown beside a measurement of the same model, never used for a plan",), style)
    return finish(lines)


def kept_text(kept: Kept, style: Style = PLAIN) -> str:
    """Everything that is kept: one table of what was measured, one of each import."""
    told = cleaned(kept)
    measured = [
        (
            f"{each.model} {each.quantization}",
            result.test.label,
            units.rate(result.tokens_per_s.median),
            str(result.test.threads or each.settings.threads),
            each.taken_at,
            _source(each, result, here=each.machine_key == told.machine_key),
        )
        for each in told.measurements
        for result in each.results
    ]
    header = ("model", "test", "tokens/s", "threads", "taken at", "what ran")
    lines = section("Measured", columns(header, measured, right=(2, 3)) if measured else [], style)
    for each in told.imported:
        lines += section(f"Imported from {each.source} at {each.imported_at}", _imported(each.rows, style), style)
    lines += section("Notes", bullets(told.notes, style), style)
    return finish(lines or ["Nothing was measured or imported yet."])


def _source(each: Measurement, result: TestResult, *, here: bool) -> str:
    what = "the file" if each.contents == "file" else "a phantom"
    if result.origin != "measured":
        what = "slices"
    return f"{what}, {each.engine} {each.engine_build}{'' if here else ', another machine'}"


def _counted(imported: Imported) -> str:
    count = len(imported.rows)
    return f"{count} row{'' if count == 1 else 's'} of llama-bench's {imported.format}"


def _imported(rows: Sequence[ImportedRow], style: Style) -> list[str]:
    shown = [
        (
            row.test.label,
            units.rate(row.mean_tokens_per_s),
            "" if row.deviation_tokens_per_s is None else f"{row.deviation_tokens_per_s:.2f}",
            facts([*_told(row)], style),
        )
        for row in rows
    ]
    return columns(("test", "tokens/s", "deviation", "model, processor, build"), shown, right=(1, 2)) if shown else []


def _told(row: ImportedRow) -> Iterator[str | None]:
    told = row.described
    yield told.model_type
    yield told.gpu_info or told.cpu_info or told.backends
    threads = row.fields.get("n_threads")
    yield f"{threads} threads" if threads else None
    known = told.build_commit not in {None, "unknown"}
    yield f"build {told.build_commit} ({told.build_number})" if known else None


def _table(told: Measurement, style: Style) -> list[str]:
    several = any(result.test.threads is not None for result in told.results)
    together = any(result.test.sequences > 1 for result in told.results)
    header = ["test", *(["threads"] if several else []), "tokens/s", *(["each"] if together else [])]
    rows = [_row(result, told, style, several=several, together=together) for result in told.results]
    header += ["interval", "samples", "where the number comes from"]
    return columns(header, rows, right=range(1, len(header) - 1))


def _row(result: TestResult, told: Measurement, style: Style, *, several: bool, together: bool) -> tuple[str, ...]:
    speed, test = result.tokens_per_s, result.test
    if result.origin != "measured":
        origin = f"composed from slices of {told.layers_timed} of {told.layers_total} layers"
    elif told.contents == "file":
        origin = "measured: the file itself ran"
    else:
        origin = "measured: the whole model ran"
    if result.tokens_timed < test.tokens:
        origin += f"; {result.tokens_timed} of {test.tokens} tokens timed"
    low, high = units.rate(speed.low), units.rate(speed.high)
    return (
        test.label,
        *([str(test.threads or told.settings.threads)] if several else []),
        units.rate(speed.median),
        *([units.rate(speed.median / test.sequences)] if together else []),
        f"{low}{style.dash}{high}" if low != high else low,
        str(len(result.samples_ns)),
        origin,
    )


def _settings(told: Measurement, style: Style) -> Iterator[str]:
    settings = told.settings
    yield from settings_lines(settings, style)
    prompts = "" if settings.threads_batch == settings.threads else f", {settings.threads_batch} for prompts"
    yield facts([f"{settings.threads} threads{prompts}, {waits(settings.openmp_wait)}"], style)
    if told.engine != "llama-cpp-python":
        yield f"timed by {told.engine}, its own definitions and warm-up"
    yield facts([f"engine build {told.engine_build}", f"taken at {told.taken_at}"], style)


def _conditions(conditions: Conditions) -> Iterator[str | None]:
    yield f"other processes used {conditions.other_cpus:.2f} CPUs" if conditions.other_cpus is not None else None
    yield _share("waiting for a CPU", conditions.pressure_ratio)
    yield _share("waiting for memory", conditions.memory_pressure_ratio)
    yield _share("stolen by the hypervisor", conditions.steal_ratio)
    yield _share("the clock fell by", conditions.frequency_drop_ratio)
    yield f"load {conditions.load_1min:.2f}" if conditions.load_1min is not None else None
    yield {True: "on battery", False: "on mains", None: None}[conditions.on_battery]


def _share(words: str, ratio: float | None) -> str | None:
    return None if ratio is None else f"{words} {units.percent(ratio)}"
