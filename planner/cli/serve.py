"""``planner serve``: start what a plan says, and keep it running."""

from pathlib import Path

import click

from planner.cli.options import (
    api_key_option,
    deadline_option,
    engine_option,
    json_option,
    log_option,
    plan_argument,
    server_option,
    weights_option,
)

__all__ = ["command"]


@click.command(name="serve")
@plan_argument
@weights_option
@server_option
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Where to listen.  [127.0.0.1]")
@click.option("--port", metavar="N", type=click.IntRange(1, 65535), default=8080, help="The port.  [8080]")
@api_key_option("; needed to listen to more than this machine.")
@deadline_option("it")
@log_option
@click.option("--phantom", is_flag=True, help="Serve random weights of the planned model: a test without a download.")
@engine_option
@json_option
def command(
    *,
    plan: str,
    weights: str | None,
    server: str | None,
    host: str,
    port: int,
    api_key_file: str | None,
    deadline_s: float | None,
    log: str | None,
    phantom: bool,
    engine_python: str | None,
    as_json: bool,
) -> int:
    """Start the server of a plan and keep it running.

    PLAN is a file from planner plan --output. It is ready when it answers, not before. A crash is followed by a
    restart, up to five in ten minutes. SIGINT or SIGTERM stops it; no server outlives planner. With --json a report is
    printed at the end.
    """
    from planner.apply.serve import ServeRequest, serve
    from planner.cli import output
    from planner.errors import ExitCode
    from planner.workflow.plan_file import read_plan

    if phantom and weights is not None:
        raise click.UsageError("--phantom and --weights are two sources of weights; choose one")
    request = ServeRequest(
        plan_name=plan,
        weights=weights,
        server=server,
        host=host,
        port=port,
        api_key_file=api_key_file,
        deadline_s=deadline_s,
        log=None if log is None else Path(log),
        phantom=phantom,
        engine_python=engine_python,
    )
    report = serve(read_plan(plan), request, tell=output.print_note)
    if as_json:
        output.print_json(report)
    return int(ExitCode.GOOD)
