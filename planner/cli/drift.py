"""``planner drift``: what this engine build answers differently than the last one did."""

import click

from planner.cli.options import engine_option, json_option

__all__ = ["command"]


@click.command(name="drift")
@engine_option
@json_option
def command(*, engine_python: str | None, as_json: bool) -> int:
    """Ask the engine again what its last build answered, and tell what changed.

    Answers are kept for each build of llama.cpp. Exit code 11 says that a number moved by more than 0.1 %.
    """
    from planner import workflow
    from planner.cli import output
    from planner.errors import ExitCode

    report = workflow.drift(engine_python=engine_python)
    if as_json:
        output.print_json(report)
    else:
        from planner.render.drift import drift_text

        output.print_text(drift_text(report, output.style()))
    return int(ExitCode.DRIFTED if report.changes else ExitCode.GOOD)
