"""``planner export``: a plan as the files that somebody deploys."""

import click

from planner.cli.options import json_option, plan_argument
from planner.render.export import FORMATS

__all__ = ["command"]

_TOLD = "; ".join(f"{name}: {text}" for name, text in FORMATS.items())


@click.command(name="export")
@plan_argument
@click.option(
    "--to", "form", metavar="FORMAT", type=click.Choice(tuple(FORMATS)), required=True, help=f"What to write. {_TOLD}."
)
@click.option(
    "-o", "--output", metavar="PATH", type=str, help="A folder, or for a format of one file a file.  [stdout]"
)
@click.option(
    "--weights",
    metavar="FILE",
    help="Where the weights lie or will lie; of a split set the first part.  [as planned or fetched]",
)
@click.option("--server", metavar="PROGRAM", default="llama-server", help="The llama-server to start.  [llama-server]")
@click.option("--host", metavar="ADDRESS", help="The loopback address to listen on.  [127.0.0.1]")
@click.option("--port", metavar="N", type=click.IntRange(1, 65535), default=8080, help="The port.  [8080]")
@click.option(
    "--expose", metavar="ADDRESS", help="Listen where other machines can reach it; needs --api-key-file.", default=None
)
@click.option(
    "--api-key-file", metavar="FILE", help="The path of a file of keys, one on a line; only its path is written."
)
@click.option("--image", metavar="IMAGE", help="A container image of llama-server with its digest or version.")
@json_option
def command(
    *,
    plan: str,
    form: str,
    output: str | None,
    weights: str | None,
    server: str,
    host: str | None,
    port: int,
    expose: str | None,
    api_key_file: str | None,
    image: str | None,
    as_json: bool,
) -> int:
    """Write a plan as files that start its server elsewhere.

    PLAN is what "planner plan --output" wrote, - for stdin. Nothing but the plan decides; every setting that takes
    memory is written out. The server listens on this machine only unless --expose says otherwise.
    """
    from planner.cli import output as told
    from planner.types.deployment import Exported, ExportOptions
    from planner.workflow.exporting import export_plan, write_files
    from planner.workflow.plan_file import read_plan

    made, files = export_plan(
        read_plan(plan),
        form,
        ExportOptions(image=image),
        weights=weights,
        program=server,
        host=_host(host, expose, api_key_file),
        port=port,
        api_key_file=api_key_file,
    )
    if output is None and not as_json:
        told.print_text(_only(files, form))
        return 0
    written = write_files(files, output)
    if as_json:
        told.print_json(Exported(format=form, name=made.name, weights=made.weights, argv=made.argv, files=written))
    else:
        told.print_text("".join(f"{each.path}\n" for each in written))
    return 0


def _host(host: str | None, expose: str | None, api_key_file: str | None) -> str:
    """The address to listen on; raises UsageError for one that is open without being asked to be, or without a key."""
    from planner.errors import UsageError
    from planner.render.deployment import DEFAULT_HOST, is_loopback

    if expose is not None and host is not None:
        raise UsageError("--host and --expose both name the address", hint="give one of them")
    if expose is not None:
        if api_key_file is None:
            raise UsageError(
                f"a server on {expose} without a key answers everybody who reaches this machine",
                hint="name a file of keys with --api-key-file",
                code="open-without-key",
            )
        return expose
    if host is not None and not is_loopback(host):
        raise UsageError(
            f"{host!r} is not an address of this machine alone",
            hint="say that others shall reach it: --expose ADDRESS --api-key-file FILE",
            code="open-without-key",
        )
    return host or DEFAULT_HOST


def _only(files: dict[str, str], form: str) -> str:
    """The text of the only file; raises UsageError where there are more."""
    from planner.errors import UsageError

    if len(files) > 1:
        raise UsageError(f"{form} makes {len(files)} files", hint="name a folder with --output")
    return "".join(files.values())
