"""``planner verify``: hold what runs against what was planned."""

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


@click.command(name="verify")
@plan_argument
@click.option(
    "--url",
    metavar="URL",
    help="The server to ask, such as http://127.0.0.1:8080; where none answers one is started.  [a free port]",
)
@weights_option
@server_option
@api_key_option(": the first is sent.")
@deadline_option("a server that is started")
@log_option
@click.option("--phantom", is_flag=True, help="Verify random weights of the planned model: a test without a download.")
@click.option("--quick", is_flag=True, help="Fewer repetitions, shallower prompts, no hash: a minute or two.")
@click.option("--junit", metavar="FILE", type=click.Path(dir_okay=False), help="Also write JUnit XML to FILE.")
@engine_option
@json_option
def command(
    *,
    plan: str,
    url: str | None,
    weights: str | None,
    server: str | None,
    api_key_file: str | None,
    deadline_s: float | None,
    log: str | None,
    phantom: bool,
    quick: bool,
    junit: str | None,
    engine_python: str | None,
    as_json: bool,
) -> int:
    """Check machine, file, memory and speed of a running plan against it.

    PLAN is a file from planner plan --output. Real chat requests are sent, one at a time and as many at once as are
    planned. Exit code 11 says that a promise was missed; what could not be looked at is told as unknown.
    """
    from planner import workflow
    from planner.apply.verify import VerifyRequest, verify
    from planner.cli import output
    from planner.errors import ExitCode
    from planner.files import atomic_write
    from planner.workflow.plan_file import read_plan

    if phantom and weights is not None:
        raise click.UsageError("--phantom and --weights are two sources of weights; choose one")
    request = VerifyRequest(
        plan_name=plan,
        url=url,
        weights=weights,
        server=server,
        api_key_file=api_key_file,
        deadline_s=deadline_s,
        log=None if log is None else Path(log),
        phantom=phantom,
        quick=quick,
        engine_python=engine_python,
    )
    wanted = read_plan(plan)
    now, notes = workflow.detect(engine_python=engine_python)
    for note in notes:
        output.print_note(note)
    report = verify(wanted, request, now, tell=output.print_note)
    if junit is not None:
        from planner.render.junit import junit_xml

        atomic_write(Path(junit), junit_xml(report))
    if as_json:
        output.print_json(report)
    else:
        from planner.render.verify import verification_text

        output.print_text(verification_text(report, output.style()))
    return int(ExitCode.DRIFTED if report.drifted else ExitCode.GOOD)
