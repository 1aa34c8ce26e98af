"""``planner estimate``: the memory of one model with one set of settings, from the engine itself."""

import click

from planner.cli.options import (
    check_context,
    engine_option,
    json_option,
    machine_option,
    quantization_option,
    settings_options,
)
from planner.cli.values import FLASH_ATTENTION, tokens

__all__ = ["command"]


@click.command(name="estimate")
@click.argument("model")
@quantization_option
@settings_options
@click.option("--batch", "batch", type=tokens, metavar="TOKENS", help="Tokens handed over at once (logical batch).")
@click.option("--ubatch", "ubatch", type=tokens, metavar="TOKENS", help="Tokens computed at once (physical batch).")
@click.option("--flash-attention", type=click.Choice(FLASH_ATTENTION), help="Flash attention.")
@click.option("--repack/--no-repack", default=None, help="Let the CPU keep a faster second form of some weights.")
@click.option("--gpu-layers", type=click.IntRange(-1, 10_000), metavar="N", help="Layers on the GPU; -1 for all.")
@click.option("--cpu-moe-layers", type=click.IntRange(0, 10_000), metavar="N", help="Layers whose experts stay in RAM.")
@click.option("--threads", type=click.IntRange(1, 4096), metavar="N", help="Threads that compute.")
@machine_option
@engine_option
@json_option
def command(
    *,
    model: str,
    quant: str | None,
    context: int | None,
    parallel: int | None,
    kv_type: str | None,
    as_json: bool,
    **others: object,
) -> int:
    """Show the memory that one model needs, buffer by buffer.

    MODEL is a name from "planner models", MODEL:QUANT, or files: hf:owner/repo[:QUANT], ms:owner/repo[:QUANT], an https
    address, a .gguf file or a folder. Of files only the header is read.
    """
    from planner import workflow
    from planner.cli import output

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
    candidate = workflow.estimate(msgspec.convert({"model": model, **asked}, workflow.EstimateRequest))
    if as_json:
        output.print_json(candidate)
    else:
        from planner.render.estimate import estimate_text

        output.print_text(estimate_text(candidate, output.style()))
    return 0
