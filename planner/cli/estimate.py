"""``planner estimate``: the memory of one model with one set of settings, from the engine itself."""

import click

from planner.cli.options import (
    asked_of_a_model,
    engine_option,
    engine_settings_options,
    json_option,
    machine_option,
    quantization_option,
    settings_options,
)
from planner.cli.placement import cache_options, draft_options, placement_options, server_options

__all__ = ["command"]


@click.command(name="estimate")
@click.argument("model")
@quantization_option
@settings_options
@engine_settings_options
@click.option("--repack/--no-repack", default=None, help="Let the CPU keep a faster second form of some weights.")
@cache_options
@placement_options
@draft_options
@server_options
@click.option("--threads", type=click.IntRange(1, 4096), metavar="N", help="Threads that compute.")
@click.option(
    "--if-memory", is_flag=True, help="Tell the speed of a model that does not fit as if there were the memory."
)
@click.option("--explain", is_flag=True, help="Show where each MiB comes from, part by part.")
@machine_option
@engine_option
@json_option
def command(
    *,
    model: str,
    explain: bool,
    as_json: bool,
    **settings: object,
) -> int:
    """Show the memory that one model needs, buffer by buffer.

    MODEL is a name from "planner models", MODEL:QUANT, or files: hf:owner/repo[:QUANT], ms:owner/repo[:QUANT], an https
    address, a .gguf file or a folder. Of files only the header is read.
    """
    from planner import api
    from planner.cli import output

    asked = asked_of_a_model(settings)
    if explain:
        explanation = api.explain(model, **asked)
        if as_json:
            output.print_json(explanation)
        else:
            from planner.render.explain import explanation_text

            output.print_text(explanation_text(explanation, output.style()))
        return 0
    candidate = api.estimate(model, **asked)
    if as_json:
        output.print_json(candidate)
    else:
        from planner.render.estimate import estimate_text

        output.print_text(estimate_text(candidate, output.style()))
    return 0
