"""``planner measure``: the speed of one model with one set of settings, timed here."""

from typing import TYPE_CHECKING, Literal, cast

import click

from planner.cli.options import check_context, engine_option, json_option, quantization_option, settings_options
from planner.cli.values import FLASH_ATTENTION, depths, tests, tokens
from planner.errors import ExitCode

if TYPE_CHECKING:
    from planner.types.measurement import Test, TestKind

__all__ = ["command"]


@click.command(name="measure")
@click.argument("model")
@quantization_option
@settings_options
@click.option("--batch", "batch", type=tokens, metavar="TOKENS", help="Tokens handed over at once (logical batch).")
@click.option("--ubatch", "ubatch", type=tokens, metavar="TOKENS", help="Tokens computed at once (physical batch).")
@click.option("--flash-attention", type=click.Choice(FLASH_ATTENTION), help="Flash attention.")
@click.option("--threads", type=click.IntRange(1, 4096), metavar="N", help="Threads that compute.  [tried out]")
@click.option("--gpu-layers", type=click.IntRange(-1, 10_000), metavar="N", help="Layers on the GPU; -1 for all.")
@click.option("--cpu-moe-layers", type=click.IntRange(0, 10_000), metavar="N", help="Layers whose experts stay in RAM.")
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
    quant: str | None,
    context: int | None,
    parallel: int | None,
    kv_type: str | None,
    wanted: tuple[tuple[str, int], ...] | None,
    at: tuple[int, ...] | None,
    quick: bool,
    as_json: bool,
    **others: object,
) -> int:
    """Time one model on this machine with llama.cpp's own kernels.

    MODEL is as in "planner estimate"; no weights are needed. A run that something disturbed is printed, and ends with
    exit code 12: such numbers must not be used.
    """
    from planner import workflow
    from planner.cli import output
    from planner.cli.progress import progress

    check_context(context, parallel)
    given = {
        "quantization": quant,
        "context_tokens": context,
        "parallel": parallel,
        "cache_type_k": kv_type,
        "cache_type_v": kv_type,
        **others,
    }
    import msgspec

    # What was not asked for is left out, so that the defaults live in one place, the request itself.
    asked = {key: value for key, value in given.items() if value is not None}
    request = msgspec.convert({"model": model, **asked}, workflow.EstimateRequest)
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
