"""``planner tune``: the settings that are fastest for one model here, raced against llama.cpp's defaults."""

from typing import TYPE_CHECKING, cast

import click

from planner.cli.options import (
    asked_of_a_model,
    engine_option,
    engine_settings_options,
    json_option,
    quantization_option,
    settings_options,
)
from planner.cli.values import CACHE_TYPES, USES
from planner.errors import ExitCode

if TYPE_CHECKING:
    from planner.types.plan import Use
    from planner.types.settings import CacheType

__all__ = ["command"]


@click.command(name="tune")
@click.argument("model")
@quantization_option
@click.option("--for", "use", type=click.Choice(USES), default="chat", help="What the model is for.  [chat]")
@settings_options
@engine_settings_options
@click.option(
    "--try-kv-type",
    "cache_types",
    type=click.Choice(CACHE_TYPES),
    multiple=True,
    help="Also try a cache of this type, which may cost quality; may be given again.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=5, max=86_400),
    metavar="S",
    default=60.0,
    help="Seconds to search for.  [60]",
)
@engine_option
@json_option
def command(
    *, model: str, use: str, cache_types: tuple[str, ...], time_limit: float, as_json: bool, **options: object
) -> int:
    """Find the settings that are fastest for one model on this machine.

    MODEL is as in "planner measure". Each setting is raced against the best so far, run by run, and taken only when it
    is clearly faster; the winner must beat llama.cpp's defaults once more, or these are what is recommended. What an
    option names is left as it is. "planner plan" uses the threads that were found. A run that something disturbed
    recommends nothing, and ends with exit code 12.
    """
    from planner import api
    from planner.cli import output
    from planner.cli.progress import progress

    asked = asked_of_a_model(options)
    with progress(quiet=as_json) as shown:
        tuning = api.tune(
            model,
            # click.Choice let only the literals through.
            use=cast("Use", use),
            budget_s=time_limit,
            cache_types=cast("tuple[CacheType, ...]", cache_types),
            progress=shown,
            **asked,
        )
    if as_json:
        output.print_json(tuning)
    else:
        from planner.render.tune import tuning_text

        output.print_text(tuning_text(tuning, output.style()))
    return int(ExitCode.MEASUREMENT_INVALID if tuning.recommended is None else ExitCode.GOOD)
