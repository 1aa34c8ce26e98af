"""``planner schema``: the JSON Schema of each document that ``--json`` prints."""

import click

from planner.cli.options import json_option

__all__ = ["NAMES", "command"]

NAMES = (
    "plan", "machine", "estimate", "explanation", "models", "model", "local-models", "inspection", "measurement",
    "calibration", "imported", "kept", "tuning", "drift", "why-not",
    "fetched", "clean", "serve", "verification", "exported", "completion", "report", "error",
)  # fmt: skip
"""The documents in the order of the help text; a test holds them equal to what is rendered."""


@click.command(name="schema")
@click.argument("document", type=click.Choice(NAMES))
@json_option
def command(*, document: str, as_json: bool) -> int:  # noqa: ARG001 - a schema is JSON either way
    """Print the JSON Schema of a document."""
    from planner.cli import output
    from planner.render.schema import DOCUMENTS, schema_json

    if document == "why-not":
        from planner import workflow

        output.print_bytes(schema_json(workflow.WhyNot))
    else:
        output.print_bytes(schema_json(DOCUMENTS[document]))
    return 0
