"""``planner calibrate``: what each kind of work costs on this CPU, timed once and kept."""

from typing import Literal

import click

from planner.cli.options import engine_option, json_option
from planner.errors import ExitCode

__all__ = ["command"]


@click.command(name="calibrate")
@click.option("--quick", is_flag=True, help="Take about 15 s instead of 60 s, and know less.")
@click.option("--threads", type=click.IntRange(1, 4096), metavar="N", help="Threads that compute.  [those of a trial]")
@engine_option
@json_option
def command(*, quick: bool, threads: int | None, engine_python: str | None, as_json: bool) -> int:
    """Time the kinds of work of this CPU once, to predict the speed of any model.

    Short phantom models are timed, no weights are needed. What is found holds for this machine, this engine build and
    so many threads, and is used by "planner estimate" and "planner plan" from then on. A run that something disturbed
    is printed and not kept, and ends with exit code 12.
    """
    from planner import workflow
    from planner.cli import output
    from planner.cli.progress import progress

    effort: Literal["quick", "full"] = "quick" if quick else "full"
    with progress(quiet=as_json) as shown:
        found = workflow.calibrate(effort=effort, threads=threads, engine_python=engine_python, progress=shown)
    told = workflow.calibration_told(found)
    if as_json:
        output.print_json(told)
    else:
        from planner.render.calibration import calibration_text

        output.print_text(calibration_text(told, output.style()))
    return int(ExitCode.MEASUREMENT_INVALID if found.conditions.disturbed else ExitCode.GOOD)
