"""``planner why-not``: the one reason that decided against a model, for the same goal as ``planner plan``."""

from typing import TYPE_CHECKING

import click

from planner.cli.options import engine_option, goal_options, json_option, machine_option

if TYPE_CHECKING:
    from planner.types.plan import Goal

__all__ = ["command"]


@click.command(name="why-not")
@click.argument("name", metavar="MODEL[:QUANT]")
@goal_options
@machine_option
@engine_option
@json_option
def command(*, name: str, goal: "Goal", machine: str | None, engine_python: str | None, as_json: bool) -> int:
    """Say why a model is not the choice.

    Takes the same options as "planner plan": the answer holds for that goal on that machine.
    """
    from planner import api
    from planner.cli import output

    answer = api.why_not(goal, name, machine=machine, engine_python=engine_python)
    if as_json:
        output.print_json(answer)
    else:
        from planner.render.why_not import why_not_text

        output.print_text(why_not_text(answer, output.style()))
    return 0
