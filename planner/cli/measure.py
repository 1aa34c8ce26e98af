"""``planner measure``: the speed of one model with one set of settings, timed here, and what others measured."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from planner.cli.options import (
    Command,
    asked_of_a_model,
    engine_option,
    engine_settings_options,
    json_option,
    quantization_option,
    settings_options,
    with_options,
)
from planner.cli.values import depths, engine_program, sequences, tests, thread_counts
from planner.errors import ExitCode

if TYPE_CHECKING:
    from planner.render.llama_bench import LlamaBenchFormat
    from planner.types.measurement import Measurement, Test

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)


def _formats(function: Command) -> Command:
    """``--csv``, ``--md``, ``--sql`` and ``--jsonl``: llama-bench's own formats; the last one given counts."""
    return with_options(
        function,
        *(
            click.option(f"--{name}", "table", flag_value=name, default=None, help=words)
            for name, words in (
                ("csv", "Print llama-bench's CSV."),
                ("md", "Print llama-bench's Markdown table."),
                ("sql", "Print llama-bench's SQL."),
                ("jsonl", "Print llama-bench's fields as JSON, a line for each test."),
            )
        ),
    )


_parallel = click.option(
    "--parallel",
    type=sequences,
    metavar="LIST",
    help="Sequences that are decoded together, such as 1,2,4; the context is made for the most.  [1]",
)


@click.command(name="measure")
@click.argument("model", required=False)
@quantization_option
@functools.partial(settings_options, parallel=_parallel)
@engine_settings_options
@click.option(
    "--threads",
    type=thread_counts,
    metavar="LIST",
    help="Threads that compute, such as 4 or 1,2,4.  [tried out]",
)
@click.option(
    "--tests",
    "wanted",
    type=tests,
    metavar="LIST",
    help="What to time at full length, by llama-bench's names: pp512 is a prompt of 512 tokens, tg128 an answer of "
    "128, pp512+tg128 both as one.  [pp512,tg128, and tg128 in half the context, shortened to the time there is]",
)
@click.option(
    "--depth",
    "at",
    type=depths,
    metavar="LIST",
    help="Tokens that the context holds before each test, such as 0,4096.  [0]",
)
@click.option("--quick", is_flag=True, help="Take about 20 s instead of 90 s.")
@click.option(
    "--engine",
    "llama_bench",
    type=engine_program,
    metavar="llama-bench=PATH",
    help="Time with this llama-bench, a build of your own, in the place of llama-cpp-python.",
)
@engine_option
@click.option("--against", type=_FILE, metavar="FILE", help="Say whether it differs from what --json wrote before.")
@click.option(
    "--import",
    "imported",
    type=_FILE,
    metavar="FILE",
    help="Read what llama-bench wrote (JSON, JSON lines, CSV, Markdown, SQL) and keep it.",
)
@click.option("--list", "listed", is_flag=True, help="List what was measured and imported so far.")
@json_option
@_formats
def command(
    *,
    model: str | None,
    imported: Path | None,
    listed: bool,
    table: "LlamaBenchFormat | None",
    as_json: bool,
    **options: object,
) -> int:
    """Time one model on this machine with llama.cpp's own kernels.

    MODEL is as in "planner estimate". A file on this disk is timed itself; of anything else no weights are needed. A
    run that something disturbed is printed, and ends with exit code 12: such numbers must not be used.
    """
    if table is not None and (as_json or imported is not None or listed):
        raise click.UsageError(f"--{table} prints one measurement; leave out --json, --import and --list")
    if sum((model is not None, imported is not None, listed)) != 1:
        raise click.UsageError("name a MODEL to measure, or --import FILE, or --list")
    if model is None:
        return _kept(imported, as_json=as_json)
    return _measure(model, options, table, as_json=as_json)


def _kept(path: Path | None, *, as_json: bool) -> int:
    """Import a file, or list everything that is kept."""
    from planner import workflow
    from planner.cli import output
    from planner.render.measure import imported_text, kept_text

    if path is not None:
        read = workflow.import_file(path)
        output.print_json(read) if as_json else output.print_text(imported_text(read, output.style()))
    else:
        found = workflow.kept()
        output.print_json(found) if as_json else output.print_text(kept_text(found, output.style()))
    return int(ExitCode.GOOD)


def _measure(model: str, options: dict[str, object], table: "LlamaBenchFormat | None", *, as_json: bool) -> int:
    """Time one model and print it."""
    from planner import api, workflow
    from planner.cli.progress import progress

    against = cast("Path | None", options.pop("against"))
    before = None if against is None else workflow.read_measurement(against)
    effort: Literal["quick", "full"] = "quick" if options.pop("quick") else "full"
    llama_bench = cast("Path | None", options.pop("llama_bench"))
    asked, wanted = _asked(options)
    with progress(quiet=as_json or table is not None) as shown:
        measured = api.measure(model, effort=effort, tests=wanted, llama_bench=llama_bench, progress=shown, **asked)
    if against is not None and before is not None:
        measured = workflow.against(measured, before, against.name)
    _print(measured, table, as_json=as_json)
    return int(ExitCode.MEASUREMENT_INVALID if measured.conditions.disturbed else ExitCode.GOOD)


def _print(measured: "Measurement", table: "LlamaBenchFormat | None", *, as_json: bool) -> None:
    from planner import workflow
    from planner.cli import output

    if as_json:
        output.print_json(measured)
    elif table is not None:
        from planner.measure.llama_bench import rows
        from planner.render.llama_bench import FORMATS

        output.print_text(FORMATS[table](rows(measured)))
        # These formats have no place for a doubt.
        for each in measured.conditions.disturbed:
            output.print_note(f"disturbed, do not use these numbers: {each}")
        for each in measured.notes:
            output.print_note(f"note: {each}")
    else:
        from planner.render.measure import measurement_text

        output.print_text(measurement_text(measured, output.style(), elsewhere=workflow.elsewhere(measured)))


def _asked(options: dict[str, object]) -> "tuple[dict[str, Any], tuple[Test, ...]]":
    """What is asked of the model, and each test at each depth with each number of sequences and threads.

    No tests where none of these was asked for, so that the workflow takes its own. One number of threads is a setting,
    several are tests.
    """
    wanted = cast("tuple[tuple[int, int], ...] | None", options.pop("wanted"))
    at = cast("tuple[int, ...] | None", options.pop("at"))
    parallel = cast("tuple[int, ...] | None", options["parallel"])
    threads = cast("tuple[int, ...] | None", options["threads"])
    options["parallel"] = max(parallel) if parallel else None
    options["threads"] = max(threads) if threads else None
    asked = asked_of_a_model(options)
    several = threads if threads is not None and len(threads) > 1 else None
    if not any((wanted, at, several, parallel)):
        return asked, ()
    from planner.measure.llama_bench import parse_test

    found = (
        parse_test(prompt, answer, depth, sequences, count)
        for count in several or (None,)
        for depth in at or (0,)
        for sequences in parallel or (1,)
        for prompt, answer in wanted or ((512, 0), (0, 128))
    )
    return asked, tuple(test for test in found if test is not None)
