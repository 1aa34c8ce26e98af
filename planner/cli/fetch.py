"""``planner fetch``: the files that a plan names, onto this disk, verified."""

import click

from planner.cli.options import json_option

__all__ = ["command"]


@click.command(name="fetch")
@click.argument("plan_file", metavar="PLAN")
@click.option(
    "--from",
    "source",
    metavar="REF",
    help="Take the weights from hf:owner/repo[:QUANT] or ms:owner/repo[:QUANT]; for a plan that names no repository.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="REF",
    help="Fetch this beside the model: a projector (hf:owner/repo/mmproj-….gguf), a draft model; may be given again.",
)
@click.option("--accept", is_flag=True, help="Take weights whose size is not the planned one.")
@click.option("--offline", is_flag=True, help="Use what is on this disk; fail where something is missing.")
@json_option
def command(
    *, plan_file: str, source: str | None, also: tuple[str, ...], accept: bool, offline: bool, as_json: bool
) -> int:
    """Fetch the weights of a plan and verify them.

    PLAN is a file from "planner plan --output", or - for stdin. The files go into the cache of Hugging Face (HF_HOME)
    or ModelScope (MODELSCOPE_CACHE), where every other program finds them. Run it again after a cut or a kill: it goes
    on where it was.
    """
    from planner.apply.fetch import fetch
    from planner.cli import output
    from planner.cli.transferring import transferring
    from planner.workflow.plan_file import read_plan

    plan = read_plan(plan_file)
    with transferring(quiet=as_json) as shown:
        fetched = fetch(plan, source=source, also=also, accept=accept, offline=offline, watch=shown)
    if as_json:
        output.print_json(fetched)
    else:
        from planner.render.fetch import fetched_text

        output.print_text(fetched_text(fetched, output.style()))
    return 0
