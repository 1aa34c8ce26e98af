"""``planner show``: everything that is known about one model, and where it was read."""

import click

from planner.cli.options import json_option

__all__ = ["command"]


@click.command(name="show")
@click.argument("model")
@json_option
def command(*, model: str, as_json: bool) -> int:
    """Tell all facts about one model, with their sources.

    MODEL is a name from "planner models".
    """
    from planner import workflow
    from planner.cli import output

    found = workflow.show(model)
    capabilities = workflow.capabilities(found)
    if as_json:
        from planner.render.documents import model_document

        output.print_json(model_document(found, capabilities))
    else:
        from planner.render.show import show_text

        output.print_text(show_text(found, capabilities, style=output.style()))
    return 0
