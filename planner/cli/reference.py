"""The command reference as Markdown, made from the commands themselves: ``docs/cli.md`` is this text, held by a test.

Write it anew with ``python -m planner.cli.reference > docs/cli.md``.
"""

import inspect
import re
from collections.abc import Iterator

import click

from planner.cli.group import cli

__all__ = ["markdown", "paragraphs"]


def markdown() -> str:
    """The whole reference: the group, then each command with its arguments and options."""
    lines = [
        "# Command reference",
        "",
        "Generated from the commands; do not edit. Exit codes: [exit-codes.md](exit-codes.md). Schemas of the JSON",
        "documents: `planner schema NAME`.",
        "",
    ]
    with cli.make_context("planner", [], resilient_parsing=True) as context:
        lines += [inspect.cleandoc(cli.help or ""), ""]
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            if command is not None:
                lines.extend(_command(command, context))
    return "\n".join(lines).rstrip() + "\n"


def paragraphs(text: str) -> Iterator[tuple[bool, list[str]]]:
    """The paragraphs of a help text as lines, each with whether its lines are kept as they are (click's backspace)."""
    for paragraph in re.split(r"\n{2,}", inspect.cleandoc(text)):
        lines = paragraph.split("\n")
        kept = lines[0] == "\b"
        yield kept, lines[1:] if kept else lines


def _command(command: click.Command, parent: click.Context) -> Iterator[str]:
    with click.Context(command, info_name=command.name, parent=parent) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## `{context.command_path} {usage}`"
        yield ""
        for kept, lines in paragraphs(command.help or ""):
            yield from ("```text", *lines, "```", "") if kept else (*lines, "")
        yield "| Option | Meaning |"
        yield "|---|---|"
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if record is not None:
                yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    print(markdown(), end="")
