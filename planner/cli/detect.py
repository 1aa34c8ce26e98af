"""``planner detect``: what this machine is; the raw answers behind it can be saved and replayed anywhere."""

from pathlib import Path

import click

from planner.cli.options import engine_option, json_option, machine_option

__all__ = ["command"]


@click.command(name="detect")
@click.option(
    "--capture",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also save the raw answers, without host and user names, for --machine FILE.",
)
@machine_option
@engine_option
@json_option
def command(*, capture: Path | None, machine: str | None, engine_python: str | None, as_json: bool) -> int:
    """Show what this machine is and what of it a model may use.

    Processor, memory with every container limit, disk, power, GPUs and the engine's own devices.
    """
    from planner import api
    from planner.cli import output

    if capture is not None and machine is not None:
        raise click.UsageError("--capture records this machine; it cannot be combined with --machine")
    if capture is not None:
        from planner import workflow
        from planner.files import atomic_write

        atomic_write(capture, workflow.capture())
        output.print_note(f"raw answers saved: {capture}")
    found = api.detect(machine=machine, engine_python=engine_python)
    if as_json:
        output.print_json(found)
    else:
        from planner.render.detect import machine_text

        output.print_text(machine_text(found, output.style()))
    return 0
