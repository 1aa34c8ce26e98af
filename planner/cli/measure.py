"""``planner measure``: the speed of one model with one set of settings, timed here."""

from typing import TYPE_CHECKING, Literal, cast

import click

from planner.cli.options import (
    engine_option,
    engine_settings_options,
    estimate_request,
    json_option,
    quantization_option,
    settings_options,
)
from planner.cli.values import depths, tests
from planner.errors import ExitCode

if TYPE_CHECKING:
    from planner.types.measurement import Test, TestKind

__all__ = ["command"]


@click.command(name="measure")
@click.argument("model")
@quantization_option
@settings_options
@engine_settings_options
@click.option("--threads", type=click.IntRange(1, 4096), metavar="N", help="Threads that compute.  [tried out]")
@click.option(
    "--tests",
    "wanted",
    type=tests,
    metavar="LIST",
    help="What to time, by llama-bench's names: pp512 is a prompt of 512 tokens, tg128 an answer of 128.  "
    "[pp512,tg128, and tg128 in half the context]",
)
@click.option(
    "--depth",
    "at",
    type=depths,
    metavar="LIST",
    help="Tokens that the context holds before each test, such as 0,4096.  [0]",
)
@click.option("--quick", is_flag=True, help="Take about 20 s instead of 90 s.")
@engine_option
@json_option
def command(
    *,
    model: str,
    wanted: tuple[tuple[str, int], ...] | None,
    at: tuple[int, ...] | None,
    quick: bool,
    as_json: bool,
    **settings: object,
) -> int:
    """Time one model on this machine with llama.cpp's own kernels.

    MODEL is as in "planner estimate"; no weights are needed. A run that something disturbed is printed, and ends with
    exit code 12: such numbers must not be used.
    """
    from planner import workflow
    from planner.cli import output
    from planner.cli.progress import progress

    request = estimate_request(model, settings)
    effort: Literal["quick", "full"] = "quick" if quick else "full"
    with progress(quiet=as_json) as shown:
        measured = workflow.measure(request, effort=effort, tests=_tests(wanted, at), progress=shown)
    if as_json:
        output.print_json(measured)
    else:
        from planner.render.measure import measurement_text

        output.print_text(measurement_text(measured, output.style()))
    return int(ExitCode.MEASUREMENT_INVALID if measured.conditions.disturbed else ExitCode.GOOD)


def _tests(wanted: tuple[tuple[str, int], ...] | None, at: tuple[int, ...] | None) -> "tuple[Test, ...]":
    """Each test at each depth; nothing when neither was asked for, so that the workflow takes its own."""
    if wanted is None and at is None:
        return ()
    from planner.types.measurement import Test

    return tuple(
        Test(kind=cast("TestKind", kind), tokens=count, depth=depth)
        for depth in at or (0,)
        for kind, count in wanted or (("prompt", 512), ("generate", 128))
    )
